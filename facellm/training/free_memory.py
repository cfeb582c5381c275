"""How much memory a training run can have now: the GPU's, or the machine's within a container's limit.

The one surprising fact: what a container uses counts the files that the kernel keeps at hand, which it gives up when
memory is asked for; they count as free here.
"""

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def free_bytes(device: str) -> int:
    """Bytes that are free on "cuda" or "cpu"."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return min([psutil.virtual_memory().available, *left_in_containers()])


def left_in_containers(own_groups: Path = OWN_GROUPS, cgroups: Path = CGROUPS) -> Iterator[int]:
    """Bytes that each limited group of processes that this one belongs to may still take (cgroups, version 1 or 2)."""
    for folder in _groups(own_groups, cgroups):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
        if limit is not None and used is not None and limit < 2**60:
            yield max(0, limit - used + _given_up(folder / "memory.stat"))


def _groups(own_groups: Path, cgroups: Path) -> Iterator[Path]:
    """The folders of this process's groups and of those above them."""
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):
            root = cgroups / kinds
            own = root / path.lstrip("/")
            yield from (folder for folder in [own, *own.parents] if folder.is_relative_to(root))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such limit, or "max"
        return None


def _given_up(stat: Path) -> int:
    """Bytes of files that have not been used lately."""
    try:
        values = dict(line.split() for line in stat.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(values.get("total_inactive_file", values.get("inactive_file", 0)))
