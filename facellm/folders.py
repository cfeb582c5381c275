"""Folders that appear complete or not at all.

The one surprising fact: a folder is renamed into its place, and Linux lets that succeed over an empty folder; over any
other it fails, so nothing that somebody else put there meanwhile is lost.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from facellm.errors import DataError


def check_new(place: Path) -> None:
    """See that nothing is lost by making a folder here.

    Raises:
        DataError: there is something already.
    """
    if place.is_symlink() or (place.exists() and not (place.is_dir() and not any(place.iterdir()))):
        raise DataError(f"{place} is there already, and nothing is overwritten. Choose another place, or move it away.")


def check_room(place: Path, needed: int) -> None:
    """See before the work that the disk can take it.

    Args:
        place: of the folder to be made.
        needed: bytes.

    Raises:
        DataError: it cannot; the message has both numbers.
    """
    disk = next(folder for folder in place.absolute().parents if folder.exists())
    free = shutil.disk_usage(disk).free
    if free < needed:
        raise DataError(
            f"{place} needs {needed / 1e9:,.1f} GB, and the disk of {disk} has {free / 1e9:,.1f} GB left. "
            "Make room, or choose another place."
        )


@contextmanager
def appearing(place: Path) -> Iterator[Path]:
    """A folder to write into, which is moved to its place at the end unless something is raised; else it is gone.

    Raises:
        DataError: it cannot be written, or the place is taken by then.
    """
    with beside(place) as partial:
        yield partial
        os.rename(partial, place)


@contextmanager
def beside(place: Path) -> Iterator[Path]:
    """The same, but the caller moves it to its place.

    Raises:
        DataError: it cannot be written.
    """
    partial = place.parent / f".{place.name}.{uuid4().hex}.partial"
    try:
        partial.mkdir(parents=True)
        yield partial
    except OSError as error:
        raise DataError(f"{place} was not written: {_reason(error)}. Nothing is left behind.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; make room, or choose another place"
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
        return "something has appeared there meanwhile; choose another place"
    return f"{(error.strerror or str(error)).lower()}; choose another place"
