"""What a run directory holds, and how one is made.

    config.json      what to do: the whole RunConfig, versions, the commit, the hash of the examples
    train.jsonl      the examples
    process.json     the process that trains it, or did
    waiting.json     the process that waits for the device to train it
    reserve          room on the disk for result.json, while it trains
    metrics.jsonl    a line for each step
    held_out.jsonl   a line for each measurement of the held-out loss
    stage            what the process does just now: reading, training or measuring
    checkpoints/     from which it can be resumed, see checkpoints.py; gone once it has finished
    features/        of images, while it trains
    tensorboard/     the curves, where TensorBoard is installed
    best/            the adapter of the lowest held-out loss, while it may stop early
    log.txt          what the process printed
    adapter/         the trained LoRA adapter
    result.json      written last: how it ended

The one surprising fact: the hash is over what the examples say, not over the file, so it is that of the snapshot they
came from, wherever the data directory lies.
"""

import importlib.metadata
import platform
import re
import shutil
import subprocess
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from facellm.config import ROOT
from facellm.data import Example, content_hash, write_examples
from facellm.errors import ConfigError, DataError
from facellm.training.recipe import RunConfig
from facellm.training.run_files import read_json, write_json

CONFIG, EXAMPLES, PROCESS = "config.json", "train.jsonl", "process.json"
METRICS, LOG, RESULT, ADAPTER = "metrics.jsonl", "log.txt", "result.json", "adapter"
HELD_OUT, STAGE, FEATURES, BEST = "held_out.jsonl", "stage", "features", "best"
WAITING, RESERVE = "waiting.json", "reserve"
STOP = "stop"  # an empty file: somebody asked the run to stop
PACKAGES = ("torch", "transformers", "peft", "accelerate")
LAST_NAME = ".last-name"  # beside the runs: the highest run-N that there has been, should it be deleted
_NUMBERED = re.compile(r"run-([0-9]+)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class SnapshotRef:
    """Where the examples of a run come from: a file, and of a snapshot its name and content hash as far as known."""

    name: str | None
    sha256: str | None
    path: Path


def create_run(
    runs_dir: Path,
    examples: Sequence[Example],
    config: RunConfig,
    *,
    name: str | None = None,
    reserved: Collection[str] = (),
) -> Path:
    """Make a run directory that is ready to be trained; `config.json`, written last, makes it one.

    Args:
        config: where it names a snapshot without its hash, that of the examples is filled in.
        name: of the directory; the next free `run-N` by default.
        reserved: names that it must not have, see `check_name`.

    Raises:
        DataError: there is no example, or they are not those of the snapshot that the config names.
        ConfigError: the name is taken or reserved or cannot be a folder's, or no folder can be made there.
    """
    if not examples:
        raise DataError("There is no accepted pair to train on. Accept some pairs first.")
    sha256 = content_hash(examples)
    if config.snapshot_sha256 not in (None, sha256):
        raise DataError(
            f"The examples have the hash {sha256[:12]}…, the snapshot {config.snapshot} has "
            f"{str(config.snapshot_sha256)[:12]}…: they have been changed. Take a new snapshot."
        )
    if config.snapshot is not None:
        config = config.model_copy(update={"snapshot_sha256": sha256})
    run_dir = _new_folder(runs_dir, name, reserved)
    record = {
        "created": datetime.now(UTC).isoformat(),
        "pairs": len(examples),
        "images": len({image for example in examples for image in example.images}),
        "examples_sha256": sha256,
        "versions": versions(),
        "git": git_state(),
        "config": config.model_dump(mode="json"),
    }
    try:
        write_examples(run_dir / EXAMPLES, examples)
        write_json(run_dir / CONFIG, record)
    except BaseException:  # such as a full disk: the name stays free
        shutil.rmtree(run_dir, ignore_errors=True)
        raise
    return run_dir


def check_name(runs_dir: Path, name: str, reserved: Collection[str] = ()) -> None:
    """Raise ConfigError if a new run cannot have this name.

    Args:
        reserved: the names of others that answer in the chat, where a run's adapter has the run's name; those that
            differ only in capitals are refused, too.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be the name of a run. Use up to 64 letters, digits, dots, dashes or underscores, "
            "beginning with a letter or a digit."
        )
    if name.casefold() in {other.casefold() for other in reserved}:
        raise ConfigError(f"The name {name} is taken by another model of the chat. Choose another name.")
    if (runs_dir / name).exists():
        raise ConfigError(f"There is a run {name} already. Choose another name.")


def next_name(runs_dir: Path, reserved: Collection[str] = ()) -> str:
    """`run-N` with the next number that no run has had, even one that has been deleted.

    A deleted run's adapter may still be loaded in the chat, by that name.
    """
    return f"run-{_last_number(runs_dir, reserved) + 1}"


def _last_number(runs_dir: Path, reserved: Collection[str] = ()) -> int:
    """The highest N of all `run-N` that there are or have been; 0 if there has been none."""
    noted = runs_dir / LAST_NAME
    names = [*reserved, *(path.name for path in runs_dir.glob("run-*"))]
    if noted.is_file():
        names.append(noted.read_text(errors="replace"))
    return max((int(found[1]) for name in names if (found := _NUMBERED.fullmatch(name))), default=0)


def _new_folder(runs_dir: Path, name: str | None, reserved: Collection[str]) -> Path:
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        while True:
            chosen = name or next_name(runs_dir, reserved)
            check_name(runs_dir, chosen, reserved)
            with suppress(FileExistsError):  # another process took it since
                (runs_dir / chosen).mkdir()
                (runs_dir / LAST_NAME).write_text(f"run-{_last_number(runs_dir)}")
                return runs_dir / chosen
    except OSError as error:
        raise ConfigError(
            f"The folder of runs {runs_dir} cannot be used: {error.strerror}. Expected a folder that can be written "
            "to; set FACELLM_DATA_DIR to another one."
        ) from error


def versions() -> dict[str, str]:
    """The versions that decide what training computes."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def git_state() -> dict[str, Any]:
    """The commit of this checkout, and whether files under version control have been changed since.

    {"commit": None, "changed": False} where the code is no checkout, or there is no git.
    """
    try:
        top, commit = _git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() == ROOT.resolve():  # and not one that it happens to lie in
            return {"commit": commit, "changed": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, ValueError, subprocess.SubprocessError):
        pass
    return {"commit": None, "changed": False}


def _git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True).stdout


def load_record(run_dir: Path) -> dict[str, Any]:
    """config.json as it is.

    Raises:
        DataError: there is none, or it lacks what create_run writes.
    """
    record = read_json(run_dir / CONFIG)
    if record is None:
        raise DataError(f"{run_dir} is not a run directory: it has no {CONFIG}. Make one: python -m facellm prepare.")
    expected = {"created", "pairs", "images", "examples_sha256", "versions", "config"}
    if missing := sorted(expected - record.keys()):
        raise DataError(f"{run_dir.name}/{CONFIG} lacks {', '.join(missing)}. Make the run again.")
    return record
