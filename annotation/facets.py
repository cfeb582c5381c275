"""What a filter can be narrowed to: the values of each field, with how many pairs each would give.

A field's own choice does not count for it, as in a shop: with race = Black chosen, the other races still say how many
pairs they have under the rest of the filter. The one surprising fact: all of this is one walk through an index. Its
cells (status × attribute × race × gender × age) are few, and are added up here.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from annotation.models import FREE_QUESTION, Flag, GenerationRun, Pair, Purpose, Verdict
from annotation.pair_filter import PairFilter

COUNTED = ("status", "attribute", "race", "gender", "age")


@dataclass(frozen=True)
class Facets:
    """The values that there are."""

    total: int  # pairs of the whole filter
    counts: dict[str, dict[str, int]]  # field of COUNTED → value → pairs under the other fields' choices
    flags: tuple[str, ...]  # names of the checks that found something
    reviewers: tuple[str, ...]  # with a decision that stands
    runs: tuple[int, ...]  # generation runs, newest first
    teachers: tuple[str, ...]


def read_facets(session: Session, which: PairFilter) -> Facets:
    """The facets of a filter; see `Store.facets`."""
    chosen = {name: _chosen(which, name) for name in COUNTED}
    others = which.model_copy(update={"status": (), **dict.fromkeys(COUNTED[1:])})
    counts: dict[str, Counter[str]] = {name: Counter() for name in COUNTED}
    total = 0
    for cell, number in _cells(session, others.conditions(session)):
        misses = [name for name in COUNTED if chosen[name] and cell[name] not in chosen[name]]
        if not misses:
            total += number
        for name in COUNTED:
            if misses in ([], [name]):
                counts[name][cell[name]] += number
    known = {name: _known(name, of) for name, of in counts.items()}
    return Facets(total, known, *_values(session))


def _chosen(which: PairFilter, name: str) -> set[str]:
    value = getattr(which, name)
    if name == "status":
        return {str(status) for status in value}
    return set() if value is None else {"" if value == FREE_QUESTION else str(value)}


def _cells(session: Session, conditions: list[Any]) -> list[tuple[dict[str, str], int]]:
    # Read as text: an enum for each of thousands of cells would take longer than all the rest.
    columns = [sa.type_coerce(getattr(Pair, name), sa.String) for name in COUNTED]
    rows = session.execute(sa.select(*columns, func.count()).where(*conditions).group_by(*columns)).all()
    return [({name: value or "" for name, value in zip(COUNTED, row, strict=False)}, row[-1]) for row in rows]


def _known(name: str, counts: Counter[str]) -> dict[str, int]:
    """Pairs without an attribute are the free questions; those without a group cannot be chosen by it."""
    unknown = {"attribute": {FREE_QUESTION: counts[""]}} if counts[""] else {}
    return {value: counts[value] for value in sorted(counts) if value} | unknown.get(name, {})


def _values(session: Session) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    runs = select(GenerationRun.id).where(GenerationRun.purpose == Purpose.GENERATE)
    return (
        tuple(session.exec(select(Flag.check).distinct().order_by(Flag.check))),
        tuple(session.exec(select(Verdict.reviewer).distinct().order_by(Verdict.reviewer))),
        tuple(run for run in session.exec(runs.order_by(col(GenerationRun.id).desc())) if run is not None),
        tuple(session.exec(select(Pair.teacher).distinct().order_by(Pair.teacher))),
    )
