"""The checkpoints of a run, as its directory tells of them: checkpoints/checkpoint-N with complete.json, written last.

The one surprising fact: a checkpoint without complete.json does not count. The process may have been killed, or the
disk may have been full, while it was written.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from facellm.training.run_files import write_json

FOLDER = "checkpoints"
COMPLETE = "complete.json"
KEPT = 2  # the last one, and the one before it should a disk damage that
_NAME = re.compile(r"checkpoint-([0-9]+)")


@dataclass(frozen=True, order=True)
class Checkpoint:
    """A complete checkpoint: training goes on after this step."""

    step: int
    path: Path


def checkpoints(run_dir: Path) -> list[Checkpoint]:
    """The complete ones, oldest first."""
    found = ((_NAME.fullmatch(path.name), path) for path in (run_dir / FOLDER).glob("checkpoint-*"))
    return sorted(Checkpoint(int(name[1]), path) for name, path in found if name and (path / COMPLETE).is_file())


def last_checkpoint(run_dir: Path) -> Checkpoint | None:
    """The one to resume from."""
    return max(checkpoints(run_dir), default=None)


def folder_of(run_dir: Path, step: int) -> Path:
    """Where the checkpoint after a step belongs."""
    return run_dir / FOLDER / f"checkpoint-{step}"


def complete(run_dir: Path, step: int) -> None:
    """Declare a written checkpoint complete, and tidy up."""
    write_json(folder_of(run_dir, step) / COMPLETE, {"step": step})
    tidy(run_dir)


def tidy(run_dir: Path) -> None:
    """Remove all but the last `KEPT`, and what is incomplete; only while no checkpoint is being written."""
    kept = {checkpoint.path for checkpoint in checkpoints(run_dir)[-KEPT:]}
    for path in (run_dir / FOLDER).glob("*"):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
