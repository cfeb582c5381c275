"""The balanced order: at any stop each race, gender and age has had its share, as far as there are pairs of it.

Faces of the same race, gender and age form a cell. The order goes in rounds: each round takes one pair of every cell
that has one left, first all about one attribute, then all about the next. So after n pairs every cell has had the same
number, give or take one, and a cell that has run out leaves its share to the others. Within a round the cells follow
each other in such a way that no race, gender or age comes in clusters: from 100 pairs on, each has its share within two
points, whatever the filter of the attribute.

The one surprising fact: a pair's place is computed once and never changes. Pairs that come later take the next places
in their cells, so that a cell which has grown is caught up with, and what was reviewed before stays where it was.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from sqlmodel import Session, col, func

from annotation.models import Pair
from facellm.data import Attribute

Cell = tuple[str, str, str]  # race, gender, age; "" where it is not known
SLOTS = 1024  # for cells, in one round
_ATTRIBUTES = [*Attribute, None]  # in the order of a round; None: free questions
CHUNK = 20_000  # pairs placed at a time


def place_new(session: Session) -> int:
    """Give a place to all pairs that have none; return how many these were."""
    number = 0
    while rows := session.execute(_unplaced()).all():
        taken = _taken(session)
        slots = {cell: slot % SLOTS for slot, cell in enumerate(spread(sorted({cell for cell, _ in taken})))}
        places = []
        for pair_id, attribute, *cell in rows:
            key = ((cell[0], cell[1], cell[2]), attribute)
            places.append({"pair": pair_id, "place": _place(taken[key], attribute, slots[key[0]])})
            taken[key] += 1
        update = sa.update(Pair).where(col(Pair.id) == sa.bindparam("pair")).values(balance=sa.bindparam("place"))
        session.connection().execute(update, places)
        number += len(places)
    return number


def _unplaced() -> sa.Select:
    """The next pairs without a place, in the order of the shuffle."""
    columns = (col(Pair.id), col(Pair.attribute), col(Pair.race), col(Pair.gender), col(Pair.age))
    return sa.select(*columns).where(col(Pair.balance).is_(None)).order_by(col(Pair.shuffle), col(Pair.id)).limit(CHUNK)


def _taken(session: Session) -> Counter[tuple[Cell, Attribute | None]]:
    """How many pairs of each cell and attribute have a place; cells that have none yet are there with 0."""
    groups = (col(Pair.race), col(Pair.gender), col(Pair.age), col(Pair.attribute))
    query = sa.select(*groups, func.count(col(Pair.balance))).group_by(*groups)
    return Counter({((race, gender, age), attribute): n for race, gender, age, attribute, n in session.execute(query)})


def _place(before: int, attribute: Attribute | None, slot: int) -> int:
    return (before * len(_ATTRIBUTES) + _ATTRIBUTES.index(attribute)) * SLOTS + slot


def spread(cells: Sequence[Cell]) -> Iterator[Cell]:
    """All cells, each next one such that the races, genders and ages so far are as near to their shares as can be."""
    shares = [Counter(cell[kind] for cell in cells) for kind in range(3)]
    so_far: list[Counter[str]] = [Counter(), Counter(), Counter()]
    left = list(cells)
    while left:
        number = len(cells) - len(left) + 1

        def excess(cell: Cell, number: int = number) -> list[float]:
            """By how many cells each of its groups would be ahead, the worst first."""
            ahead = [so_far[kind][cell[kind]] + 1 - number * shares[kind][cell[kind]] / len(cells) for kind in range(3)]
            return sorted(ahead, reverse=True)

        best = min(left, key=excess)
        left.remove(best)
        for kind in range(3):
            so_far[kind][best[kind]] += 1
        yield best
