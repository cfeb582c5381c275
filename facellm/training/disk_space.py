"""A run on a disk that fills up: its end can still be written down, and what was wrong is one sentence.

The one surprising fact: not every writer raises OSError when the disk is full. torch and safetensors write from C++ and
Rust, and their errors have the reason in the text only, or not even there.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from facellm.errors import DataError, FaceLLMError
from facellm.training.run_directory import RESERVE

RESERVED = 64 * 1024  # bytes: far more than result.json and a checkpoint's marks take
FULL = 1024 * 1024  # bytes: with less left, a writer that gives no reason has met a full disk
NO_REASON = ("file write failed", "unexpected pos")  # what torch.save says
REASONS = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


def hold_reserve(run_dir: Path) -> None:
    """Take the room in which the run's end will be written down.

    Raises:
        OSError: there is not even that.
    """
    with (run_dir / RESERVE).open("wb") as file:
        file.write(os.urandom(RESERVED))  # what no file system can compress
        file.flush()
        os.fsync(file.fileno())


def free_reserve(run_dir: Path) -> None:
    """Give that room back, for result.json; nothing happens if it is not held."""
    with suppress(OSError):
        (run_dir / RESERVE).unlink(missing_ok=True)


@contextmanager
def full_disk_is_told(run_dir: Path) -> Iterator[None]:
    """Errors of a full disk, whoever raised them, become one sentence.

    Raises:
        DataError: the disk of the run is full.
    """
    try:
        yield
    except FaceLLMError:
        raise
    except Exception as error:
        if not is_of_a_full_disk(error, run_dir):
            raise
        free_mb = shutil.disk_usage(run_dir).free / 1e6
        raise DataError(
            f"The disk of {run_dir} is full: {free_mb:.1f} MB are free. Free some space, and try again."
        ) from error


def is_of_a_full_disk(error: BaseException | None, folder: Path) -> bool:
    """Whether an error, or what has caused it, comes of a full disk; `folder` is on that disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(reason in str(error) for reason in REASONS):
            return True
        if any(words in str(error) for words in NO_REASON) and shutil.disk_usage(folder).free < FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
