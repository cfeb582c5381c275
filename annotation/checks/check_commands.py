"""python -m annotation check: runs the automatic checks over all pairs.

The one surprising fact: running it again is always safe. Flags become what the checks find now; decisions stay.
"""

import json
import sys
from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from annotation.checks.checking import CHECKS, CheckReport, chosen_checks, run_checks
from annotation.models import Severity
from annotation.store import Store
from facellm.config import load_settings

app = typer.Typer()


@app.command("check")
def check_command(
    checks: Annotated[str, typer.Option(help=f"Only these, comma-separated, of: {', '.join(CHECKS)}.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Check all answers for refusals, leaks, contradictions and more; what is found is shown in the Review tab."""
    chosen = chosen_checks(checks.split(","))
    with closing(Store.of(load_settings())) as store:
        report = run_checks(store, chosen, _show_progress if sys.stderr.isatty() else lambda _done: None)
    print(json.dumps(asdict(report), indent=2) if as_json else _table(report))


def _show_progress(done: int) -> None:
    print(f"\r{done} pairs checked", end="", file=sys.stderr, flush=True)


def _table(report: CheckReport) -> str:
    severities = [severity.value for severity in reversed(Severity)]
    lines = [f"{report.pairs} pairs checked in {report.seconds} s, {report.flagged} of them flagged", ""]
    lines.append(f"{'check':16}{'pairs':>8}" + "".join(f"{severity + 's':>10}" for severity in severities))
    for name, pairs in report.checks.items():
        numbers = report.severities[name]
        lines.append(f"{name:16}{pairs:>8}" + "".join(f"{numbers[severity]:>10}" for severity in severities))
    return "\n".join(lines)
