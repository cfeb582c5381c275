"""What came of an import: how many rows were new, how many known, and which were bad, each with the reason.

The one surprising fact: a number of a row is the one that the reader's tool shows. A spreadsheet counts the header as
row 1; an item of a JSON list, and a line of JSONL, counts from 1; a row of a Hugging Face dataset from 0.
"""

import csv
import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from facellm.errors import DataError

SHOWN = 20  # bad rows printed; the report file has all


@dataclass(frozen=True)
class BadRow:
    """A row that did not go in."""

    number: int
    name: str  # of its image, as the file has it; empty where it has none
    reason: str


@dataclass
class ImportReport:
    """The counts so far; every row that was read is in exactly one of added, known and bad."""

    unit: str  # what a number counts: row, item or line
    added: int = 0
    known: int = 0
    images: int = 0  # new ones
    labels: int = 0  # new ones
    bad: list[BadRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what else the user should know

    @property
    def read(self) -> int:
        """How many rows were looked at."""
        return self.added + self.known + len(self.bad)

    @property
    def taken(self) -> int:
        """How many of them are stored now."""
        return self.added + self.known

    def refuse(self, number: int, name: str, reason: object) -> None:
        """List a row as bad."""
        self.bad.append(BadRow(number, name, str(reason)))

    def sorted_bad(self) -> list[BadRow]:
        """The bad rows in the order of the file."""
        return sorted(self.bad, key=lambda row: row.number)

    def summary(self) -> dict[str, Any]:
        """Everything that `--json` prints."""
        first = [{"row": row.number, "image": row.name, "reason": row.reason} for row in self.sorted_bad()[:SHOWN]]
        counts = {"read": self.read, "added": self.added, "known": self.known, "bad": len(self.bad)}
        return counts | {"images": self.images, "labels": self.labels, "notes": self.notes, "bad_rows": first}

    def text(self) -> str:
        """The same for reading."""
        lines = [f"{self.unit} {row.number}: {_named(row)}" for row in self.sorted_bad()[:SHOWN]]
        if len(self.bad) > SHOWN:
            lines.append(f"… and {len(self.bad) - SHOWN:,} more; --report FILE.csv writes all of them.")
        also = f"; new: {self.images:,} images, {self.labels:,} labels" if self.images or self.labels else ""
        counts = f"{self.added:,} added, {self.known:,} known already, {len(self.bad):,} bad"
        return "\n".join([*lines, *self.notes, f"{self.read:,} {self.unit}s read: {counts}{also}."])

    def write(self, path: Path) -> None:
        """Write all bad rows to a CSV file, which appears complete or not at all.

        Raises:
            DataError: it cannot be written.
        """
        partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
        try:
            with partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as out:
                lines = csv.writer(out)
                lines.writerow(["row", "image", "reason"])
                lines.writerows((row.number, row.name, row.reason) for row in self.sorted_bad())
            partial.replace(path)
        except OSError as error:
            raise DataError(f"The report {path} cannot be written: {error.strerror}. Name another file.") from error
        finally:
            with suppress(OSError):
                partial.unlink()


def check_report_path(path: Path, source: Path) -> None:
    """Find out before the import, not after it, whether a report can be written.

    Raises:
        DataError: it cannot, or it would replace the file that is imported.
    """
    if path.resolve() == source.resolve():
        raise DataError(f"{path} is the file to import, and a report would replace it. Name another file for it.")
    problem = None
    if path.is_dir():
        problem = os.strerror(errno.EISDIR)
    elif not path.absolute().parent.is_dir():
        problem = os.strerror(errno.ENOENT)
    elif not os.access(path.absolute().parent, os.W_OK):
        problem = os.strerror(errno.EACCES)
    if problem:
        raise DataError(f"The report {path} cannot be written: {problem}. Name a file in a folder that is there.")


def _named(row: BadRow) -> str:
    """The image's name before the reason, unless that begins with it."""
    return row.reason if not row.name or row.reason.startswith(row.name) else f"{row.name}: {row.reason}"
