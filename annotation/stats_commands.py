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

from annotation.generation_stats import Bill, Costs
from annotation.group_counts import ANY_CHECK, Group, Kind
from annotation.group_stats import LOST_WORDS, Notable, Table
from annotation.models import FREE_QUESTION, Snapshot, Status, TaskState
from annotation.store import Store
from facellm.config import load_settings

LOST = tuple(kind.name for kind in LOST_WORDS)
SHOWN = 10  # groups pointed out in the tables; --json has all
app = typer.Typer()


@app.command("stats")
def stats_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Count images, pairs, refusals, flags and costs by attribute, teacher and group; point out unlike groups."""
    with closing(Store.open(load_settings().data_dir)) as store:
        numbers = stats(store)
    if not numbers["images"]:
        print(f"{store.data_dir} is empty. For demo data: python -m annotation seed", file=sys.stderr)
    print(json.dumps(numbers, indent=2) if as_json else "\n".join(_report(numbers)))


def stats(store: Store) -> dict[str, Any]:
    """Everything that `stats --json` prints."""
    counts = store.counts()
    by_status = {status.value: sum(of[status] for of in counts.values()) for status in Status}
    tasks, groups = store.task_counts(), store.group_stats()
    return {
        "images": store.image_count(),
        "pairs": sum(by_status.values()),
        **by_status,
        "flagged": store.flagged_count(),
        "refused": tasks.states.get(TaskState.REFUSED, 0),
        "attributes": {a or FREE_QUESTION: {s.value: number for s, number in of.items()} for a, of in counts.items()},
        "reviewers": store.reviewer_counts(),
        "flags": store.flag_counts(),
        "flags_by_attribute": store.flags_by_attribute(),
        "flagged_by_attribute": store.flagged_by_attribute(),
        "tasks": dataclasses.asdict(tasks),
        "cost": _cost_numbers(store.costs()),
        "groups": {table.title: [_group_numbers(table, group) for group in table.groups] for table in groups.tables},
        "comparisons": groups.comparisons,
        "notable": [_notable_numbers(each) for each in groups.notable],
        "snapshots": [_snapshot_numbers(snapshot) for snapshot in store.snapshots()],
    }


def _snapshot_numbers(snapshot: Snapshot) -> dict[str, Any]:
    fields = snapshot.model_dump(mode="json", include={"name", "count", "sha256", "created_at"})
    return fields | {"filter": json.loads(snapshot.filter)}


def _cost_numbers(costs: Costs) -> dict[str, Any]:
    """The total at the top, its parts by name."""
    numbers = dataclasses.asdict(costs)
    return numbers.pop("total") | numbers


def _group_numbers(table: Table, group: Group) -> dict[str, Any]:
    """One row: its labels, then its numbers."""
    checks = [kind for kind in table.kinds if kind.unit == "pairs"]
    return {
        **dict(zip(table.names, group.values, strict=True)),
        "images": group.images,
        "pairs": group.of(Kind("pairs", ANY_CHECK)).n,
        "flagged": group.of(Kind("pairs", ANY_CHECK)).x,
        "flags": {kind.name: group.of(kind).x for kind in checks},
        "answers": group.of(Kind("answers", LOST[0])).n,
        **{name: group.of(Kind("answers", name)).x for name in LOST},
    }


def _notable_numbers(notable: Notable) -> dict[str, Any]:
    return {
        "what": notable.kind.name,
        "of": notable.kind.unit,
        "group": dict(zip(notable.names, notable.values, strict=True)),
        "hits": notable.group.hits,
        "size": notable.group.size,
        "rest_hits": notable.rest.hits,
        "rest_size": notable.rest.size,
        **dataclasses.asdict(notable.contrast),
        "q": notable.q,
        "within": notable.within,
        "sentence": notable.sentence,
    }


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
