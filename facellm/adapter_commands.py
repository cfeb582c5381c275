"""The commands by which an adapter leaves: as a whole checkpoint, or for the Hub; and one by which it comes back.

python -m facellm merge run-1 faces-1b
python -m facellm extract OpenGVLab/InternVL3-1B-hf Idiap/FaceLLM-1B#model facellm-1b
python -m facellm push run-1 somebody/faces-lora --dry-run
"""

from pathlib import Path
from typing import Annotated

import typer

from facellm.config import load_settings
from facellm.errors import ConfigError

app = typer.Typer()

AdapterArgument = Annotated[
    str, typer.Argument(metavar="ADAPTER", help="A run's name, or a folder or a Hub id with a LoRA adapter.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("merge")
def merge_command(
    adapter: AdapterArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    model: Annotated[
        str | None, typer.Option(help="The base, a folder or a Hub id.  [default: the one that the adapter names]")
    ] = None,
) -> None:
    """Compute an adapter into its base: a checkpoint that loads in plain transformers."""
    from facellm.merging import merge

    done = merge(_found(adapter), out, base=model)
    files = "1 file" if done.files == 1 else f"{done.files} files"
    print(f"{out}: {done.base} with {done.modules} layers changed, {done.nbytes / 1e9:.2f} GB in {files} of weights")
    if done.other_base:
        print(f"Mind that the adapter was made for {done.named_base}.")


def _found(adapter: str) -> str:
    """The folder or Hub id of the adapter that was named."""
    found = load_settings().find_adapter(adapter, beside=None)
    if found is None:
        raise ConfigError("none is no adapter. Give a run's name, a folder or a Hub id.")
    return found
