"""All that there is to count, as one object of plain values: what `stats --json` prints and the Dataset tab shows.

The one surprising fact: the groups' answers are what teachers were asked here, so they have fewer pairs than the data
set where pairs were imported, and more where answers were refused.
"""

import dataclasses
import json
from typing import Any, Final

from annotation.models import FREE_QUESTION, Snapshot, Status, TaskState
from annotation.statistics.generation_stats import Costs
from annotation.statistics.group_counts import ANY_CHECK, Group, Kind
from annotation.statistics.group_stats import LOST_WORDS, Notable, Table
from annotation.store import Store

LOST: Final = tuple(kind.name for kind in LOST_WORDS)  # ends of a question that leave no pair


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
