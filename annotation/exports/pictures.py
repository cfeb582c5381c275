"""The pictures of an export: each content once, copied or linked, as `images/ab/<sha256>.jpg` beside the pairs' file.

The one surprising fact: a link is a second name of the same file wherever that can be, so it stays whole when the data
directory is moved or deleted; between two disks it can only be a symbolic link, which does not.
"""

import hashlib
import os
from pathlib import Path

from annotation.exports.snapshot_file import Row
from facellm.errors import DataError


class Pictures:
    """Puts pictures where an export expects them."""

    def __init__(self, source: Path, target: Path, *, link: bool) -> None:
        """Source and target: the snapshot's folder, from which its paths start, and that of the export."""
        self._source = source
        self._target = target
        self._link = link
        self._folders: set[Path] = set()
        self.placed: dict[str, str] = {}  # SHA-256 → path below its part's folder
        self.symbolic = 0  # links that need the data directory to stay where it is

    def place(self, row: Row, folder: str) -> str:
        """Put a pair's picture into a folder of the export, unless it is there; return its path from that folder.

        Raises:
            DataError: its file is gone, or is not what it was.
        """
        if row.image not in self.placed:
            suffix = os.path.splitext(row.path)[1]
            relative = f"images/{row.image[:2]}/{row.image}{suffix}"
            target = self._target / folder / relative
            if target.parent not in self._folders:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._folders.add(target.parent)
            self._put(self._source / row.path, target, row.image)
            self.placed[row.image] = relative
        return self.placed[row.image]

    def _put(self, source: Path, target: Path, sha256: str) -> None:
        try:
            data = source.read_bytes()
        except OSError as error:
            raise DataError(f"The image {source} cannot be read: {error.strerror}. Restore it from a copy.") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DataError(f"The image {source} is not what it was: its content has changed. Restore it from a copy.")
        if not self._link:
            target.write_bytes(data)
            return
        try:
            os.link(os.path.realpath(source), target)
        except OSError:  # another disk, or one without links
            target.symlink_to(os.path.realpath(source))
            self.symbolic += 1
