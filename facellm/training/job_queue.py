"""Whose turn it is to train: one run a device, first come, first served.

Each run that waits is a process of its own, which sleeps until no run of its device trains and none that came earlier
waits. The one surprising fact: nobody keeps the queue. It is the files waiting.json of the processes that live, so one
that is killed is out of it by that, and nothing has to be running for the next one to have its turn.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from facellm.config import has_gpu
from facellm.training.process_files import Process, living, sign, this_boot
from facellm.training.recipe import RunConfig
from facellm.training.run_directory import CONFIG, PROCESS, WAITING, load_record

LOCK = ".starting.lock"


@contextmanager
def alone(runs_dir: Path) -> Iterator[None]:
    """Nobody else starts, stops or deletes a run of this folder meanwhile."""
    with (runs_dir / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel frees it when the process ends, however it ends
        yield


def device_of(run_dir: Path) -> str:
    """The device that a run will take: "cpu" or "cuda".

    Raises:
        DataError, ConfigError: config.json is damaged.
    """
    config = RunConfig.checked(load_record(run_dir)["config"], f"{run_dir.name}/{CONFIG}")
    if config.device == "auto":
        return "cuda" if has_gpu() else "cpu"
    return config.device


def enter(run_dir: Path, pid: int, device: str) -> None:
    """Put a process at the end of the queue; only `alone`."""
    last = max((process.ticket for process, _ in _signed_in(run_dir.parent, WAITING)), default=0)
    sign(run_dir / WAITING, pid, device, ticket=last + 1)


def leave(run_dir: Path) -> None:
    """Out of the queue."""
    (run_dir / WAITING).unlink(missing_ok=True)


def ahead(run_dir: Path, device: str, ticket: int | None = None) -> list[str]:
    """The runs that this one has to wait for: the one that trains on the device, then those that came earlier.

    Among them can be the run itself, whose former process has not quite ended.

    Args:
        device: what it wants.
        ticket: its number; None if it has none yet, so all are earlier.
    """
    going = [
        name
        for process, name in _signed_in(run_dir.parent, PROCESS)
        if (name == run_dir.name and not process.is_me) or (name != run_dir.name and _shares(process, device))
    ]
    waiting = [
        (process.ticket, name)
        for process, name in _signed_in(run_dir.parent, WAITING)
        if name != run_dir.name and _shares(process, device) and (ticket is None or process.ticket < ticket)
    ]
    return going + [name for _, name in sorted(waiting)]


def place(run_dir: Path, waiting: Process) -> int:
    """Which one of the queue of its device a process is, from 1; the one that trains does not count."""
    queue = [
        process
        for process, _ in _signed_in(run_dir.parent, WAITING)
        if (process.device, process.boot) == (waiting.device, waiting.boot)
    ]
    return 1 + sum(process.ticket < waiting.ticket for process in queue)


def _shares(process: Process, device: str) -> bool:
    """Whether a process takes this machine's device, or is about to; another machine has its own."""
    return process.device == device and process.boot == this_boot()


def _signed_in(runs_dir: Path, file: str) -> list[tuple[Process, str]]:
    """The living processes that these files of all runs name, and their runs' names."""
    found = ((living(path), path.parent.name) for path in runs_dir.glob(f"*/{file}"))
    return [(process, name) for process, name in found if process is not None]
