"""Whether replaying all events gives every status that is stored: python -m annotation replay.

    check_replay(session).differing        []

A pair's status, text and counts, and the rows of `verdicts`, only repeat what its events add up to; here they are added
up again, with the functions that decide. The one surprising fact: it reads one state of the database throughout, so it
may run while people review.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session, col

from annotation.decisions import STANDING_FIELDS, outcome, standing_of_each
from annotation.models import Decision, Pair, Status, Verdict

CHUNK: Final = 2_000  # pairs at a time
MOST_SHOWN: Final = 100
_EVENT: Final = ("pair_id", "reviewer", "uuid", "undoes", *STANDING_FIELDS)
_VERDICT: Final = ("pair_id", "reviewer", "decision_uuid", *STANDING_FIELDS)


@dataclass(frozen=True)
class Difference:
    """A pair that is stored otherwise than its events add up to."""

    pair_id: int
    what: str  # such as `status`
    stored: str
    replayed: str


@dataclass(frozen=True)
class Replay:
    """What came of replaying everything."""

    pairs: int
    events: int
    statuses: dict[Status, int]  # as replayed
    differing: int  # pairs
    differences: tuple[Difference, ...]  # the first ones


def check_replay(session: Session) -> Replay:
    """Replay all events of all pairs, and compare."""
    pairs = events = differing = 0
    statuses: Counter[Status] = Counter()
    shown: list[Difference] = []
    for rows in _chunks(session):
        first, last = rows[0].id, rows[-1].id
        of = _by_pair(session, Decision, _EVENT, col(Decision.id), first, last)
        stored = _by_pair(session, Verdict, _VERDICT, col(Verdict.revision), first, last)
        for pair in rows:
            replayed = _replayed(pair, of.get(pair.id, []))
            found = list(_differences(pair, replayed, stored.get(pair.id, [])))
            statuses[replayed["status"]] += 1
            differing += bool(found)
            shown += found[: MOST_SHOWN - len(shown)]
        pairs += len(rows)
        events += sum(map(len, of.values()))
    counts = {status: statuses[status] for status in Status}
    return Replay(pairs, events, counts, differing, tuple(shown))


def _chunks(session: Session) -> Iterator[list[Any]]:
    """All pairs by their ids, as rows."""
    columns = (Pair.id, Pair.status, Pair.text, Pair.verdicts, Pair.revision, Pair.overlap)
    query = sa.select(*map(col, columns)).order_by(col(Pair.id)).limit(CHUNK)
    last = 0
    while rows := list(session.execute(query.where(col(Pair.id) > last)).all()):
        yield rows
        last = rows[-1].id


def _by_pair(
    session: Session, table: type[Decision] | type[Verdict], names: tuple[str, ...], order: Any, first: int, last: int
) -> Mapping[int, list[Any]]:
    """Rows of the pairs from one id to another."""
    query = sa.select(*(getattr(table, name) for name in names))
    query = query.where(col(table.pair_id).between(first, last)).order_by(order)
    found: defaultdict[int, list[Any]] = defaultdict(list)
    for row in session.execute(query):
        found[row.pair_id].append(row)
    return found


def _replayed(pair: Any, events: list[Any]) -> dict[str, Any]:
    """What the events add up to, and what stands of each reviewer."""
    own = standing_of_each(events)
    now = outcome(own.values(), pair.overlap)
    values = {"status": now.status, "text": now.text, "verdicts": now.verdicts, "revision": len(events)}
    return values | {"standing": own}


def _differences(pair: Any, replayed: Mapping[str, Any], stored: list[Any]) -> Iterator[Difference]:
    for name in ("status", "text", "verdicts", "revision"):
        if getattr(pair, name) != replayed[name]:
            yield Difference(pair.id, name, str(getattr(pair, name)), str(replayed[name]))
    rows = {row.reviewer: (row.decision_uuid, *(getattr(row, name) for name in STANDING_FIELDS)) for row in stored}
    events = {
        name: (event.uuid, *(getattr(event, field) for field in STANDING_FIELDS))
        for name, event in replayed["standing"].items()
    }
    for name in sorted(rows.keys() | events.keys()):
        if rows.get(name) != events.get(name):
            yield Difference(pair.id, f"verdict of {name}", str(rows.get(name)), str(events.get(name)))
