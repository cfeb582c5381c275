"""The commands on training runs, each the same code as a button of the Fine-tune tab: python -m facellm --help

The one surprising fact: `start` and `resume` return at once, while `train` is the training itself; what they start is
`train --wait` in a process of its own.
"""

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facellm.errors import ConfigError

if TYPE_CHECKING:
    from facellm.training.jobs import RunStatus

RunArgument = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run's directory, or its name.")]

app = typer.Typer()


class Launcher(StrEnum):
    """Who starts the processes that train."""

    NONE = "none"
    RAY = "ray"


@app.command()
def recipe(
    base: Annotated[str | None, typer.Option(help="The base model.  [default: from the settings]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the numbers that a base is trained with, and what each means; `prepare --set` changes them."""
    import json

    from facellm.config import load_settings
    from facellm.training.prepare import configure
    from facellm.training.recipe import RunConfig, numbers

    settings = load_settings()
    config = configure(settings, base or settings.base_checkpoint, {}, "--base")
    values = {name: value for name, value in config.model_dump(mode="json").items() if name in numbers()}
    if as_json:
        print(json.dumps(values, indent=2))
        return
    rows = [
        (name, "not set" if value is None else str(value), RunConfig.model_fields[name].description or "")
        for name, value in values.items()
    ]
    print("\n".join(_table(rows)))


@app.command()
def prepare(
    snapshot: Annotated[str, typer.Argument(help="A snapshot's name, or the path of a JSONL file of examples.")],
    base: Annotated[str | None, typer.Option(help="The base model.  [default: from the settings]")] = None,
    name: Annotated[str | None, typer.Option(help="The run's name.  [default: the next free run-N]")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="A number of the recipe, such as epochs=3; alpha follows the rank unless set. May be repeated.",
        ),
    ] = None,
) -> None:
    """Make a run directory from a snapshot and print its path; config.json there shows every number."""
    from facellm.config import load_settings
    from facellm.training import jobs
    from facellm.training import prepare as preparing

    settings = load_settings()
    source = preparing.find_examples(settings, snapshot)
    config = preparing.configure(settings, base or settings.base_checkpoint, jobs.changes_from(set_ or []), "--set")
    print(preparing.prepare(settings, source, config, name=name))


@app.command()
def train(
    run_dir: RunArgument,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while another run trains on the device.")] = False,
    launcher: Annotated[
        Launcher, typer.Option(help="none: this process, or those that accelerate launch or torchrun has started.")
    ] = Launcher.NONE,
    processes: Annotated[int, typer.Option(min=1, help="How many processes Ray is to start.")] = 1,
) -> None:
    """Train a run. Ctrl-C or SIGTERM ends it within a step and saves a checkpoint and the adapter."""
    import logging
    import signal
    import threading
    import warnings

    from facellm.config import launched
    from facellm.training import jobs
    from facellm.training.ray_launcher import check_ray, train_by_ray

    if launcher is Launcher.RAY:
        check_ray()
    if wait and launched().size > 1:
        raise ConfigError("--wait is for one process; here several were launched together, and each would wait.")
    stopping = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopping.set())
    run_dir = _found_run(run_dir)
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    is_first = launched().rank == 0  # of several processes, the first one stands for the run
    logging.getLogger("facellm").setLevel(logging.INFO if is_first else logging.WARNING)
    if is_first and not jobs.claim(run_dir, wait=wait, resume=resume, stopping=stopping):
        print(f"The run {run_dir.name} was stopped while it waited.")
        return
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries about each other: nothing for the log
    if launcher is Launcher.RAY:
        train_by_ray(run_dir, processes=processes, resume=resume)
        return

    from facellm.training.train import train as train_run

    train_run(run_dir, stop=stopping, resume=resume)


@app.command()
def start(run_dir: RunArgument) -> None:
    """Train a run in the background; it waits while another run trains on the device."""
    _start(run_dir, resume=False)


@app.command()
def resume(run_dir: RunArgument) -> None:
    """Go on with a run that was stopped or has failed, from its last checkpoint, in the background."""
    _start(run_dir, resume=True)


def _start(given: Path, resume: bool) -> None:
    from facellm.training import jobs

    run_dir = _found_run(given)
    before = jobs.start(run_dir, resume=resume)
    does = "is resumed" if resume else "is started"
    if before:
        does = f"waits for its turn; {before} {'runs are' if before > 1 else 'run is'} ahead of it"
    print(f"The run {run_dir.name} {does}.")


@app.command()
def runs(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the runs of the data directory, newest first."""
    import json

    from facellm.config import load_settings
    from facellm.training import jobs

    found = jobs.list_runs(load_settings().runs_dir)
    if as_json:
        print(json.dumps([run.to_dict() for run in found], indent=2))
    elif found:
        print("\n".join(_table([_HEADER, *map(_columns, found)])))
    else:
        print("No runs yet. Make one: python -m facellm prepare SNAPSHOT")


_HEADER = ("run", "state", "place", "step", "loss", "held out", "checkpoint", "directory")


def _columns(run: "RunStatus") -> tuple[str, ...]:
    """What `runs` says of a run; - is nothing."""
    state = f"{run.state}, {run.stage}" if run.stage else str(run.state)
    step = f"{run.step}/{run.total_steps}" if run.total_steps else None
    loss, held_out = (None if value is None else f"{value:.3f}" for value in (run.loss, run.held_out))
    values = (run.name, state, run.place, step, loss, held_out, run.checkpoint_step, run.path)
    return tuple("-" if value is None else str(value) for value in values)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


@app.command()
def stop(run_dir: RunArgument) -> None:
    """Stop a run: it saves a checkpoint and its adapter and ends within a step; one that waits leaves the queue."""
    from facellm.training import jobs

    run_dir = _found_run(run_dir)
    state = jobs.status(run_dir).state
    if state not in (jobs.State.RUNNING, jobs.State.QUEUED):
        print(f"The run {run_dir.name} is not going; it is {state}.")
        return
    jobs.stop(run_dir)
    waited = state is jobs.State.QUEUED
    print(f"The run {run_dir.name} {'has left the queue' if waited else 'has been asked to stop'}.")


@app.command()
def delete(run_dir: RunArgument) -> None:
    """Delete a run that neither goes nor waits: its directory with its examples, log, checkpoints and adapter."""
    from facellm.training import jobs

    run_dir = _found_run(run_dir)
    jobs.delete(run_dir)
    print(f"The run {run_dir.name} is deleted.")


def _found_run(given: Path) -> Path:
    """The run directory that was named by its path or by its name."""
    from facellm.config import load_settings
    from facellm.training import jobs

    return jobs.find_run(given, load_settings().runs_dir)
