"""What a filter can be narrowed to: the values of each field, with how many pairs each would give.

A field's own choice does not count for it, as in a shop: with race = Black chosen, the other races still say how many
pairs they have under the rest of the filter. The one surprising fact: most of this is one walk through an index. Its
cells (status × attribute × race × gender × age) are few, and are added up here.
"""

from collections import Counter
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, func

from annotation.models import FREE_QUESTION, Flag, Pair, Verdict
from annotation.pair_filter import PairFilter

CELL = ("status", "attribute", "race", "gender", "age")


def read_facets(session: Session, which: PairFilter) -> dict[str, dict[str, int]]:
    """Field → value → pairs; see `Store.facets`."""
    return _of_cells(session, which) | {
        "run": _counted(session, which, "run", sa.select(col(Pair.run_id), func.count()), col(Pair.run_id)),
        "flag": _counted(session, which, "flag", _flags(), col(Flag.check)),
        "reviewer": _counted(session, which, "reviewer", _verdicts(), col(Verdict.reviewer)),
    }


def _of_cells(session: Session, which: PairFilter) -> dict[str, dict[str, int]]:
    chosen = {name: _chosen(which, name) for name in CELL}
    rest = which.model_copy(update={"status": (), **dict.fromkeys(CELL[1:])})
    counts: dict[str, Counter[str]] = {name: Counter() for name in CELL}
    for cell, number in _cells(session, rest.conditions(session)):
        missed = [name for name in CELL if chosen[name] and cell[name] not in chosen[name]]
        for name in CELL:
            if missed in ([], [name]):
                counts[name][cell[name]] += number
    return {name: _known(name, of) for name, of in counts.items()}


def _chosen(which: PairFilter, name: str) -> set[str]:
    value = getattr(which, name)
    if name == "status":
        return {str(status) for status in value}
    return set() if value is None else {"" if value == FREE_QUESTION else str(value)}


def _cells(session: Session, conditions: list[Any]) -> list[tuple[dict[str, str], int]]:
    # Read as text: an enum for each of thousands of cells would take longer than all the rest.
    columns = [sa.type_coerce(getattr(Pair, name), sa.String) for name in CELL]
    rows = session.execute(sa.select(*columns, func.count()).where(*conditions).group_by(*columns)).all()
    return [({name: value or "" for name, value in zip(CELL, row, strict=False)}, row[-1]) for row in rows]


def _known(name: str, counts: Counter[str]) -> dict[str, int]:
    """Pairs without an attribute are the free questions; those without a group cannot be chosen by it."""
    unknown = {FREE_QUESTION: counts[""]} if name == "attribute" and counts[""] else {}
    return {value: counts[value] for value in sorted(counts) if value} | unknown


def _flags() -> Any:
    """A pair that one check has flagged twice counts once."""
    query = sa.select(col(Flag.check), func.count(sa.distinct(col(Flag.pair_id))))
    return query.select_from(Flag).join(Pair, col(Pair.id) == col(Flag.pair_id))


def _verdicts() -> Any:
    query = sa.select(col(Verdict.reviewer), func.count())
    return query.select_from(Verdict).join(Pair, col(Pair.id) == col(Verdict.pair_id))


def _counted(session: Session, which: PairFilter, name: str, query: Any, by: Any) -> dict[str, int]:
    rest = which.model_copy(update={name: None})
    rows = session.execute(query.where(*rest.conditions(session)).group_by(by)).all()
    return {str(value): number for value, number in sorted(rows, key=str) if value is not None}
