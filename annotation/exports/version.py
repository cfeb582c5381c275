"""Which state of this program is running, for the records that it leaves.

The one surprising fact: a Space or an unpacked archive is no checkout, and then nothing but that can be said.
"""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@cache
def program_version() -> str:
    """The checkout's commit, such as `commit 8f4f934`, `changed` where files of it are; else that it is unknown."""
    if not (ROOT / ".git").exists():
        return "commit unknown"
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=, changed", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "commit unknown"
    return f"commit {done.stdout.strip()}"
