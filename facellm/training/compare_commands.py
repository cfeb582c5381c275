"""Runs beside each other, as a command: python -m facellm compare FIRST SECOND

The one surprising fact: the curves themselves are printed with --json alone; a terminal shows what came of them.
"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Runs beside each other.")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="Directories of runs, or their names.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the curves.")] = False,
) -> None:
    """Show what two or more runs were told differently, and what came of it; says where they do not compare."""
    import json

    from facellm.config import load_settings
    from facellm.training import jobs
    from facellm.training.comparing import compare as compare_runs

    runs_dir = load_settings().runs_dir
    found = compare_runs([jobs.find_run(run, runs_dir) for run in runs])
    print(json.dumps(found.to_dict(), indent=2) if as_json else found.table())
