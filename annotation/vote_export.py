"""All votes as one file, for statistics elsewhere: a line for each, as CSV or as JSON.

The one surprising fact: in CSV the hashes of several pictures are one cell, with spaces between them. The file appears
complete or not at all.
"""

import csv
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from facellm.errors import DataError
from facellm.votes import Vote


def export_votes(path: Path, votes: Iterable[Vote]) -> int:
    """Write votes to a file, in their order; return how many.

    Args:
        path: its suffix says the format, .csv or .jsonl; what is there already is replaced.
        votes: all that it is to hold.

    Raises:
        DataError: another suffix, or the file cannot be written.
    """
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise DataError(f"{path} is neither .csv nor .jsonl. Name a file with one of these suffixes.")
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="") as out:
            count = write(out, votes)
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}. Name another file.") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return count


def _write_csv(out: IO[str], votes: Iterable[Vote]) -> int:
    lines = csv.DictWriter(out, list(Vote.model_fields))
    lines.writeheader()
    count = 0
    for count, vote in enumerate(votes, start=1):  # noqa: B007 - the last number is the answer
        lines.writerow(vote.model_dump(mode="json") | {"image_sha256": " ".join(vote.image_sha256)})
    return count


def _write_jsonl(out: IO[str], votes: Iterable[Vote]) -> int:
    count = 0
    for count, vote in enumerate(votes, start=1):  # noqa: B007 - as above
        out.write(vote.model_dump_json() + "\n")
    return count


_WRITERS: Mapping[str, Callable[[IO[str], Iterable[Vote]], int]] = {".csv": _write_csv, ".jsonl": _write_jsonl}
