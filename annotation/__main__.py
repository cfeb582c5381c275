"""The data side's commands: python -m annotation --help.

The one surprising fact: only `seed` and the app's first start put demo data into an empty data directory. The other
commands take it as it is, so that a mistyped directory never yields a plausible training set.
"""

import json
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from annotation.accounts.accounts_commands import app as accounts_app
from annotation.agreement.agreement_commands import app as agreement_app
from annotation.checks.check_commands import app as check_app
from annotation.exports.export_commands import app as export_app
from annotation.imports.import_commands import app as import_app
from annotation.project_commands import app as project_app
from annotation.seed import seed
from annotation.statistics.stats_commands import app as stats_app
from annotation.store import Store
from annotation.teaching.generate_commands import app as generate_app
from annotation.teaching.judge_commands import app as judge_app
from annotation.teaching.probe_commands import app as probe_app
from annotation.team.team_commands import app as team_app
from annotation.vote_export import export_votes
from facellm.config import load_settings
from facellm.errors import FaceLLMError
from facellm.ranking import ENOUGH_VOTES, Ranking, Standing, rank
from facellm.votes import Outcome, Vote

LATEST = 20  # votes in the table
app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Images, generated pairs, decisions, snapshots and votes."
)
app.add_typer(generate_app)
app.add_typer(judge_app)
app.add_typer(probe_app)
app.add_typer(stats_app)
app.add_typer(import_app)
app.add_typer(check_app)
app.add_typer(accounts_app)
app.add_typer(team_app)
app.add_typer(project_app)
app.add_typer(export_app)
app.add_typer(agreement_app)


@app.command("seed")
def seed_command(
    faces: Annotated[int | None, typer.Option(min=1, help="How many; the setting seed_faces unless given.")] = None,
) -> None:
    """Store rendered faces with answers of a template teacher; what is there already stays as it is."""
    count = load_settings().seed_faces if faces is None else faces
    with _store() as store:
        print(f"{store.data_dir}: {seed(store, count)} pairs of {count} faces added.")


@app.command("votes")
def votes_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write all votes to this .csv or .jsonl file, too.")] = None,
) -> None:
    """Show the latest votes of the blind mode, or export all of them."""
    with _store() as store:
        votes = store.votes()
    if out is not None:
        export_votes(out, votes)
    latest = votes[: -LATEST - 1 : -1]
    if as_json:
        print(json.dumps({"votes": len(votes), "latest": [vote.model_dump(mode="json") for vote in latest]}, indent=2))
    else:
        print(f"{out}: {len(votes)} votes" if out else _votes_table(latest, len(votes)))


@app.command("ranking")
def ranking_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Rank the models by the votes of the blind mode, with 95 % intervals; 1000 is the average model."""
    with _store() as store:
        ranking = rank(store.votes())
    print(json.dumps(_ranking_numbers(ranking), indent=2) if as_json else _ranking_table(ranking))


def _votes_table(latest: list[Vote], count: int) -> str:
    """The latest votes, newest first."""
    lines = [f"{count} votes" + (f", the latest {len(latest)}:" if count > len(latest) else "")]
    for vote in latest:
        about = f"  {vote.attribute}" if vote.attribute else ""
        time = f"{vote.created_at.astimezone():%Y-%m-%d %H:%M}"
        verdict = {Outcome.A: vote.a, Outcome.B: vote.b}.get(vote.outcome, vote.outcome.value)
        lines.append(f"{time}  {vote.a} | {vote.b} → {verdict}{about}  by {vote.voter}")
    return "\n".join(lines)


def _ranking_numbers(ranking: Ranking) -> dict[str, Any]:
    """Everything that `ranking --json` prints."""
    more = {"enough": ranking.enough, "needed": ENOUGH_VOTES, "both_bad_share": ranking.both_bad_share}
    return asdict(ranking) | more


def _ranking_table(ranking: Ranking) -> str:
    """The same for reading; without scores while there are too few votes for them."""
    enough = ranking.enough
    lines = [f"{ranking.votes} votes" if enough else f"not enough votes ({ranking.votes} of {ENOUGH_VOTES})"]
    if not ranking.standings:
        return lines[0]
    width = 2 + max(len(standing.label) for standing in ranking.standings)
    columns = ("votes", "wins", "ties", "losses", "both bad")
    scores = f"{'score':>7}{'95 % interval':>16}" if enough else ""
    lines += ["", " " * width + scores + "".join(f"{column:>10}" for column in columns)]
    lines += [_ranking_line(standing, width, enough) for standing in ranking.standings]
    if not ranking.connected:
        lines += [
            "",
            "Some models were never compared, not even through others: do not compare their scores.",
        ]
    return "\n".join(lines)


def _ranking_line(standing: Standing, width: int, enough: bool) -> str:
    interval = f"{standing.low:.0f} to {standing.high:.0f}"
    scores = f"{standing.score:7.0f}{interval:>16}" if enough else ""
    numbers = (standing.votes, standing.wins, standing.ties, standing.losses, standing.both_bad)
    return f"{standing.label:{width}}{scores}" + "".join(f"{number:>10}" for number in numbers)


def _store() -> closing[Store]:
    """The store as it is."""
    return closing(Store.of(load_settings()))


def main() -> None:
    """Run a command; a FaceLLMError is printed as one line and exits with 1."""
    try:
        app()
    except FaceLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
