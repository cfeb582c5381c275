"""The commands that bring in data from elsewhere: FairFace's faces, and published pairs.

Both read all rows, store the good ones and list the bad ones with their number and reason. The one surprising fact:
they exit with 0 as soon as a row is stored, now or before; who wants none to be bad looks at `bad` of `--json`.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from annotation.fairface import LABEL_SOURCE
from annotation.imports.fairface_hub import CONFIGS, is_dataset, open_dataset
from annotation.imports.fairface_import import import_faces
from annotation.imports.fairface_table import Face, read_table
from annotation.imports.import_report import BadRow, ImportReport, check_report_path
from annotation.imports.pairs_import import import_pairs
from annotation.imports.picture_intake import check_folder
from annotation.imports.sharegpt import read_pairs
from annotation.store import Store
from facellm.config import load_settings
from facellm.errors import ConfigError, DataError

app = typer.Typer()
ReportOption = Annotated[Path | None, typer.Option(help="Write all bad rows to this CSV file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


class Split(StrEnum):
    """FairFace's two parts; the Hugging Face dataset has another name for one."""

    TRAIN = "train"
    VAL = "val"
    VALIDATION = "validation"


@app.command("import-fairface")
def import_fairface_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CSV", help="FairFace's CSV; or HuggingFaceM4/FairFace, or the folder of a copy of that."
        ),
    ],
    images: Annotated[Path | None, typer.Option(help="The folder that the CSV's file names start from.")] = None,
    split: Annotated[
        Split | None, typer.Option(help="Only this part; all of a CSV, validation of a dataset unless given.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help=f"Of a dataset: how much around the face, {' or '.join(CONFIGS)}.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows.")] = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store FairFace's faces with their labels. Bad rows are listed with number and reason, all others go in.

    After a kill the same command goes on; what is there already stays as it is.

    Exits with 0 if a row is stored, now or before, and with 1 if none could be.
    """
    told = ImportReport("row")
    if report is not None:
        check_report_path(report, Path(source))
    if is_dataset(source):
        if images is not None:
            raise ConfigError("A Hugging Face dataset has its images in it. Leave --images out, or give a CSV.")
        config = config or CONFIGS[0]
        if config not in CONFIGS:
            raise ConfigError(f"--config is {config}; FairFace has {' and '.join(CONFIGS)}.")
        dataset = open_dataset(source, config, "train" if split is Split.TRAIN else "validation")
        rows, total = islice(dataset.rows(), limit), min(dataset.total, limit or dataset.total)
        _import_faces(rows, total, told, f"{LABEL_SOURCE}-{config}")
    else:
        if images is None or config is not None:
            raise ConfigError("A CSV needs --images, the folder of its pictures, and --config is for datasets only.")
        check_folder(images)
        part = None if split is None else "train" if split is Split.TRAIN else "val"
        table = read_table(Path(source), images, split=part, limit=limit)
        told.notes += table.notes
        _import_faces(table.rows, len(table.rows), told, LABEL_SOURCE)
    _finish(told, source, report, as_json)


@app.command("import-pairs")
def import_pairs_command(
    file: Annotated[Path, typer.Argument(help="JSON or JSONL: conversations and image, or messages and images.")],
    images: Annotated[Path, typer.Option(help="The folder that the file's image paths start from.")],
    teacher: Annotated[
        str, typer.Option(help="Who wrote the answers, such as gpt-4o-2024-11-20 for FairFaceGPT.")
    ] = "imported",
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store published pairs, FairFaceGPT's say, for review. Bad ones are listed with number and reason.

    A pair is one question and one answer about one image. After a kill the same command goes on.

    Exits with 0 if a pair is stored, now or before, and with 1 if none could be.
    """
    if not teacher.strip():
        raise ConfigError("--teacher is empty. Name the model that wrote the answers, or leave it out.")
    if report is not None:
        check_report_path(report, file)
    check_folder(images)
    pairs = read_pairs(file)
    told = ImportReport(pairs.unit)
    with _store() as store, _progress("pairs", len(pairs.items)) as advance:
        import_pairs(store, pairs, images, told, teacher=teacher.strip(), advance=advance)
    _finish(told, str(file), report, as_json)
    print("To have suspicious answers flagged: python -m annotation check", file=sys.stderr)


def _import_faces(rows: Iterable[Face | BadRow], total: int, told: ImportReport, source: str) -> None:
    with _store() as store, _progress("faces", total) as advance:
        import_faces(store, rows, told, source=source, advance=advance)


def _finish(told: ImportReport, source: str, report: Path | None, as_json: bool) -> None:
    """Write and print what came of it; an error if that is nothing."""
    if report is not None:
        told.write(report)
    print(json.dumps(told.summary(), indent=2, ensure_ascii=False) if as_json else told.text())
    if not told.taken:
        found = f"none of its {told.read:,} {told.unit}s could be used" if told.read else f"it has no {told.unit}"
        raise DataError(f"Nothing of {source} was imported: {found}. See the reasons, put them right and try again.")


@contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[int], object]]:
    """A bar on stderr for a person; nothing where it goes into a file."""
    with typer.progressbar(length=total, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield bar.update


def _store() -> closing[Store]:
    return closing(Store.of(load_settings()))
