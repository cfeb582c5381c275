"""In which order pairs are reviewed, and how many there are of each kind.

The one surprising fact: each facet is counted with all filters but its own, so that the list of a filter shows what
another choice would bring.
"""

from enum import StrEnum
from typing import Any

from sqlmodel import Session, col, func, select

from annotation.models import FREE_QUESTION, Flag, Pair, Verdict
from annotation.pair_filter import PairFilter


class Order(StrEnum):
    """Which pairs come first."""

    BY_IMAGE = "by image"  # the eight questions about one face in a row
    SHUFFLED = "shuffled"
    SUSPICIOUS = "most suspicious first"
    BALANCED = "balanced"

    def columns(self) -> tuple[Any, ...]:
        """What rows of `pairs` are sorted by."""
        stored = (col(Pair.image_id), col(Pair.id))
        return {
            Order.BY_IMAGE: stored,
            Order.SHUFFLED: (col(Pair.shuffle), col(Pair.id)),
            Order.SUSPICIOUS: (col(Pair.suspicion).desc(), *stored),
            Order.BALANCED: (col(Pair.balance).is_(None), col(Pair.balance), *stored),
        }[self]


def read_facets(session: Session, which: PairFilter) -> dict[str, dict[str, int]]:
    """Field → value → how many pairs."""
    found = {}
    for name, column in (
        ("attribute", Pair.attribute),
        ("status", Pair.status),
        ("race", Pair.race),
        ("gender", Pair.gender),
        ("age", Pair.age),
        ("run", Pair.run_id),
    ):
        others = which.model_copy(update={name: () if name == "status" else None})
        rows = session.exec(select(column, func.count()).where(*others.conditions()).group_by(col(column)))
        found[name] = {
            (FREE_QUESTION if name == "attribute" else "") if value is None else str(value): number
            for value, number in rows
        }
    others = which.model_copy(update={"flag": None})
    ids = select(Pair.id).where(*others.conditions())
    rows = session.exec(select(Flag.check, func.count(col(Flag.pair_id).distinct())).where(col(Flag.pair_id).in_(ids)).group_by(Flag.check))
    found["flag"] = dict(rows.all())
    others = which.model_copy(update={"reviewer": None})
    ids = select(Pair.id).where(*others.conditions())
    rows = session.exec(select(Verdict.reviewer, func.count()).where(col(Verdict.pair_id).in_(ids)).group_by(Verdict.reviewer))
    found["reviewer"] = dict(rows.all())
    return found


def count_pairs(session: Session, *, flagged: bool) -> Any:
    """As it was."""
    from annotation.models import Status
    from facellm.data import Attribute
    counts: Any = {attribute: dict.fromkeys(Status, 0) for attribute in (*Attribute, None)}
    query = select(Pair.attribute, Pair.status, func.count()).group_by(col(Pair.attribute), col(Pair.status))
    if flagged:
        query = query.where(col(Pair.id).in_(select(Flag.pair_id)))
    for attribute, status, number in session.exec(query):
        counts[attribute][Status(status)] = number
    return counts
