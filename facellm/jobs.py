"""Training runs, from their directories alone: make one, start it, stop it, see how it goes.

    run_dir = create_run(runs_dir, examples, recipe(base))
    start(run_dir)
    status(run_dir).state

The one surprising fact: no state is stored anywhere. "Running" means that the process named in process.json lives,
recognised by its start time, since a process id is soon given to another; a process that is gone without result.json
has failed. So nothing is lost, and nothing is pretended, when the app or the trainer is killed.
"""

import dataclasses
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from facellm.config import ROOT
from facellm.errors import BusyError, ConfigError, DataError
from facellm.recipe import RunConfig, changes_from, portable_name, recipe
from facellm.run_directory import (
    ADAPTER,
    CONFIG,
    EXAMPLES,
    LOG,
    METRICS,
    PROCESS,
    RESULT,
    STOP,
    SnapshotRef,
    check_name,
    create_run,
    load_record,
    next_name,
)
from facellm.run_files import json_line, json_lines, read_json, tail, write_json

# With what makes a run, this module is all that the app needs to know of training.
__all__ = [
    "RunConfig",
    "RunStatus",
    "SnapshotRef",
    "State",
    "changes_from",
    "check_free",
    "check_name",
    "claim",
    "create_run",
    "delete",
    "find_run",
    "finished_adapters",
    "last_metrics",
    "list_runs",
    "load_record",
    "log_tail",
    "metrics",
    "next_name",
    "recipe",
    "start",
    "status",
    "stop",
]


class State(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"  # made, but not started
    RUNNING = "running"
    STOPPED = "stopped"  # on request
    FAILED = "failed"
    FINISHED = "finished"


@dataclass(frozen=True)
class RunStatus:
    """A run as its directory tells it at one moment."""

    path: Path
    state: State
    created: datetime
    pairs: int = 0
    images: int = 0
    config: RunConfig | None = None  # None: config.json cannot be read
    step: int = 0
    total_steps: int = 0  # 0: not known yet
    loss: float | None = None  # of the last step
    first_loss: float | None = None
    seconds: float = 0.0
    eta_s: float | None = None
    error: str | None = None
    stopping: bool = False  # asked to stop, and still running
    adapter: Path | None = None  # only of a run that has ended

    @property
    def name(self) -> str:
        """The run's name: that of its directory, and of its adapter in the chat."""
        return self.path.name

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values, the config with all its numbers."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        config = self.config.model_dump(mode="json") if self.config else None
        paths = {"path": str(self.path), "adapter": str(self.adapter) if self.adapter else None}
        return {"name": self.name} | found | paths | {"created": self.created.isoformat(), "config": config}


def start(run_dir: Path) -> None:
    """Train a run in a process of its own, which outlives this one; its output goes to log.txt. Returns at once.

    Raises:
        BusyError: a run is going.
        ConfigError: it is not a run directory, or it has been trained already.
    """
    command = [sys.executable, "-u", "-m", "facellm", "train", str(run_dir.resolve())]
    with _starting(run_dir), (run_dir / LOG).open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=True,
        )
        _sign(run_dir, process.pid)


def claim(run_dir: Path) -> None:
    """Called by the process that trains: this run is mine, unless another one is going.

    Raises:
        BusyError: another run is going.
        ConfigError: it is not a run directory, or it has been trained already.
    """
    with _starting(run_dir):
        _sign(run_dir, os.getpid())


@contextmanager
def _starting(run_dir: Path) -> Iterator[None]:
    """Check that a run can start; no other process can check or start one meanwhile."""
    if not (run_dir / CONFIG).is_file():
        raise ConfigError(f"{run_dir} is not a run directory: it has no {CONFIG}. Make one: python -m facellm prepare.")
    with _alone(run_dir.parent):
        check_free(run_dir.parent)
        if (run_dir / PROCESS).exists() and not _is_me(run_dir):
            raise ConfigError(f"The run {run_dir.name} has been trained already. Make a new one to train again.")
        yield


@contextmanager
def _alone(runs_dir: Path) -> Iterator[None]:
    """Nobody else starts or deletes a run meanwhile."""
    with (runs_dir / ".starting.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel frees it when the process ends, however it ends
        yield


def check_free(runs_dir: Path) -> None:
    """Raise BusyError if a run of this directory is going: they would share one device."""
    for path in runs_dir.glob(f"*/{PROCESS}"):
        if _lives(path.parent) and not _is_me(path.parent):
            raise BusyError(
                f"The run {path.parent.name} is going; only one can train at a time. Wait until it ends, or stop it."
            )


def stop(run_dir: Path) -> None:
    """Ask a run to stop; it saves its adapter and ends within a step. Nothing happens if it is not going."""
    if _lives(run_dir):
        (run_dir / STOP).touch()
        signed = _signed(run_dir)
        assert signed is not None
        try:
            os.kill(signed[0], signal.SIGTERM)
        except ProcessLookupError:
            return  # it has ended since


def delete(run_dir: Path) -> None:
    """Remove a run and all that it has left, its adapter too. Its snapshot stays.

    Raises:
        BusyError: it is going.
        ConfigError: it is not a run directory, such as a model's folder, which has a config.json, too.
        DataError: a file of it cannot be removed.
    """
    if missing := [name for name in (CONFIG, EXAMPLES) if not (run_dir / name).is_file()]:
        raise ConfigError(f"{run_dir} is not a run directory: it has no {missing[0]}. Nothing was deleted.")
    run_dir = run_dir.resolve()
    with _alone(run_dir.parent):
        if _lives(run_dir):
            raise BusyError(f"The run {run_dir.name} is going. Stop it before you delete it.")
        try:
            (run_dir / CONFIG).unlink()  # from here on it is no run, so nobody sees half of one
            shutil.rmtree(run_dir)
        except OSError as error:
            raise DataError(f"The run {run_dir.name} could not be deleted: {error}. Remove its directory.") from error


def find_run(given: Path, runs_dir: Path) -> Path:
    """The run that a person named: by its path, or by its name below `runs_dir`.

    Raises:
        ConfigError: there is neither.
    """
    for path in (given, runs_dir / given):
        if (path / CONFIG).is_file():
            return path
    raise ConfigError(
        f"There is no run {given}: neither that path nor {runs_dir / given} has a {CONFIG}. "
        "python -m facellm runs lists them."
    )


def _sign(run_dir: Path, pid: int) -> None:
    write_json(run_dir / PROCESS, {"pid": pid, "started": _started(pid)})


def _signed(run_dir: Path) -> tuple[int, float] | None:
    """The process that trains or trained the run: its id, and when it started.

    None if there was no process, or if what is left of process.json, as after a crash of the machine, names none.
    """
    try:
        signed = read_json(run_dir / PROCESS) or {}
        return int(signed["pid"]), float(signed["started"])
    except (DataError, KeyError, TypeError, ValueError):
        return None


def _is_me(run_dir: Path) -> bool:
    signed = _signed(run_dir)
    return signed is not None and signed[0] == os.getpid() and _lives(run_dir)


def _lives(run_dir: Path) -> bool:
    signed = _signed(run_dir)
    started = _started(signed[0]) if signed else None
    return signed is not None and started is not None and abs(started - signed[1]) < 1


def _started(pid: int) -> float | None:
    """When the living process of this id started, in seconds after the boot: no change of the clock moves that."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.create_time() - psutil.boot_time()
    except psutil.NoSuchProcess:
        return None


def status(run_dir: Path) -> RunStatus:
    """How a run stands.

    Raises:
        DataError: it is not a run directory, or one of its files holds something else than training writes.
        ConfigError: config.json holds a number that is out of its bounds.
    """
    try:
        return _read_status(run_dir)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The run {run_dir.name} is damaged: one of its files lacks what training writes, or holds something else "
            f"({type(error).__name__}: {error}). Make the run again."
        ) from error


def _read_status(run_dir: Path) -> RunStatus:
    record = load_record(run_dir)
    lives = _lives(run_dir)
    result = read_json(run_dir / RESULT)  # after the look at the process, which writes it before it ends
    last = last_metrics(run_dir)
    first = next(json_lines(run_dir / METRICS), None)
    state, error = _state(run_dir, lives, result)
    ended = state in (State.STOPPED, State.FINISHED)
    return RunStatus(
        path=run_dir,
        state=state,
        created=datetime.fromisoformat(record["created"]).astimezone(UTC),
        pairs=int(record["pairs"]),
        images=int(record["images"]),
        config=RunConfig.checked(record["config"], f"{run_dir.name}/{CONFIG}"),
        step=int(last["step"]) if last else 0,
        total_steps=int(last["total"]) if last else 0,
        loss=float(last["loss"]) if last else None,
        first_loss=float(first["loss"]) if first else None,
        seconds=float((result or last).get("seconds", 0)),
        eta_s=float(last["eta"]) if last and state is State.RUNNING else None,
        error=error,
        stopping=state is State.RUNNING and (run_dir / STOP).exists(),
        adapter=run_dir / ADAPTER if ended and (run_dir / ADAPTER).is_dir() else None,
    )


def _state(run_dir: Path, lives: bool, result: dict[str, Any] | None) -> tuple[State, str | None]:
    if result:
        return State(result["state"]), result.get("error")
    if lives:
        return State.RUNNING, None
    if not (run_dir / PROCESS).exists():
        return State.QUEUED, None
    if (run_dir / STOP).exists():  # it was stopped before it could say so
        return State.STOPPED, None
    return State.FAILED, (
        "The training process ended without a result: it was killed, or the machine went down or ran out of memory. "
        "The end of the log may say more."
    )


def list_runs(runs_dir: Path) -> list[RunStatus]:
    """All runs, newest first; a damaged one is shown as failed, with what is wrong."""
    found = []
    for path in runs_dir.glob(f"*/{CONFIG}"):
        try:
            created = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            found.append(status(path.parent))
        except FileNotFoundError:
            continue  # it has been deleted since
        except (DataError, ConfigError) as error:
            found.append(RunStatus(path.parent, State.FAILED, created, error=str(error)))
    return sorted(found, key=lambda run: (run.created, run.name), reverse=True)


def finished_adapters(runs_dir: Path, base_model: str) -> dict[str, Path]:
    """The adapters that runs on this base have left, by run name, newest first; stopped runs leave one, too."""
    base = portable_name(base_model)
    return {
        run.name: run.adapter
        for run in list_runs(runs_dir)
        if run.adapter is not None and run.config is not None and run.config.base_model == base
    }


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The steps so far: step, total, epoch, loss, lr, grad_norm, tokens, seconds, eta (seconds).

    Raises:
        DataError: a line of the file is damaged.
    """
    return list(json_lines(run_dir / METRICS))


def last_metrics(run_dir: Path) -> dict[str, Any]:
    """The last step, or {} before the first.

    Raises:
        DataError: its line is damaged.
    """
    lines = [line for line in tail(run_dir / METRICS, 4096).splitlines(keepends=True) if line.endswith("\n")]
    return json_line(lines[-1], f"{run_dir.name}/{METRICS}, the last line") if lines else {}


def log_tail(run_dir: Path, size: int = 8192) -> str:
    """The end of the log, in whole lines."""
    return tail(run_dir / LOG, size)
