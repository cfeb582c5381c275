"""What a filter can be narrowed to: the values of each field, with how many pairs each would give.

A field's own choice does not count for it, as in a shop: with race = Black chosen, the other races still say how many
pairs they have under the rest of the filter. The one surprising fact: most of this is one walk through an index. Its
cells (status × attribute × race × gender × age) are few, and are added up here.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, func

from annotation.models import FREE_QUESTION, GROUPS, Flag, Pair, Verdict
from annotation.pair_filter import PairFilter

CELL = ("status", "attribute", *GROUPS)


def read_facets(session: Session, which: PairFilter) -> dict[str, dict[str, int]]:
    """Field → value → pairs; see `Store.facets`."""
    each = func.count()
    # A pair that one check has flagged twice counts once. The + keeps the index of runs out, which lacks the filters.
    flagged = func.count(sa.distinct(col(Flag.pair_id)))
    return _of_cells(session, which) | {
        "run": _counted(session, which, "run", sa.select(col(Pair.run_id) + 0, each), None),
        "flag": _counted(session, which, "flag", sa.select(col(Flag.check), flagged), col(Flag.pair_id)),
        "reviewer": _counted(session, which, "reviewer", sa.select(col(Verdict.reviewer), each), col(Verdict.pair_id)),
    }


def _of_cells(session: Session, which: PairFilter) -> dict[str, dict[str, int]]:
    chosen = {name: _chosen(which, name) for name in CELL}
    rest = which.model_copy(update={"status": (), **dict.fromkeys(CELL[1:])})
    counts: dict[str, Counter[str]] = {name: Counter() for name in CELL}
    narrowed = [(place, name) for place, name in enumerate(CELL) if chosen[name]]
    for *cell, number in _cells(session, rest.conditions(session)):
        missed = [name for place, name in narrowed if (cell[place] or "") not in chosen[name]]
        if len(missed) > 1:
            continue
        for value, name in zip(cell, CELL, strict=True):
            if not missed or missed == [name]:
                counts[name][value or ""] += number
    return {name: _known(name, of) for name, of in counts.items()}


def _chosen(which: PairFilter, name: str) -> set[str]:
    value = getattr(which, name)
    if name == "status":
        return {str(status) for status in value}
    return set() if value is None else {"" if value == FREE_QUESTION else str(value)}


def _cells(session: Session, conditions: list[Any]) -> Sequence[sa.Row]:
    """Rows of CELL's values and a count."""
    # Read as text: an enum for each of thousands of cells would take longer than all the rest.
    columns = [sa.type_coerce(getattr(Pair, name), sa.String) for name in CELL]
    return session.execute(sa.select(*columns, func.count()).where(*conditions).group_by(*columns)).all()


def _known(name: str, counts: Counter[str]) -> dict[str, int]:
    """Pairs without an attribute are the free questions; those without a group cannot be chosen by it."""
    unknown = {FREE_QUESTION: counts[""]} if name == "attribute" and counts[""] else {}
    return {value: counts[value] for value in sorted(counts) if value} | unknown


def _counted(session: Session, which: PairFilter, name: str, query: sa.Select, pair_id: Any) -> dict[str, int]:
    """Counts by the first column of a query; `pair_id` is None where its rows are pairs."""
    conditions = which.model_copy(update={name: None}).conditions(session)
    if pair_id is None:
        query = query.where(*conditions)
    elif conditions:
        # A list of ids that is asked for each row: a join would fetch each pair's row, texts and all.
        query = query.where((pair_id + 0).in_(sa.select(col(Pair.id)).where(*conditions)))
    rows = session.execute(query.group_by(query.selected_columns[0])).all()
    return {str(value): number for value, number in sorted(rows, key=str) if value is not None}
