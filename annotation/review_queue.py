"""In which order pairs are reviewed: as they were stored, or the most suspicious first.

The one surprising fact: by suspicion, pairs with flags and pairs without are two queries. Together they would have to
sort all pairs for each page; apart, the first sorts only what has flags, and the second reads on in the index.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Literal

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from annotation.checks.flags import suspicion_of_flags
from annotation.models import FREE_QUESTION, Flag, Pair, Status
from facellm.data import Attribute


class Order(StrEnum):
    """Which pairs come, and which first."""

    STORED = "in order"
    SUSPICIOUS = "most suspicious first"
    FLAGGED = "only flagged ones"  # the most suspicious first, too


def next_pairs(
    session: Session,
    *,
    attribute: Attribute | Literal["free question"] | None,
    status: Status,
    order: Order,
    after: int,
    below: int | None,
    exclude: Iterable[int],
    limit: int,
) -> list[Pair]:
    """The next pairs to look at; see `Store.queue`."""
    query = select(Pair).where(Pair.status == status, col(Pair.id).not_in(list(exclude)))
    if attribute is not None:
        query = query.where(Pair.attribute == (None if attribute == FREE_QUESTION else attribute))
    if order is Order.STORED:
        return list(session.exec(query.where(col(Pair.id) > after).order_by(col(Pair.id)).limit(limit)).all())
    pairs = [] if below == 0 else _flagged(session, query, after, below, limit)
    if order is Order.SUSPICIOUS and len(pairs) < limit:
        unflagged = query.where(~_has_flag(), col(Pair.id) > (after if below == 0 else 0)).order_by(col(Pair.id))
        pairs += session.exec(unflagged.limit(limit - len(pairs))).all()
    return pairs


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


def _flagged(session: Session, query: Any, after: int, below: int | None, limit: int) -> list[Pair]:
    """Pairs with flags, the most suspicious first, those of equal suspicion by their ids."""
    scored = select(Flag.pair_id, suspicion_of_flags().label("score")).group_by(col(Flag.pair_id)).subquery()
    query = query.join(scored, scored.c.pair_id == Pair.id).order_by(scored.c.score.desc(), col(Pair.id))
    if below is not None:
        at_the_same = sa.and_(scored.c.score == below, col(Pair.id) > after)
        query = query.where(sa.or_(scored.c.score < below, at_the_same))
    return list(session.exec(query.limit(limit)).all())


def _has_flag() -> Any:
    return select(Flag.id).where(Flag.pair_id == Pair.id).exists()
