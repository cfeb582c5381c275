"""What the tests of both imports share: small pictures, the commands as a person types them, and looks at the store."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image
from raw_sql import rows
from sqlalchemy.exc import DatabaseError

ROOT = Path(__file__).resolve().parent.parent


def jpeg(seed: int, side: int = 16) -> bytes:
    """A small JPEG file; another seed gives another content."""
    pixels = random.Random(seed).randbytes(3 * side * side)
    out = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(out, "JPEG")
    return out.getvalue()


def make_images(folder: Path, names: list[str]) -> Path:
    """A folder with a different picture under each name."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(seed))
    return folder


def annotation(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the data side to its end."""
    command = [sys.executable, "-m", "annotation", *map(str, arguments)]
    there = os.environ | environment
    return subprocess.run(command, cwd=ROOT, env=there, capture_output=True, text=True, timeout=120)


def summary(*arguments: object) -> dict[str, Any]:
    """What a successful import prints with --json."""
    done = annotation(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def counts(numbers: dict[str, Any]) -> tuple[int, int, int, int]:
    """Read, added, known and bad."""
    return numbers["read"], numbers["added"], numbers["known"], numbers["bad"]


def query(data_dir: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask the database, past the store."""
    return rows(data_dir, sql)


def kill_once_there_are(table: str, data_dir: Path, *arguments: object) -> int:
    """Start a command, kill it as soon as the table has rows, and return how many rows there are then."""
    command = [sys.executable, "-m", "annotation", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        last = time.monotonic() + 60
        while process.poll() is None and not _rows(data_dir, table) and time.monotonic() < last:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed: give it more to do"
    return _rows(data_dir, table)


def _rows(data_dir: Path, table: str) -> int:
    try:
        return query(data_dir, f"SELECT count(*) FROM {table}")[0][0]
    except DatabaseError:
        return 0  # the file or the table is not there yet
