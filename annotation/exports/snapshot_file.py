"""A snapshot's file as rows: read line by line, and checked against its hash at the end.

    for row in read_rows(path, sha256): ...

The one surprising fact: the hash is known only after the last row, so whoever writes rows somewhere publishes that
when the loop is over, not before.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facellm.data import ContentHash
from facellm.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One pair of a snapshot; a pair is about one image."""

    record: dict[str, Any]  # a facellm.data.Example as JSON, without its `images`
    path: str  # of the image, relative to the folder of the snapshot's file

    @property
    def pair_id(self) -> int:
        """The pair's id in the database."""
        return int(self.record["provenance"]["pair_id"])

    @property
    def image(self) -> str:
        """The SHA-256 of the image."""
        return str(self.record["provenance"]["image_sha256"][0])

    @property
    def attribute(self) -> str | None:
        """None for a free question."""
        return self.record["attribute"]

    @property
    def question(self) -> str:
        """As it was stored."""
        return str(self.record["question"])

    @property
    def answer(self) -> str:
        """The text that stood: the edited one where there was an edit."""
        return str(self.record["answer"])

    @property
    def labels(self) -> dict[str, str]:
        """What was known about the image."""
        return self.record["provenance"]["labels"]


def read_rows(path: Path, sha256: str) -> Iterator[Row]:
    """The pairs of a snapshot in the order of their ids, one in memory at a time.

    Args:
        path: of its file.
        sha256: its content hash, as the database has it.

    Raises:
        DataError: the file is missing, is not what a snapshot writes, or has another hash; that last thing is told
            after the last row.
    """
    content = ContentHash()
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                row = _row(line, path, number)
                content.add(row.record)
                yield row
    except OSError as error:
        raise DataError(
            f"The snapshot's file {path} cannot be read: {error.strerror}. Restore it from a copy."
        ) from error
    if content.hexdigest() != sha256:
        raise DataError(
            f"{path} is not what was frozen: its content has the hash {content.hexdigest()[:12]}…, the snapshot "
            f"{sha256[:12]}…. Restore it from a copy, or take a new snapshot."
        )


def _row(line: str, path: Path, number: int) -> Row:
    try:
        record = json.loads(line)
        (image,) = record.pop("images")
        row = Row(record, image)
        if len(record["provenance"]["image_sha256"]) == 1 and row.pair_id and row.question and row.answer:
            return row
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}, line {number}, is no pair of a snapshot. Restore it from a copy.") from error
    raise DataError(f"{path}, line {number}, has not one image, question and answer. Restore it from a copy.")
