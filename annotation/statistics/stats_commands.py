"""The command that counts: python -m annotation stats --help.

The one surprising fact: how often groups are refused or flagged is compared by answers, but judged by faces; see
rates.py. So a group may be hit far more often than the rest and still not be pointed out: too few faces.
"""

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Annotated, Any

import typer

from annotation.models import Status
from annotation.statistics.generation_stats import Bill
from annotation.statistics.stats import LOST, stats
from annotation.store import Store
from facellm.config import load_settings

SHOWN = 10  # groups pointed out in the tables; --json has all
app = typer.Typer()


@app.command("stats")
def stats_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Count images, pairs, refusals, flags and costs by attribute, teacher and group; point out unlike groups."""
    with closing(Store.of(load_settings())) as store:
        numbers = stats(store)
    if not numbers["images"]:
        print(f"{store.data_dir} is empty. For demo data: python -m annotation seed", file=sys.stderr)
    print(json.dumps(numbers, indent=2) if as_json else "\n".join(_report(numbers)))


def _report(numbers: dict[str, Any]) -> Iterable[str]:
    """The same for reading."""
    statuses = [status.value for status in Status]
    yield f"{numbers['images']} images, {numbers['pairs']} pairs, {numbers['flagged']} flagged"
    yield ""
    yield from _columns("", statuses, numbers["attributes"] | {"all": numbers})
    yield ""
    yield from (f"reviewer {name}: {count} decisions" for name, count in numbers["reviewers"].items())
    for name, count in numbers["flags"].items():
        parts = ", ".join(f"{attribute} {number}" for attribute, number in numbers["flags_by_attribute"][name].items())
        yield f"check {name}: {count} pairs flagged ({parts})"
    yield from (f"snapshot {s['name']}: {s['count']} pairs, sha256 {s['sha256']}" for s in numbers["snapshots"])
    if numbers["tasks"]["states"]:
        yield from _asked(numbers)
    if numbers["tasks"]["states"] or numbers["flags"]:
        yield from _by_group(numbers)


def _asked(numbers: dict[str, Any]) -> Iterable[str]:
    """What teachers were asked, and what it cost."""
    tasks, cost = numbers["tasks"], numbers["cost"]
    states = list(tasks["states"])
    yield from ("", "asked of teachers:")
    yield from _columns("", states, tasks["attributes"] | tasks["teachers"] | {"all": tasks["states"]})
    yield from ("", f"cost {_bill(cost)}")
    for title in ("teachers", "models", "purposes", "attributes"):
        yield from (f"  {title[:-1]} {name}: {_bill(bill)}" for name, bill in cost[title].items())


def _bill(numbers: Mapping[str, Any]) -> str:
    bill = Bill(**{field.name: numbers[field.name] for field in dataclasses.fields(Bill)})
    unpriced = f", {bill.unpriced:,} of them without a known price" if bill.unpriced else ""
    return (
        f"${bill.cost_usd:,.2f} for {bill.requests:,} requests{unpriced} "
        f"({bill.input_tokens:,.0f} tokens in, {bill.output_tokens:,.0f} out)"
    )


def _by_group(numbers: dict[str, Any]) -> Iterable[str]:
    """The tables by one label, and who stands out."""
    columns = ["images", "pairs", "flagged", "answers", *LOST]
    for title, rows in numbers["groups"].items():
        if "×" not in title:
            yield ""
            yield from _columns(title, columns, {row[next(iter(row))]: row for row in rows})
    shown = [each["sentence"] for each in numbers["notable"] if each["within"] is None]
    yield from ("", "Groups that stand out:" if shown else "No group of faces stands out.")
    yield from (f"  {sentence}" for sentence in shown[:SHOWN])
    if len(shown) > SHOWN:
        yield f"  and {len(shown) - SHOWN} more: see --json"


def _columns(title: str, columns: Iterable[str], rows: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """A table of numbers with a name to each row."""
    names = list(columns)
    width = max(14, *(len(name) + 2 for name in [title, *rows]))
    yield f"{title:{width}}" + "".join(f"{name:>10}" for name in names)
    for name, row in rows.items():
        yield f"{name:{width}}" + "".join(f"{row.get(column, 0):>10}" for column in names)
