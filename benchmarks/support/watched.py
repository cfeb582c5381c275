"""A training process, watched from outside: CPU seconds, wall seconds and memory at each of its steps.

    watch([sys.executable, "-m", "facellm", "train", RUN], RUN / "metrics.jsonl", threads=1, log=RUN / "out.txt")

Every trainer is measured the same way: it writes a line to a file after each step, and when the line appears, the
CPU time of its processes is read from the kernel. What comes before the first counted step (importing, loading,
reading, warming up) and after the last (saving) is left out. The one surprising fact: CPU time is read in hundredths
of a second, so a few steps of a tenth of a second would be measured badly; count enough of them.
"""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

POLL = 0.01  # seconds


class ProcessFailed(Exception):
    """The process ended with an error; the message is the end of its log."""


@dataclass(frozen=True)
class Step:
    """What had been used when a step was done."""

    number: int
    cpu: float  # seconds, user and system, of the process and its children
    wall: float  # seconds since the start
    line: dict[str, Any]


@dataclass(frozen=True)
class Watched:
    """A process that has ended well."""

    steps: list[Step]
    cpu: float  # seconds of the whole process
    wall: float
    memory: int  # bytes, the most that was resident at once, of the process and its children

    def per_step(self, warm_up: int) -> tuple[float, float]:
        """CPU and wall seconds of a step, on average, from the last of `warm_up` steps to the last of all."""
        if len(self.steps) <= warm_up:
            raise ProcessFailed(f"It did {len(self.steps)} steps; expected more than {warm_up}.")
        first, last = self.steps[warm_up - 1], self.steps[-1]
        count = last.number - first.number
        return (last.cpu - first.cpu) / count, (last.wall - first.wall) / count


def watch(
    command: Sequence[str],
    lines: Path,
    *,
    threads: int,
    log: Path,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Watched:
    """Run a command to its end on the first `threads` cores.

    Args:
        lines: the file that gets a JSON line with `step` after each step; removed first.
        log: gets what the command prints.
        folder: to run in.

    Raises:
        ProcessFailed: it ended with an error.
    """
    lines.unlink(missing_ok=True)
    cores = sorted(os.sched_getaffinity(0))[:threads]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    given = {**os.environ, **offline, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    started = time.monotonic()
    with log.open("w") as out:
        process = psutil.Popen(
            ["taskset", "-c", ",".join(map(str, cores)), *command],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**given, **(environment or {})},
        )
        try:
            return _follow(process, lines, started, log)
        finally:
            for each in _family(process):
                each.kill()


def _follow(process: psutil.Popen, lines: Path, started: float, log: Path) -> Watched:
    steps: list[Step] = []
    cpu, memory, position, rounds = 0.0, 0, 0, 0
    while (code := process.poll()) is None:
        size = lines.stat().st_size if lines.is_file() else 0
        if size > position:
            cpu = max(cpu, _cpu(process))
            with lines.open() as file:
                file.seek(position)
                text = file.read()
            whole = text[: text.rfind("\n") + 1]
            position += len(whole.encode())
            records = [json.loads(line) for line in whole.splitlines()]
            steps += [Step(each["step"], cpu, time.monotonic() - started, each) for each in records]
        if rounds % 10 == 0:
            cpu = max(cpu, _cpu(process))
            memory = max(memory, _memory(process))
        rounds += 1
        time.sleep(POLL)
    if code != 0:
        raise ProcessFailed(" / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])[-600:])
    return Watched(steps, cpu, time.monotonic() - started, memory)


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def _cpu(process: psutil.Process) -> float:
    seconds = 0.0
    for each in _family(process):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += times.user + times.system
        if each.pid == process.pid:
            seconds += times.children_user + times.children_system
    return seconds


def _memory(process: psutil.Process) -> int:
    """The most that each process has had resident, as the kernel has noted it."""
    total = 0
    for each in _family(process):
        try:
            status = Path(f"/proc/{each.pid}/status").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return total
