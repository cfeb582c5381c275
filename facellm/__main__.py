"""The model side's commands: python -m facellm --help.

Each command is the same code that a button of the app runs. torch and transformers are imported inside the commands:
`--help` must not take seconds.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from facellm.adapter_commands import app as adapter_app
from facellm.errors import FaceLLMError
from facellm.estimate_commands import app as estimate_app

ModelOption = Annotated[
    str | None, typer.Option(help="A folder or a Hub id with an InternVL model.  [default: from the settings]")
]
AdapterOption = Annotated[
    str | None,
    typer.Option(
        help="A run's name, a folder or a Hub id with a LoRA adapter, or none.  [default: from the settings, "
        "and none where --model is given]"
    ),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run's directory, or its name.")]


class Launcher(StrEnum):
    """Who starts the processes that train."""

    NONE = "none"
    RAY = "ray"


app = typer.Typer(no_args_is_help=True, add_completion=False, help="Chat with, train and measure face models.")
app.add_typer(estimate_app)


@app.command()
def chat(
    image: Annotated[Path, typer.Argument(help="A picture with a face: JPEG, PNG, WebP, GIF, BMP or TIFF.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    model: ModelOption = None,
    adapter: AdapterOption = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="The longest answer, in tokens.  [default: from the settings]")
    ] = None,
) -> None:
    """Ask a model about an image and print its answer."""
    from facellm.config import load_settings
    from facellm.data import open_image
    from facellm.errors import DataError
    from facellm.model import ChatModel, Request, Sampling, Turn

    settings = load_settings()
    if not question.strip():
        raise DataError("The question is empty. Write what you want to know about the image.")
    picture = open_image(
        image,
        max_bytes=int(settings.max_image_mb * 1024 * 1024),
        max_pixels=int(settings.max_image_megapixels * 1e6),
    )
    source = settings.find_adapter(adapter, beside=model)
    with ChatModel.load(model or settings.base_checkpoint, device=settings.device) as chat_model:
        name = None
        if source is not None:
            name = "adapter"
            chat_model.add_adapter(name, source)
        sampling = Sampling(max_new_tokens=max_new_tokens or settings.max_new_tokens)
        turn = Turn("user", question.strip(), (picture,))
        print(chat_model.replies([Request((turn,), name, sampling)])[0].strip())


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
    from facellm import jobs
    from facellm import prepare as preparing
    from facellm.config import load_settings

    settings = load_settings()
    source = preparing.find_examples(settings, snapshot)
    config = preparing.configure(settings, base or settings.base_checkpoint, jobs.changes_from(set_ or []), "--set")
    print(preparing.prepare(settings, source, config, name=name))


@app.command()
def train(
    run_dir: RunArgument,
    launcher: Annotated[
        Launcher, typer.Option(help="none: this process, or those that accelerate launch or torchrun has started.")
    ] = Launcher.NONE,
    processes: Annotated[int, typer.Option(min=1, help="How many processes Ray is to start.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
) -> None:
    """Train a run. Ctrl-C or SIGTERM ends it within a step and saves the adapter."""
    import logging
    import signal
    import threading
    import warnings

    from facellm import jobs
    from facellm.config import launched

    run_dir = _found_run(run_dir)
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    if launcher is Launcher.RAY:
        from facellm.ray_launcher import check_ray, train_by_ray

        check_ray()
        jobs.claim(run_dir)
        train_by_ray(run_dir, processes=processes, resume=resume)
        return
    is_first = launched().rank == 0
    if is_first:
        if resume: (run_dir / "process.json").unlink(missing_ok=True)  # TEMPORARY until the queue is merged
        jobs.claim(run_dir)
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("facellm").setLevel(logging.INFO if is_first else logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries about each other: nothing for the log

    from facellm.train import train as train_run

    train_run(run_dir, stop=stop, resume=resume)


@app.command()
def runs(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the runs of the data directory, newest first."""
    import json

    from facellm import jobs
    from facellm.config import load_settings

    found = jobs.list_runs(load_settings().runs_dir)
    if as_json:
        print(json.dumps([run.to_dict() for run in found], indent=2))
        return
    for run in found:
        step = f"  step {run.step}/{run.total_steps}" if run.total_steps else ""
        loss = "" if run.loss is None else f"  loss {run.loss:.3f}"
        print(f"{run.name}  {run.state}{step}{loss}  {run.path}")
    if not found:
        print("No runs yet. Make one: python -m facellm prepare SNAPSHOT")


@app.command()
def stop(run_dir: RunArgument) -> None:
    """Ask a run to stop; it saves its adapter and ends within a step."""
    from facellm import jobs

    run_dir = _found_run(run_dir)
    state = jobs.status(run_dir).state
    if state is not jobs.State.RUNNING:
        print(f"The run {run_dir.name} is not going; it is {state}.")
        return
    jobs.stop(run_dir)
    print(f"The run {run_dir.name} has been asked to stop.")


@app.command()
def delete(run_dir: RunArgument) -> None:
    """Delete a run that is not going: its directory with its examples, log and adapter."""
    from facellm import jobs

    run_dir = _found_run(run_dir)
    jobs.delete(run_dir)
    print(f"The run {run_dir.name} is deleted.")


def _found_run(given: Path) -> Path:
    """The run directory that was named by its path or by its name."""
    from facellm import jobs
    from facellm.config import load_settings

    return jobs.find_run(given, load_settings().runs_dir)


@app.command()
def attributes(
    model: ModelOption = None,
    adapter: AdapterOption = None,
    count: Annotated[int, typer.Option(min=1, help="How many faces; each is asked the eight questions.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Which faces; no two seeds share one.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure how well a model describes rendered faces that it has never seen."""
    import json

    from facellm.attributes import measure_model
    from facellm.config import load_settings

    settings = load_settings()
    adapter_folder = settings.find_adapter(adapter, beside=model)
    checkpoint = model or settings.base_checkpoint
    measured = measure_model(checkpoint, adapter_folder, device=settings.device, count=count, seed=seed)
    if as_json:
        named = {"model": checkpoint, "adapter": None if adapter_folder is None else str(adapter_folder)}
        print(json.dumps(named | measured.to_dict(), indent=2))
        return
    print(f"{count} unseen faces of seed {seed}: {checkpoint}, adapter {adapter_folder or 'none'}")
    print(measured.table())


app.add_typer(adapter_app)

tiny_app = typer.Typer(no_args_is_help=True, help="The embedded tiny model.")
app.add_typer(tiny_app, name="tiny")


@tiny_app.callback()
def tiny() -> None:
    """The embedded tiny model."""


@tiny_app.command()
def build(
    out: Annotated[
        Path | None, typer.Option(help="Where tiny-base/ and facellm-tiny/ are written.  [default: facellm/embedded]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights, the order and the wording.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=NUMBER", help="How much is trained, such as faces=2000. May be repeated."),
    ] = None,
) -> None:
    """Train the embedded base and its adapter from nothing: about half an hour on two cores."""
    from facellm.config import EMBEDDED_DIR
    from facellm.tiny_build import Plan
    from facellm.tiny_build import build as build_tiny

    plan = Plan.checked(dict(item.partition("=")[::2] for item in set_ or []))
    build_tiny(out or EMBEDDED_DIR, seed=seed, plan=plan, report=lambda line: print(line, flush=True))


def main() -> None:
    """Run a command; a FaceLLMError is printed as one line and exits with 1."""
    try:
        app()
    except FaceLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
