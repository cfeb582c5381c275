"""A process as a file names it, so that anybody can tell later whether it still lives.

The one surprising fact: a process id says little, since it is soon given to another process, and after the machine's
next start even one that began as long after the boot. So the file also names that start, the boot, and where the id
is meant: a data directory may be shared by machines and containers. A process elsewhere counts as living, since nobody
here can tell, and two trainers of one run would be worse than one too few; a person can remove the file.
"""

import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from facellm.errors import DataError
from facellm.training.run_directory import PROCESS, RESULT
from facellm.training.run_files import read_json, write_json

BOOT = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE = Path("/proc/self/ns/pid")


@dataclass(frozen=True)
class Process:
    """A process that trains a run, or waits to.

    Attributes:
        started: seconds from the boot to its start; no change of the clock moves that.
        boot: which boot of the machine; empty where the system does not say.
        device: what it trains on, "cpu" or "cuda".
        host: the name of its machine or container.
        pids: the namespace of its id; containers of one machine have several. Empty where the system has none.
        ticket: its number in the queue, where it waits.
    """

    pid: int
    started: float
    boot: str
    device: str
    ticket: int = 0
    host: str = ""
    pids: str = ""

    @property
    def is_elsewhere(self) -> bool:
        """Whether its id means nothing here; that of this machine before its last start means something: it is gone."""
        if not self.host:  # the file was written by an earlier version
            return False
        return self.host != socket.gethostname() or (self.boot == this_boot() and self.pids != this_namespace())

    @property
    def lives(self) -> bool:
        """Whether this very process is there still, or can be elsewhere."""
        if self.is_elsewhere:
            return True
        started = _started(self.pid) if self.boot == this_boot() else None
        return started is not None and abs(started - self.started) < 1

    @property
    def is_me(self) -> bool:
        """Whether it is the process that asks."""
        return not self.is_elsewhere and self.pid == os.getpid() and self.lives


def sign(path: Path, pid: int, device: str, ticket: int = 0) -> None:
    """Write down a process, which must live or be a child that has not been waited for."""
    write_json(path, asdict(_described(pid, device, ticket)))


def _described(pid: int, device: str, ticket: int) -> Process:
    started = _started(pid) or 0.0
    return Process(pid, started, this_boot(), device, ticket, socket.gethostname(), this_namespace())


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
            str(found.get("host", "")),
            str(found.get("pids", "")),
        )
    except (DataError, KeyError, TypeError, ValueError):
        return None


def living(path: Path) -> Process | None:
    """The process that a file names, if it lives; one elsewhere whose run has ended does not, whatever it does yet."""
    found = signed(path)
    if found is None or not found.lives:
        return None
    has_ended = path.name == PROCESS and (path.parent / RESULT).exists()
    return None if found.is_elsewhere and has_ended else found


def where_it_is(path: Path) -> str:
    """The sentence about a process elsewhere and its file, after a blank; empty where it is one of this machine."""
    found = living(path)
    if found is None or not found.is_elsewhere:
        return ""
    there = f"on {found.host}" if found.host != socket.gethostname() else f"in another container of {found.host}"
    return f" Its process is {there} and cannot be seen from here; if that is gone, remove {path}."


def this_boot() -> str:
    """An id that is another one each time that the machine starts; empty where the system has none."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


def this_namespace() -> str:
    """An id of the processes that have ids of their own here; empty where the system has none."""
    try:
        return os.readlink(NAMESPACE)
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
