"""FairFace's pictures and labels into the store, whether they come from its CSV or from a Hugging Face dataset.

    python -m annotation import-fairface fairface_label_val.csv --images DIR

Files are stored first, then the rows of a chunk in one transaction: after a kill the same command goes on, and what is
there already is only recognised. The one surprising fact: of two rows with the same content the first one stands, and
that is judged within one file only; content that an earlier import brought is known, not a duplicate.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from annotation.fairface import LABEL_SOURCE
from annotation.imports.fairface_table import Face
from annotation.imports.import_report import BadRow, ImportReport
from annotation.imports.picture_intake import Picture, PictureIntake
from annotation.ingest import CHUNK, Ingested
from annotation.models import ImageInput
from annotation.store import Store
from facellm.errors import DataError

T = TypeVar("T")


def import_faces(
    store: Store, rows: Iterable[Face | BadRow], report: ImportReport, *, source: str, advance: Callable[[int], object]
) -> None:
    """Store all good rows that are not there yet, and list the bad ones in the report.

    Args:
        rows: the file's, in its order.
        source: what the images' sources begin with, such as `fairface`; the row's name follows.
        advance: is told how many more rows are done.

    Raises:
        ConfigError: the data directory cannot be written to.
    """
    first: dict[str, Face] = {}  # SHA-256 → the row that had this content first
    with PictureIntake(store) as intake:
        for chunk in chunks(rows, CHUNK):
            faces = _good(chunk, report)
            pictures = intake.take([face.picture for face in faces])
            taken: dict[str, Face] = {}
            images = []
            for face, picture in zip(faces, pictures, strict=True):
                if isinstance(picture, DataError):
                    report.refuse(face.number, face.name, picture)
                elif picture.sha256 in first:
                    before = first[picture.sha256]
                    reason = f"it is the same picture as {before.name} in {report.unit} {before.number}, which stands"
                    report.refuse(face.number, face.name, reason)
                else:
                    first[picture.sha256] = taken[picture.sha256] = face
                    images.append(_image(face, picture, source))
            _count(report, store.ingest_and_tell(images), taken)
            advance(len(chunk))


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of at most `size`."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _good(rows: list[Face | BadRow], report: ImportReport) -> list[Face]:
    report.bad += [row for row in rows if isinstance(row, BadRow)]
    return [row for row in rows if isinstance(row, Face)]


def _image(face: Face, picture: Picture, source: str) -> ImageInput:
    return ImageInput(
        sha256=picture.sha256,
        path=picture.path,
        width=picture.width,
        height=picture.height,
        bytes=picture.bytes,
        source=f"{source}:{face.name}",
        labels=face.labels,
        label_source=LABEL_SOURCE,
    )


def _count(report: ImportReport, told: Ingested, taken: dict[str, Face]) -> None:
    """Count a chunk's rows; one with a label in conflict is bad, though its picture is known."""
    conflicts: dict[str, list[str]] = {}
    for each in told.conflicts:
        reason = f"{each.name} is '{each.refused}', but '{each.stored}' is stored already and stays"
        conflicts.setdefault(each.sha256, []).append(reason)
    for sha256, reasons in conflicts.items():
        report.refuse(taken[sha256].number, taken[sha256].name, "; ".join(reasons))
    report.images += len(told.images)
    report.labels += told.labels
    report.added += len(told.images)
    report.known += len(taken) - len(told.images) - len(conflicts)
