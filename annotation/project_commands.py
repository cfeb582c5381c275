"""The command for what a project's curators set: python -m annotation overlap --help.

The one surprising fact: which pairs get several reviewers follows from the pairs, not from chance, so a larger share
asks for more of them and never for others.
"""

from contextlib import closing
from typing import Annotated

import typer

from annotation.store import Store
from facellm.config import load_settings

app = typer.Typer()


@app.command("overlap")
def overlap_command(
    reviewers: Annotated[int, typer.Argument(metavar="N", help="By how many reviewers pairs are decided.")],
    share: Annotated[float, typer.Option(help="Of so many of the pairs, 0 to 1; the others get one reviewer.")] = 1.0,
    decided: Annotated[
        bool, typer.Option("--decided", help="Also pairs that are decided already: they wait for more verdicts.")
    ] = False,
    who: Annotated[str | None, typer.Option("--as", help="Who sets it; the setting reviewer unless given.")] = None,
) -> None:
    """Set by how many reviewers pairs are decided."""
    settings = load_settings()
    with closing(Store.of(settings)) as store:
        changed = store.project.set_overlap(who or settings.reviewer, reviewers, share, decided=decided)
    print(f"{share:.0%} of the pairs want {reviewers}, the others 1: {changed:,} pairs were changed.")
