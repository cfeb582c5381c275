"""In which order pairs are reviewed, and how many there are: by image, shuffled, by suspicion, balanced.

The one surprising fact: what is open is written into the SQL as literal text. An index of the open pairs alone serves a
query only where the database can see that the query wants no others, and a bound parameter hides that.
"""

from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from annotation.balance import place_new
from annotation.models import OPEN_SQL, Flag, Pair, Status
from annotation.pair_filter import PairFilter
from facellm.data import Attribute


class Order(StrEnum):
    """Which pairs come first."""

    IMAGE = "by image"  # all about one face in a row
    SHUFFLED = "shuffled"
    SUSPICIOUS = "most suspicious first"
    BALANCED = "balanced"  # see annotation.balance

    @property
    def columns(self) -> tuple[Any, ...]:
        """What pairs are ordered by, ascending."""
        return _COLUMNS[self]


_COLUMNS: Final[dict[Order, tuple[Any, ...]]] = {
    Order.IMAGE: (col(Pair.image_id), col(Pair.id)),
    Order.SHUFFLED: (col(Pair.shuffle), col(Pair.id)),
    Order.SUSPICIOUS: (-col(Pair.suspicion), col(Pair.image_id), col(Pair.id)),
    Order.BALANCED: (col(Pair.balance), col(Pair.id)),
}


def is_open(session: Session) -> sa.TextClause:
    """The condition that a pair may wait for somebody, in the words of the indexes of open pairs.

    SQLite keeps no statistics here and takes a status for rare: it would fetch and sort all open pairs, 100 ms at
    50,000 of them, while nobody else can write. `likely` tells it to walk through the order's index instead.
    """
    condition = f"pairs.{OPEN_SQL}"
    return sa.text(f"likely({condition})" if session.get_bind().dialect.name == "sqlite" else condition)


def prepare(session: Session, order: Order) -> None:
    """Do what an order needs done before pairs can be taken in it; the session writes."""
    if order is Order.BALANCED:
        place_new(session)


def is_prepared(session: Session, order: Order) -> bool:
    """Whether `prepare` would have nothing to do."""
    unplaced = select(Pair.id).where(col(Pair.balance).is_(None)).limit(1)
    return order is not Order.BALANCED or session.exec(unplaced).first() is None


def browse(
    session: Session, which: PairFilter, order: Order, *, exclude: Collection[int], limit: int
) -> Sequence[Pair]:
    """The next pairs of a filter in an order; see `Store.browse`."""
    query = select(Pair).where(*which.conditions(session), col(Pair.id).not_in(exclude))
    return session.exec(query.order_by(*order.columns).limit(limit)).all()


def count_pairs(session: Session, *, flagged: bool) -> dict[Attribute | None, dict[Status, int]]:
    """How many pairs there are, by attribute (None: free questions) and status; zeros are not left out.

    Args:
        session: one to read with.
        flagged: count only pairs with a flag.
    """
    counts = {attribute: dict.fromkeys(Status, 0) for attribute in (*Attribute, None)}
    query = select(Pair.attribute, Pair.status, func.count()).group_by(col(Pair.attribute), col(Pair.status))
    if flagged:
        query = query.where(col(Pair.id).in_(select(Flag.pair_id)))
    for attribute, status, number in session.exec(query):
        counts[attribute][Status(status)] = number
    return counts
