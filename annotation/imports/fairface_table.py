"""FairFace's CSV: `file,age,gender,race,service_test`, one face a line, read so that a bad row spoils no other.

The one surprising fact: each line is parsed alone. No cell of FairFace holds a line break, and so a stray quotation
mark spoils its own row, where a CSV reader for the whole file would swallow all that follow.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from annotation.imports.fairface_labels import NAMES, check_labels
from annotation.imports.import_report import BadRow
from annotation.imports.picture_intake import find_picture, name_below
from facellm.errors import DataError

COLUMNS: Final = ("file", *NAMES)
_DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True)
class Face:
    """A good row: a picture with what is known about it."""

    number: int  # see BadRow
    name: str  # such as `val/1.jpg`
    labels: dict[str, str]
    picture: Path | bytes  # its file, or the file's bytes


@dataclass(frozen=True)
class FaceTable:
    """The rows of a file, in its order."""

    rows: list[Face | BadRow]
    notes: list[str]  # what else was noticed


@dataclass(frozen=True)
class _Header:
    delimiter: str
    columns: list[str]


def read_table(path: Path, images: Path, *, split: str | None = None, limit: int | None = None) -> FaceTable:
    """The rows of the official CSV, also one that a spreadsheet program has saved with other delimiters or a BOM.

    Args:
        path: the CSV.
        images: the folder that the column `file` starts from.
        split: only rows of this one, `val` or `train`.
        limit: only the first so many of them.

    Raises:
        DataError: there is no such file, or it has not the columns.
    """
    lines = _lines(path)
    header = _header(path, lines[0] if lines else "")
    rows = list(islice(_rows(lines, header, images, split), limit))
    notes = []
    if header.delimiter != ",":
        notes.append(f"{path.name} has {_DELIMITERS[header.delimiter]} between its cells, and was read so.")
    if not rows and split is not None:
        notes.append(f"{path.name} has no row whose file is in {split}/.")
    return FaceTable(rows, notes)


def _lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Give the path of FairFace's CSV.") from error
    if data.startswith(b"PK\x03\x04"):
        raise DataError(f"{path} is a spreadsheet program's own file. Expected CSV: use the file as it was published.")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # what Excel calls Unicode text
        text = data.decode("utf-16", errors="replace")
    else:
        text = data.decode("utf-8-sig", errors="surrogateescape")  # the rows that are not UTF-8 are refused one by one
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _header(path: Path, line: str) -> _Header:
    headers = [_Header(delimiter, _columns(line, delimiter)) for delimiter in _DELIMITERS]
    best = max(headers, key=lambda header: len(set(COLUMNS) & set(header.columns)))
    missing = [name for name in COLUMNS if name not in best.columns]
    twice = [name for name in COLUMNS if best.columns.count(name) > 1]
    if missing or twice:
        what = f"no column {', '.join(missing)}" if missing else f"the column {', '.join(twice)} twice"
        found = ascii(line if len(line) <= 80 else line[:80] + "…")
        raise DataError(
            f"{path} has {what}: its first line is {found}. Expected {','.join(COLUMNS)}; a column whose values are "
            "not known may be empty."
        )
    return best


def _columns(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.lower() for cell in _cells(line, delimiter)]
    except DataError:
        return []


def _rows(lines: list[str], header: _Header, images: Path, split: str | None) -> Iterator[Face | BadRow]:
    first: dict[str, int] = {}  # name → the row that had it first
    for number, line in enumerate(lines[1:], start=2):
        name = ""
        try:
            cells = _cells(line, header.delimiter)
            if not any(cells):
                continue
            named = dict(zip(header.columns, cells, strict=False))
            name = named.get("file", "")
            if split is not None and _split_of(images, name) not in (split, None):
                continue
            yield _face(number, cells, named, header, images, first)
        except DataError as error:
            yield BadRow(number, name.encode(errors="replace").decode(), str(error))


def _split_of(images: Path, name: str) -> str | None:
    """The folder that a name begins with; None for a name that is refused, whatever the split."""
    try:
        return name_below(images, name).split("/")[0]
    except DataError:
        return None


def _face(
    number: int, cells: list[str], named: dict[str, str], header: _Header, images: Path, first: dict[str, int]
) -> Face:
    if any("\udc80" <= letter <= "\udcff" for cell in cells for letter in cell):
        raise DataError("it has bytes that are not UTF-8; save the file as CSV UTF-8")
    if len(cells) != len(header.columns):
        raise DataError(f"it has {len(cells)} cells, and the first line has {len(header.columns)}")
    labels = check_labels(named)
    name = name_below(images, named["file"])
    if name in first:
        raise DataError(f"the same file is in row {first[name]}, which stands")
    path = find_picture(images, name)
    first[name] = number
    return Face(number, name, labels, path)


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        rows = list(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"it is no CSV: {error}") from error
    return [cell.strip() for cell in rows[0]] if rows else []
