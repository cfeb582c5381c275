"""How training runs stand, read from their directories.

The one surprising fact: a reader takes no lock. Files are read in the opposite order to that in which they are written,
so that whoever looks while a run starts or ends sees it before or after, and nothing between.
"""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from facellm.errors import ConfigError, DataError
from facellm.training.checkpoints import last_checkpoint
from facellm.training.job_queue import place
from facellm.training.process_files import living, signed, this_boot, where_it_is
from facellm.training.recipe import RunConfig, portable_name
from facellm.training.run_directory import (
    ADAPTER,
    CONFIG,
    HELD_OUT,
    LOG,
    METRICS,
    PROCESS,
    RESULT,
    STAGE,
    STOP,
    WAITING,
    load_record,
)
from facellm.training.run_files import json_line, json_lines, read_json, tail

QUEUE_LEFT = (
    "The process that waited to train it is gone: it was killed, the disk was full, or the machine went down. The end "
    "of the log may say more. Start it again."
)


class State(StrEnum):
    """Where a run stands."""

    MADE = "made"  # nobody trains it or waits to, and nobody has trained it
    QUEUED = "queued"  # its process waits for the device
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
    held_out: float | None = None  # the last loss on what is held out
    seconds: float = 0.0
    eta_s: float | None = None
    stage: str | None = None  # reading, training or measuring, while it is running
    place: int | None = None  # in the queue, while it is queued; 1 is the next
    checkpoint_step: int | None = None  # of the last checkpoint
    can_resume: bool = False
    error: str | None = None
    elsewhere: str = ""  # a sentence, after a blank, where its process is on another machine or in another container
    stopping: bool = False  # asked to stop, and still running
    adapter: Path | None = None  # only of a run that has ended
    result: dict[str, Any] | None = None  # result.json

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
    waiting = living(run_dir / WAITING)  # first: what else there is, is made ready before it goes
    lives = living(run_dir / PROCESS) is not None
    result = read_json(run_dir / RESULT)  # after the look at the process, which writes it before it ends
    checkpoint = last_checkpoint(run_dir)
    last, held_out = last_metrics(run_dir), _last_line(run_dir / HELD_OUT)
    first = next(json_lines(run_dir / METRICS), None)
    before, error = _without_queue(run_dir, lives, result, checkpoint.step if checkpoint else None)
    state = State.QUEUED if waiting else before
    running = state is State.RUNNING
    has_adapter = before in (State.STOPPED, State.FINISHED) and (run_dir / ADAPTER).is_dir()
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
        held_out=float(held_out["loss"]) if held_out else None,
        seconds=float((result or last).get("seconds", 0)),
        eta_s=float(last["eta"]) if last and running else None,
        stage=(tail(run_dir / STAGE, 64).strip() or None) if running else None,
        place=place(run_dir, waiting) if waiting else None,
        checkpoint_step=checkpoint.step if checkpoint else None,
        can_resume=checkpoint is not None and state in (State.STOPPED, State.FAILED),
        error=None if waiting else error,
        elsewhere=where_it_is(run_dir / (WAITING if waiting else PROCESS)),
        stopping=running and (run_dir / STOP).exists(),
        adapter=run_dir / ADAPTER if has_adapter else None,
        result=result,
    )


def _without_queue(
    run_dir: Path, lives: bool, result: dict[str, Any] | None, checkpoint: int | None
) -> tuple[State, str | None]:
    """The state of a run that does not wait, and what is wrong with it."""
    left = QUEUE_LEFT if (run_dir / WAITING).exists() else None
    if result:
        return State(result["state"]), result.get("error") or left
    if lives:
        return State.RUNNING, None
    if not (run_dir / PROCESS).exists():
        return State.MADE, left
    if (run_dir / STOP).exists():  # it was stopped before it could say so
        return State.STOPPED, left
    return State.FAILED, _death(run_dir, checkpoint)


def _death(run_dir: Path, checkpoint: int | None) -> str:
    """What is known of a process that ended without a result."""
    process = signed(run_dir / PROCESS)
    if process is not None and process.boot != this_boot():
        how = "The machine went down or was started anew while it was going"
    else:
        how = "The training process ended without a result: it was killed, probably because the memory was full"
    if checkpoint is None:
        return f"{how}. There is no checkpoint yet, so it can only be started again. The end of the log may say more."
    return f"{how}. It can be resumed from step {checkpoint}. The end of the log may say more."


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
    return _last_line(run_dir / METRICS)


def _last_line(path: Path) -> dict[str, Any]:
    """The last whole line of a JSONL file that others write to, or {}."""
    lines = [line for line in tail(path, 4096).splitlines(keepends=True) if line.endswith("\n")]
    return json_line(lines[-1], f"{path.parent.name}/{path.name}, the last line") if lines else {}


def log_tail(run_dir: Path, size: int = 8192) -> str:
    """The end of the log, in whole lines."""
    return tail(run_dir / LOG, size)
