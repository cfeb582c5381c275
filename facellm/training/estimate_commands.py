"""What a run would need, as a command: python -m facellm estimate RUN_DIR

The one surprising fact: the command exits with 1 where the run would be refused, so that a script can ask first.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="What a run would need.")


@app.command()
def estimate(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run's directory, or its name.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="As if the run had this number. May be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how much memory, disk and time a run needs, and whether it fits on this machine now."""
    import json

    from facellm.config import load_settings
    from facellm.training import jobs
    from facellm.training.estimating import ExamplesFile
    from facellm.training.estimating import estimate as estimate_run
    from facellm.training.recipe import RunConfig, adjusted
    from facellm.training.run_directory import EXAMPLES

    run_dir = jobs.find_run(run_dir, load_settings().runs_dir)
    config = RunConfig.checked(jobs.load_record(run_dir)["config"], f"{run_dir.name}/config.json")
    if set_:
        config = adjusted(config, {"alpha": config.alpha, **jobs.changes_from(set_)}, "--set")
    found = estimate_run(config, ExamplesFile(run_dir / EXAMPLES), folder=run_dir)
    print(json.dumps(found.to_dict(), indent=2) if as_json else found.table())
    if not found.fits:
        sys.exit(1)
