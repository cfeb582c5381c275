"""The command `generate` as the Dataset tab runs it: an estimate to wait for, a run that outlives the app.

    started = start(settings, {"model": "my-teacher", "per_image": True, "limit": 100})

Options are those of the command by name, so that what a run was told can be told again. The one surprising fact: a run
gets its UUID only in its own process, so its log is found by the id of that process.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from annotation.models import GenerationRun
from facellm.config import ROOT, Settings
from facellm.errors import DataError

LOGS: Final = "generation"  # below the data directory
ESTIMATE_SECONDS: Final = 120
STAMP: Final = "%Y%m%d-%H%M%S"  # of a log's name
TO_BEGIN: Final = timedelta(minutes=5)  # between the start of a process and that of its run, at most
LOG_BYTES, LOG_LINES = 8192, 12  # of a log that are shown
_NEGATIONS: Final = {"per_image": "--per-attribute"}  # flags that have a name for their opposite


@dataclass(frozen=True)
class Started:
    """A process that has been started, and where its output goes."""

    process: subprocess.Popen[bytes]
    log: Path
    at: datetime

    @property
    def has_ended(self) -> bool:
        """Whether the process is over."""
        return self.process.poll() is not None

    @property
    def last_words(self) -> str:
        """The last line of its output, such as why it could not start."""
        return last_line(log_tail(self.log))


def arguments(options: Mapping[str, Any]) -> list[str]:
    """The options as they are typed: {"limit": 5, "attributes": ["pose", "skin"]} → --limit 5 --attributes pose,skin.

    What is None, empty or a flag that is off is left out.
    """
    words = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [flag] if value else [_NEGATIONS[name]] if name in _NEGATIONS else []
        elif isinstance(value, Sequence) and not isinstance(value, str):
            words += [flag, ",".join(map(str, value))] if value else []
        elif value not in (None, ""):
            words += [flag, str(value)]
    return words


def estimate(settings: Settings, options: Mapping[str, Any]) -> dict[str, Any]:
    """What `generate … --dry-run --json` prints; nothing is sent.

    Raises:
        DataError: the command says why it cannot.
    """
    command = [*_command(options), "--dry-run", "--json"]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=settings.command_environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ESTIMATE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"The estimate took longer than {ESTIMATE_SECONDS} s. Ask for fewer images.") from error
    if done.returncode:
        raise DataError(last_line(done.stderr))
    found = json.loads(done.stdout)
    assert isinstance(found, dict)  # noqa: S101 - the command prints one object
    return found


def start(settings: Settings, options: Mapping[str, Any]) -> Started:
    """Generate in a process of its own, which outlives this one; its output goes to a log. Returns at once."""
    folder = settings.data_dir / LOGS
    folder.mkdir(parents=True, exist_ok=True)
    begun = datetime.now(UTC)
    partial = folder / f"{begun:%Y%m%d-%H%M%S-%f}.starting"
    command = _command(options)
    with partial.open("wb") as log:
        log.write(f"{' '.join(['python', *command[1:]])}\n".encode())
        log.flush()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=settings.command_environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=True,
        )
    return Started(process, partial.rename(folder / f"{begun:{STAMP}}-{process.pid}.log"), begun)


def _command(options: Mapping[str, Any]) -> list[str]:
    return [sys.executable, "-u", "-m", "annotation", "generate", *arguments(options)]


def log_of(settings: Settings, run: GenerationRun) -> Path | None:
    """The log of a run that was started from here; a run from a terminal has none."""
    for path in (settings.data_dir / LOGS).glob(f"*-{run.pid}.log"):
        begun = datetime.strptime(path.name.rpartition("-")[0], STAMP).replace(tzinfo=UTC)
        if timedelta(0) <= run.started_at - begun < TO_BEGIN:  # else an earlier process had the same id
            return path
    return None


def log_tail(path: Path) -> str:
    """The last lines of a log."""
    text = path.read_bytes()[-LOG_BYTES:].decode("utf-8", errors="replace")
    return "\n".join(text.splitlines()[-LOG_LINES:])


def last_line(text: str) -> str:
    """What a command that failed has said last, without `error:`; of a usage message what is in its frame."""
    lines = text.splitlines()
    if framed := [line.strip("│ ") for line in lines if line.startswith("│")]:
        return " ".join(framed)
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].removeprefix("error: ") if said else "The command ended without a word."
