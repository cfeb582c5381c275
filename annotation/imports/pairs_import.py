"""Published question–answer pairs into the store, to be reviewed as any others.

    python -m annotation import-pairs dataset.json --images DIR

Images that are known by their content, from an import of FairFace say, get the pairs; others are stored without labels.
Files are stored first, then the rows of a chunk in one transaction: after a kill the same command goes on. The one
surprising fact: an item that is in the file twice is a duplicate, but another answer to the same question is not.
"""

from collections.abc import Callable
from pathlib import Path

from annotation.imports.fairface_import import chunks
from annotation.imports.import_report import BadRow, ImportReport
from annotation.imports.picture_intake import Picture, PictureIntake, find_picture, name_below
from annotation.imports.sharegpt import Draft, PairFile
from annotation.ingest import CHUNK
from annotation.models import ImageInput
from annotation.store import Store
from facellm.data import Attribute
from facellm.errors import DataError

SOURCE = "imported"  # what the sources of images begin with that nothing else is known about
ITEMS = CHUNK * len(Attribute)  # a chunk has about as many images as one of FairFace


def import_pairs(
    store: Store,
    file: PairFile,
    images: Path,
    report: ImportReport,
    *,
    teacher: str,
    advance: Callable[[int], object],
) -> None:
    """Store all good pairs that are not there yet, with their images, and list the bad ones in the report.

    Args:
        images: the folder that the paths of the images start from.
        teacher: who wrote the answers; part of what a pair is known by.
        advance: is told how many more items are done.

    Raises:
        ConfigError: the data directory cannot be written to.
    """
    with PictureIntake(store) as intake:
        pictures = _Pictures(intake, images)
        first: dict[tuple[str, str], int] = {}  # image and texts → the item that had them first
        for chunk in chunks(file.drafts(teacher), ITEMS):
            report.bad += [item for item in chunk if isinstance(item, BadRow)]
            drafts = [item for item in chunk if isinstance(item, Draft)]
            pictures.take({draft.image for draft in drafts})
            taken: dict[str, list[Draft]] = {}
            for draft in drafts:
                picture = pictures.of[draft.image]
                if isinstance(picture, DataError):
                    report.refuse(draft.number, draft.image, picture)
                    continue
                before = first.setdefault((picture.sha256, draft.pair.parameters), draft.number)
                if before != draft.number:
                    report.refuse(draft.number, draft.image, f"it is the same as {report.unit} {before}, which stands")
                    continue
                taken.setdefault(picture.sha256, []).append(draft)
            told = store.ingest_and_tell([_image(pictures, some) for some in taken.values()])
            report.images += len(told.images)
            report.added += told.pairs
            report.known += sum(map(len, taken.values())) - told.pairs
            advance(len(chunk))


class _Pictures:
    """The images of all items so far: several items name the same one, and it is looked at once."""

    def __init__(self, intake: PictureIntake, images: Path) -> None:
        self._intake = intake
        self._images = images
        self.of: dict[str, Picture | DataError] = {}  # by the name in the file
        self.names: dict[str, str] = {}  # SHA-256 → the name below the folder

    def take(self, given: set[str]) -> None:
        """Look at those that are new."""
        found: dict[str, tuple[str, Path]] = {}
        for name in sorted(given - self.of.keys()):
            try:
                below = name_below(self._images, name)
                found[name] = below, find_picture(self._images, below)
            except DataError as error:
                self.of[name] = error
        for some in chunks(found.items(), CHUNK):
            pictures = self._intake.take([path for _, (_, path) in some])
            for (name, (below, _)), picture in zip(some, pictures, strict=True):
                self.of[name] = picture
                if isinstance(picture, Picture):
                    self.names.setdefault(picture.sha256, below)


def _image(pictures: _Pictures, drafts: list[Draft]) -> ImageInput:
    picture = pictures.of[drafts[0].image]
    assert isinstance(picture, Picture)  # noqa: S101 - the others were refused
    return ImageInput(
        sha256=picture.sha256,
        path=picture.path,
        width=picture.width,
        height=picture.height,
        bytes=picture.bytes,
        source=f"{SOURCE}:{pictures.names[picture.sha256]}",
        labels={},
        label_source=SOURCE,
        pairs=tuple(draft.pair for draft in drafts),
    )
