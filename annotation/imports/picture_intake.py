"""Pictures of an import: found below a folder, checked, and stored as they are, on all cores.

A picture is decoded to see that it is whole, but the file's own bytes are stored: a teacher is sent those, and encoding
again would cost quality. The one surprising fact: threads are enough, because Pillow decodes without Python's lock.
"""

import hashlib
import io
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from PIL import Image

from annotation.store import Store
from facellm.data import IMAGE_FORMATS, MAX_IMAGE_BYTES, open_image
from facellm.errors import ConfigError, DataError

_SUFFIXES = {"JPEG": ".jpg", "TIFF": ".tif"}  # the others are called as their format
_DRIVE = re.compile(r"[A-Za-z]:/")


@dataclass(frozen=True)
class Picture:
    """A picture whose file is stored."""

    sha256: str
    path: str  # relative to the data directory
    width: int  # pixels
    height: int
    bytes: int


class PictureIntake:
    """Checks and stores pictures on all cores that this process may use; a context manager."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "pictures")

    def __enter__(self) -> "PictureIntake":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._threads.shutdown(cancel_futures=True)

    def take(self, sources: Sequence[Path | bytes]) -> list[Picture | DataError]:
        """Store pictures, at most some thousands; for each the stored one, or why it was not stored.

        One that is known by its content, with its file in place, is not decoded again. No more files than there are
        cores are in memory at once.

        Raises:
            ConfigError: the data directory cannot be written to.
        """
        hashes = list(self._threads.map(_sha256, sources))
        known = self._store.images({found for found in hashes if isinstance(found, str)})
        stored = {
            sha256: Picture(sha256, image.path, image.width, image.height, image.bytes)
            for sha256, image in known.items()
            if (self._store.data_dir / image.path).is_file()
        }

        def put(source: Path | bytes, found: str | DataError) -> Picture | DataError:
            if isinstance(found, DataError):
                return found
            return stored.get(found) or self._put(source)

        return list(self._threads.map(put, sources, hashes))

    def _put(self, source: Path | bytes) -> Picture | DataError:
        try:
            data = source if isinstance(source, bytes) else _read(source)
            width, height = open_image(data).size
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                kind = image.format or ""
        except DataError as error:
            return error
        try:
            sha256, path = self._store.put_image(data, _SUFFIXES.get(kind, f".{kind.lower()}"))
        except OSError as error:
            raise ConfigError(
                f"The data directory {self._store.data_dir} cannot be written to: {error.strerror}. What was imported "
                "so far stays; make room or set FACELLM_DATA_DIR to another folder, and run the same command again."
            ) from error
        return Picture(sha256, path, width, height, len(data))


def check_folder(images: Path) -> None:
    """See that the folder of the pictures is there.

    Raises:
        DataError: it is not.
    """
    if not images.is_dir():
        found = "is a file" if images.exists() else "does not exist"
        raise DataError(f"{images} {found}. Give with --images the folder that the file's image paths start from.")


def name_below(images: Path, name: str) -> str:
    """A picture's path as the one spelling below the folder, such as `val/1.jpg` for `./val\\1.jpg`.

    Raises:
        DataError: it is empty, or leads out of the folder.
    """
    plain = name.strip().replace("\\", "/")
    if not plain:
        raise DataError("no image is named")
    below = os.path.relpath(plain, images.absolute()) if plain.startswith("/") else os.path.normpath(plain)
    if below.split("/")[0] in ("..", ".") or _DRIVE.match(plain):
        raise DataError(f"{name} leads out of {images}; expected a path below that folder")
    return below


def find_picture(images: Path, name: str) -> Path:
    """The file of a picture, by its `name_below`.

    Raises:
        DataError: there is no such file.
    """
    path = images / name
    if not os.path.isfile(path):  # unlike Path's own, it takes a name that is too long for one that is not there
        base = os.path.basename(name)
        inside = base != name and os.path.isfile(images / base)
        hint = f"; {base} itself is there, so --images should be the folder above" if inside else ""
        raise DataError(f"there is no file {path}{hint}")
    return path


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_IMAGE_BYTES + 1)  # one more, so that open_image can tell
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _sha256(source: Path | bytes) -> str | DataError:
    try:
        return hashlib.sha256(source if isinstance(source, bytes) else _read(source)).hexdigest()
    except DataError as error:
        return error
