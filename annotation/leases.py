"""Leases: who has which pair before him, so that no pair is given to more reviewers than it wants.

Pairs are leased in one statement, which looks for them and takes them at once; its transaction holds the write lock.
The one surprising fact: a lease is of a window, not only of a person. One reviewer in two windows gets different pairs,
and a reloaded window gets its own again.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from annotation.database import insert_into
from annotation.models import Lease, Pair, UtcDateTime, Verdict
from annotation.review_queue import is_open

LEASE: Final = timedelta(minutes=10)  # without a sign of life of the window
RELOAD: Final = timedelta(seconds=20)  # a window that is left keeps its pairs for so long, since it may be loaded anew
ABANDONED: Final = timedelta(minutes=3)  # without one, a window's pairs are free for others of the same person


def claim(
    session: Session,
    reviewer: str,
    holder: str,
    conditions: Sequence[Any],
    order: Sequence[Any],
    *,
    exclude: Collection[int],
    limit: int,
) -> list[int]:
    """Lease the next open pairs to a window of a reviewer; return their ids, in no order.

    Args:
        session: one that writes.
        reviewer: who will decide them. What he has decided about is not among them.
        holder: his window; what it holds already is among them.
        conditions: about rows of `pairs`.
        order: of rows of `pairs`.
        exclude: ids that the window has already.
        limit: at most so many.
    """
    now = datetime.now(UTC)
    drop_expired(session, now)
    until = sa.literal(now + LEASE, UtcDateTime)
    free = (
        select(Pair.id, sa.literal(reviewer), sa.literal(holder), until)
        .where(is_open(session), *conditions, col(Pair.id).not_in(exclude), *available(reviewer, holder, now))
        .order_by(*order)
        .limit(limit)
    )
    insert = insert_into(session, Lease).from_select(["pair_id", "reviewer", "holder", "expires_at"], free)
    renew = insert.on_conflict_do_update(
        index_elements=["pair_id", "reviewer"],
        set_={"expires_at": insert.excluded.expires_at, "holder": insert.excluded.holder},
    )
    return list(session.execute(renew.returning(col(Lease.pair_id))).scalars())


def available(reviewer: str, holder: str, now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    """The conditions under which a pair may be given to this window: expired leases are gone by then."""
    decided = select(Verdict.pair_id).where(Verdict.pair_id == Pair.id, Verdict.reviewer == reviewer).exists()
    in_another_window = (
        select(Lease.pair_id)
        .where(Lease.pair_id == Pair.id, Lease.reviewer == reviewer, Lease.holder != holder)
        .where(col(Lease.expires_at) > now + LEASE - ABANDONED)
        .exists()
    )
    held_by_others = (
        select(func.count())
        .select_from(Lease)
        .where(Lease.pair_id == Pair.id, Lease.reviewer != reviewer)
        .scalar_subquery()
    )
    return ~decided, ~in_another_window, col(Pair.verdicts) + held_by_others < col(Pair.overlap)


def renew(session: Session, reviewer: str, holder: str, ids: Collection[int]) -> set[int]:
    """Give a window's leases their full time again, and lease what of the ids is free; return those it then holds."""
    now = datetime.now(UTC)
    drop_expired(session, now)
    mine = sa.and_(col(Lease.reviewer) == reviewer, col(Lease.holder) == holder, col(Lease.pair_id).in_(ids))
    renewed = sa.update(Lease).where(mine).values(expires_at=now + LEASE).returning(col(Lease.pair_id))
    held = set(session.execute(renewed).scalars())
    missing = set(ids) - held
    if missing:
        this = [col(Pair.id).in_(missing)]
        held.update(claim(session, reviewer, holder, this, [col(Pair.id)], exclude=(), limit=len(missing)))
    return held


def release(session: Session, reviewer: str, holder: str | None = None, ids: Collection[int] | None = None) -> None:
    """Give leases back: those of these ids, or all; of one window, or of the person."""
    mine = [col(Lease.reviewer) == reviewer]
    mine += [] if holder is None else [col(Lease.holder) == holder]
    mine += [] if ids is None else [col(Lease.pair_id).in_(ids)]
    session.execute(sa.delete(Lease).where(*mine))


def leave(session: Session, reviewer: str, holder: str) -> None:
    """A window is closed or loaded anew: its leases end soon, unless it comes back for them."""
    mine = (col(Lease.reviewer) == reviewer, col(Lease.holder) == holder)
    session.execute(sa.update(Lease).where(*mine).values(expires_at=datetime.now(UTC) + RELOAD))


def drop_expired(session: Session, now: datetime) -> None:
    """Delete the leases whose time is over."""
    session.execute(sa.delete(Lease).where(col(Lease.expires_at) <= now))
