"""Training runs, from their directories alone: make one, start it, stop it, resume it, see how it goes.

    run_dir = create_run(runs_dir, examples, recipe(base))
    start(run_dir)
    status(run_dir).state

The one surprising fact: no state is stored anywhere. "Running" means that the process named in process.json lives, and
"queued" that the one named in waiting.json does; a process that is gone without result.json has failed. So nothing is
lost, and nothing is pretended, when the app, the trainer or the machine goes down.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from facellm.config import ROOT
from facellm.errors import BusyError, ConfigError, DataError
from facellm.training.checkpoints import FOLDER as CHECKPOINTS
from facellm.training.checkpoints import tidy
from facellm.training.disk_space import full_disk_is_told, hold_reserve
from facellm.training.job_queue import ahead, alone, device_of, enter, leave
from facellm.training.process_files import Process, living, sign, where_it_is
from facellm.training.recipe import RunConfig, changes_from, recipe
from facellm.training.run_directory import (
    ADAPTER,
    BEST,
    CONFIG,
    EXAMPLES,
    FEATURES,
    HELD_OUT,
    LOG,
    METRICS,
    PROCESS,
    RESULT,
    STAGE,
    STOP,
    WAITING,
    SnapshotRef,
    check_name,
    create_run,
    load_record,
    next_name,
)
from facellm.training.run_status import (
    RunStatus,
    State,
    finished_adapters,
    last_metrics,
    list_runs,
    log_tail,
    metrics,
    status,
)

# With what makes a run, this module is all that the app needs to know of training.
__all__ = [
    "RunConfig",
    "RunStatus",
    "SnapshotRef",
    "State",
    "changes_from",
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


WRITTEN = (METRICS, HELD_OUT, STAGE, STOP, RESULT, ADAPTER, BEST, FEATURES, CHECKPOINTS)  # by training
BETWEEN_LOOKS = 1.0  # seconds between two looks of a waiting process at the queue
log = logging.getLogger(__name__)


def start(run_dir: Path, *, resume: bool = False) -> int:
    """Train a run in a process of its own, which outlives this one and waits for its turn. Returns at once.

    Args:
        run_dir: a run; its output goes to log.txt.
        resume: go on from its last checkpoint, instead of from the start.

    Returns:
        How many runs are ahead of it: the one that trains, and those that wait.

    Raises:
        BusyError: it is going or waiting already.
        ConfigError: it is not a run directory, or it cannot be started or resumed in its state.
        DataError: it is damaged, or the disk is full.
    """
    run_dir = run_dir.resolve()
    command = [sys.executable, "-u", "-m", "facellm", "train", str(run_dir), "--wait"]
    _check_is_run(run_dir)
    with alone(run_dir.parent), full_disk_is_told(run_dir), (run_dir / LOG).open("ab") as output:
        _check_may_start(run_dir, resume)
        device = device_of(run_dir)
        process = subprocess.Popen(
            [*command, "--resume"] if resume else command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=True,
        )
        try:
            enter(run_dir, process.pid, device)
        except BaseException:
            process.kill()  # it has done nothing yet: it would wait for the lock
            raise
        return sum(name != run_dir.name for name in ahead(run_dir, device))


def claim(run_dir: Path, *, wait: bool = False, resume: bool = False, stopping: threading.Event | None = None) -> bool:
    """Called by the process that trains, before it does: returns when it is its turn.

    Nothing of the run is changed before that. Then what was asked of it earlier is forgotten, and, unless it is
    resumed, all that an earlier training had written.

    Args:
        wait: for the runs ahead of it; without, they are an error.
        resume: whether it will go on from the last checkpoint.
        stopping: once it is set, the run does not wait any longer.

    Returns:
        False if the run was stopped while it waited.

    Raises:
        BusyError: another run is going or waiting, or this one is.
        ConfigError: it is not a run directory, or it cannot be started or resumed in its state.
        DataError: it is damaged, or the disk is full.
    """
    run_dir = run_dir.resolve()
    _check_is_run(run_dir)
    stopping = stopping or threading.Event()
    device = device_of(run_dir)
    entered, told = False, None
    while True:
        with alone(run_dir.parent), full_disk_is_told(run_dir):
            mine = _my_place(run_dir)
            if stopping.is_set() or (entered and mine is None):  # `stop` takes a run out of the queue
                if mine is not None:
                    leave(run_dir)
                return False
            if mine is None:
                _check_may_start(run_dir, resume)
            before = ahead(run_dir, device, mine.ticket if mine else None)
            if not before:
                _take(run_dir, device, resume)
                return True
            if not wait and before != [run_dir.name]:  # whose former process is about to end
                raise BusyError(
                    f"The run {before[0]} is going; only one can train at a time on this {device}. Let this one wait "
                    f"with --wait, or stop that one.{where_it_is(run_dir.parent / before[0] / PROCESS)}"
                )
            if mine is None:
                enter(run_dir, os.getpid(), device)
            entered = True
        if before != told:
            log.info(f"The run {run_dir.name} waits for {', '.join(before)}.")
            told = before
        stopping.wait(BETWEEN_LOOKS)


def _my_place(run_dir: Path) -> Process | None:
    waiting = living(run_dir / WAITING)
    return waiting if waiting is not None and waiting.is_me else None


def _take(run_dir: Path, device: str, resume: bool) -> None:
    """It is this process that trains the run from now on. Readers see it queued until that is all true."""
    tidy(run_dir)  # after a kill: a checkpoint that was just being written, and may fill the disk
    hold_reserve(run_dir)
    sign(run_dir / PROCESS, os.getpid(), device)
    for name in (RESULT, STOP, STAGE, FEATURES) if resume else WRITTEN:  # left features would fill no budget
        if (run_dir / name).is_dir():
            shutil.rmtree(run_dir / name)
        else:
            (run_dir / name).unlink(missing_ok=True)
    leave(run_dir)


def _check_is_run(run_dir: Path) -> None:
    if not (run_dir / CONFIG).is_file():
        raise ConfigError(f"{run_dir} is not a run directory: it has no {CONFIG}. Make one: python -m facellm prepare.")


def _check_may_start(run_dir: Path, resume: bool) -> None:
    """Complain if a run cannot be started, or resumed, in its state; a process may always take over its own."""
    run = status(run_dir)
    if run.state in (State.RUNNING, State.QUEUED):
        file = run_dir / (PROCESS if run.state is State.RUNNING else WAITING)
        process = living(file)
        if process is None or process.is_me:
            return
        raise BusyError(
            f"The run {run.name} is {'going' if run.state is State.RUNNING else 'waiting for its turn'} already."
            f"{where_it_is(file)}"
        )
    if run.state is State.FINISHED:
        if resume:
            raise ConfigError(
                f"The run {run.name} is finished: there is nothing left to resume. Make a new one to train more."
            )
        raise ConfigError(f"The run {run.name} has been trained already. Make a new one to train again.")
    if resume and run.checkpoint_step is None:
        raise ConfigError(
            f"The run {run.name} has no checkpoint to resume from; it is {run.state}. Train it from the start: "
            f"python -m facellm start {run.name}."
        )
    if not resume and run.checkpoint_step is not None:
        raise ConfigError(
            f"The run {run.name} has been trained to step {run.checkpoint_step} and is {run.state}. Go on from there: "
            f"python -m facellm resume {run.name}; or make a new one to train from the start."
        )


def stop(run_dir: Path) -> None:
    """Ask a run to stop; nothing happens if it neither trains nor waits.

    One that trains saves a checkpoint and its adapter and ends within a step; one that waits leaves the queue at once
    and is what it was before.

    Raises:
        BusyError: it trains on another machine or in another container, which has to stop it.
    """
    run_dir = run_dir.resolve()
    if not (run_dir / CONFIG).is_file():
        return
    with alone(run_dir.parent):
        if waits := living(run_dir / WAITING):
            leave(run_dir)  # its process, wherever it is, sees that
            _terminate(waits)
        elif told := where_it_is(run_dir / PROCESS):
            raise BusyError(f"The run {run_dir.name} can only be stopped where it trains.{told}")
        elif trains := living(run_dir / PROCESS):
            with suppress(OSError):  # a full disk: it is asked all the same
                (run_dir / STOP).touch()
            _terminate(trains)


def _terminate(process: Process) -> None:
    if process.is_elsewhere:
        return
    with suppress(ProcessLookupError):  # it has ended since
        os.kill(process.pid, signal.SIGTERM)


def delete(run_dir: Path) -> None:
    """Remove a run and all that it has left, its adapter too. Its snapshot stays.

    Raises:
        BusyError: it is going or waiting.
        ConfigError: it is not a run directory, such as a model's folder, which has a config.json, too.
        DataError: a file of it cannot be removed.
    """
    if missing := [name for name in (CONFIG, EXAMPLES) if not (run_dir / name).is_file()]:
        raise ConfigError(f"{run_dir} is not a run directory: it has no {missing[0]}. Nothing was deleted.")
    run_dir = run_dir.resolve()
    with alone(run_dir.parent):
        if living(run_dir / PROCESS):
            raise BusyError(
                f"The run {run_dir.name} is going. Stop it before you delete it.{where_it_is(run_dir / PROCESS)}"
            )
        if living(run_dir / WAITING):
            raise BusyError(
                f"The run {run_dir.name} waits for its turn. Stop it before you delete it."
                f"{where_it_is(run_dir / WAITING)}"
            )
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
