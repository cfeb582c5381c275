"""The model side's commands: python -m facellm --help.

Each command is the same code that a button of the app runs. torch and transformers are imported inside the commands:
`--help` must not take seconds.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from facellm.errors import FaceLLMError
from facellm.publishing.adapter_commands import app as adapter_app
from facellm.training.compare_commands import app as compare_app
from facellm.training.estimate_commands import app as estimate_app
from facellm.training.run_commands import app as run_app

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

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Chat with, train and measure face models.")
app.add_typer(estimate_app)
app.add_typer(run_app)
app.add_typer(compare_app)


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
