"""The commands by which an adapter leaves: as a whole checkpoint, or for the Hub; and one by which it comes back.

python -m facellm merge run-1 faces-1b
python -m facellm extract OpenGVLab/InternVL3-1B-hf Idiap/FaceLLM-1B#model facellm-1b
python -m facellm push run-1 somebody/faces-lora --dry-run
"""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from facellm.config import load_settings
from facellm.errors import ConfigError, ModelError

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
    from facellm.publishing.merging import merge

    done = merge(_found(adapter), out, base=model)
    files = "1 file" if done.files == 1 else f"{done.files} files"
    print(f"{out}: {done.base} with {done.modules} layers changed, {done.nbytes / 1e9:.2f} GB in {files} of weights")
    if done.other_base:
        print(f"Mind that the adapter was made for {done.named_base}.")


@app.command("extract")
def extract_command(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The checkpoint that was trained from.")],
    merged: Annotated[
        str, typer.Argument(metavar="MERGED", help="The one that came out, such as Idiap/FaceLLM-1B#model.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The adapter's folder to make.")],
    rank: Annotated[int, typer.Option(min=1, max=1024, help="Of the adapter.")] = 16,
    prompts: Annotated[
        Path | None,
        typer.Option(help="JSONL with images and question, such as a snapshot's.  [default: rendered faces]"),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(help="In which answers are compared; bfloat16 takes half the memory and adds noise of its own."),
    ] = "float32",
    as_json: JsonOption = False,
) -> None:
    """Recover a LoRA adapter from a merged checkpoint, if its answers are the same with it."""
    from facellm.publishing.agreement_gate import default_questions, read_questions
    from facellm.publishing.extraction import Work, extract

    settings = load_settings()
    questions = default_questions() if prompts is None else read_questions(prompts)
    work = Work(settings.device, dtype)
    found = extract(base, merged, out, questions, rank=rank, work=work)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print("\n".join(found.lines()))
    if not found.agreement.passed:
        raise ModelError(found.why_not())
    if not as_json:
        print(f"{out}: a LoRA adapter of rank {rank} for {base}")


@app.command("push")
def push_command(
    adapter: AdapterArgument,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME; made where there is none.")],
    base: Annotated[
        str | None, typer.Option(help="The base's repository, where the adapter was trained on a folder.")
    ] = None,
    private: Annotated[bool, typer.Option("--private/--public", help="Of a repository that is made.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the card and the files, and send nothing.")] = False,
) -> None:
    """Upload an adapter to the Hugging Face Hub, with a model card written from its run's facts."""
    from facellm import hub
    from facellm.publishing.adapter_facts import gather
    from facellm.publishing.model_card import staged

    hub.check_repository(repository, "REPO")
    if not dry_run:
        hub.check_token("push")
    facts = gather(Path(_found(adapter)), base)
    with staged(facts, repository) as folder:
        if dry_run:
            print((folder / "README.md").read_text(encoding="utf-8"))
            for path in sorted(folder.iterdir()):
                print(f"{path.stat().st_size:>14,} bytes  {path.name}")
            if facts.base_repository is None:
                print(
                    f"Mind that others cannot load the base {facts.base}: name its repository with --base OWNER/NAME."
                )
            print(f"Nothing was sent to {repository}.")
            return
        message = f"LoRA adapter {facts.name}, {facts.sha256[:12]}"
        again = "The adapter is as it was; run the same command again."
        print(f"Pushed to {hub.push(folder, repository, message, kind='model', private=private, again=again)}")


def _found(adapter: str) -> str:
    """The folder or Hub id of the adapter that was named."""
    found = load_settings().find_adapter(adapter, beside=None)
    if found is None:
        raise ConfigError("none is no adapter. Give a run's name, a folder or a Hub id.")
    return found
