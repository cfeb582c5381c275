"""The checkpoints of a run, as its directory tells of them: checkpoints/checkpoint-N with complete.json, written last.

The one surprising fact: a checkpoint without complete.json, or whose files have other sizes than that says, does not
count. The process may have been killed, the disk full or the power gone while it was written; then the one before it is
taken.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facellm.errors import DataError
from facellm.training.run_files import read_json, write_json

FOLDER = "checkpoints"
COMPLETE = "complete.json"
KEPT = 2  # the last one, and the one before it should a disk damage that
_NAME = re.compile(r"checkpoint-([0-9]+)")


@dataclass(frozen=True, order=True)
class Checkpoint:
    """A complete checkpoint: training goes on after this step."""

    step: int
    path: Path

    @property
    def chosen(self) -> dict[str, Any]:
        """What the run had chosen for itself where its config leaves it open, such as the type to compute in."""
        return dict((read_json(self.path / COMPLETE) or {}).get("chosen", {}))


def checkpoints(run_dir: Path) -> list[Checkpoint]:
    """The complete ones, oldest first."""
    found = ((_NAME.fullmatch(path.name), path) for path in (run_dir / FOLDER).glob("checkpoint-*"))
    return sorted(Checkpoint(int(name[1]), path) for name, path in found if name and _is_complete(path))


def _is_complete(path: Path) -> bool:
    try:
        sizes = (read_json(path / COMPLETE) or {})["sizes"]
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, DataError, KeyError):
        return False


def last_checkpoint(run_dir: Path) -> Checkpoint | None:
    """The one to resume from."""
    return max(checkpoints(run_dir), default=None)


def folder_of(run_dir: Path, step: int) -> Path:
    """Where the checkpoint after a step belongs."""
    return run_dir / FOLDER / f"checkpoint-{step}"


def complete(run_dir: Path, step: int, chosen: dict[str, Any]) -> None:
    """Declare a written checkpoint complete once all of it is on the disk, and tidy up; see `Checkpoint.chosen`."""
    folder = folder_of(run_dir, step)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != COMPLETE)
    for path in (*files, folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    write_json(folder / COMPLETE, {"step": step, "chosen": chosen, "sizes": sizes})
    tidy(run_dir)


def tidy(run_dir: Path) -> None:
    """Remove all but the last `KEPT`, and what is incomplete; only while no checkpoint is being written."""
    kept = {checkpoint.path for checkpoint in checkpoints(run_dir)[-KEPT:]}
    for path in (run_dir / FOLDER).glob("*"):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
