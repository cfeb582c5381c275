"""A process as a file names it, so that anybody can tell later whether it still lives.

The one surprising fact: a process id says little, since it is soon given to another process, and after the machine's
next start even one that began as long after the boot. So the file also names that start, and the boot.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from facellm.errors import DataError
from facellm.training.run_files import read_json, write_json

BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Process:
    """A process that trains a run, or waits to.

    Attributes:
        started: seconds from the boot to its start; no change of the clock moves that.
        boot: which boot of the machine; empty where the system does not say.
        device: what it trains on, "cpu" or "cuda".
        ticket: its number in the queue, where it waits.
    """

    pid: int
    started: float
    boot: str
    device: str
    ticket: int = 0

    @property
    def lives(self) -> bool:
        """Whether this very process is there still."""
        started = _started(self.pid) if self.boot == this_boot() else None
        return started is not None and abs(started - self.started) < 1

    @property
    def is_me(self) -> bool:
        """Whether it is the process that asks."""
        return self.pid == os.getpid() and self.lives


def sign(path: Path, pid: int, device: str, ticket: int = 0) -> None:
    """Write down a process, which must live or be a child that has not been waited for."""
    write_json(path, asdict(Process(pid, _started(pid) or 0.0, this_boot(), device, ticket)))


def signed(path: Path) -> Process | None:
    """The process that a file names.

    None if there is no file, or if what is left of it, as after a crash of the machine, names none.
    """
    try:
        found = read_json(path) or {}
        return Process(
            int(found["pid"]),
            float(found["started"]),
            str(found["boot"]),
            str(found["device"]),
            int(found["ticket"]),
        )
    except (DataError, KeyError, TypeError, ValueError):
        return None


def living(path: Path) -> Process | None:
    """The process that a file names, if it lives."""
    found = signed(path)
    return found if found is not None and found.lives else None


def this_boot() -> str:
    """An id that is another one each time that the machine starts; empty where the system has none."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.create_time() - psutil.boot_time()
    except psutil.NoSuchProcess:
        return None
