"""Findings of the automatic checks as rows: what is checked, and what is kept.

The one surprising fact: flags are about the text that stands. Where an edit stands they index the edited text, and a
decision that changes the text that stands checks the pair again in its own transaction.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from annotation.checks.findings import Facts, Finding
from annotation.checks.quality import PAIR_CHECKS, check_pair
from annotation.decisions import labels_of
from annotation.models import Flag, Pair, Severity
from facellm.data import Attribute

WEIGHTS = {Severity.ERROR: 10_000, Severity.WARNING: 100, Severity.INFO: 1}


@dataclass(frozen=True)
class Checkable:
    """A pair as it is checked: its facts, and the revision at which they were read."""

    pair_id: int
    revision: int
    facts: Facts


def suspicion(severities: Iterable[Severity]) -> int:
    """How suspicious the flags of a pair make it: by the number of errors, then of warnings, then of the rest."""
    return sum(WEIGHTS[severity] for severity in severities)


def suspicion_of_flags() -> Any:
    """The same in SQL, summed over rows of `flags`."""
    return func.sum(sa.case(WEIGHTS, value=Flag.severity, else_=0))


def checkable_after(session: Session, after: int, limit: int) -> list[Checkable]:
    """The next pairs by their ids, after one."""
    query = select(Pair).where(col(Pair.id) > after).order_by(col(Pair.id)).limit(limit)
    return _checkable(session, session.exec(query).all())


def checkable(session: Session, ids: Collection[int]) -> list[Checkable]:
    """The pairs of these ids."""
    return _checkable(session, session.exec(select(Pair).where(col(Pair.id).in_(ids))).all())


def texts_of(session: Session, attribute: Attribute | None) -> tuple[list[int], list[str]]:
    """The ids of all pairs of an attribute (None: the free questions) in ascending order, and the texts that stand."""
    standing = func.coalesce(Pair.text, Pair.answer)
    query = select(Pair.id, standing).where(Pair.attribute == attribute).order_by(col(Pair.id))
    rows: dict[int | None, str] = dict(session.exec(query).all())
    return [pair_id for pair_id in rows if pair_id is not None], list(rows.values())


def replace_flags(
    session: Session, checks: Collection[str], found: Mapping[int, Sequence[Finding]], revisions: Mapping[int, int]
) -> set[int]:
    """Make the flags of these checks be these findings; flags that stay the same keep their rows.

    Args:
        session: one that writes.
        checks: flags of other checks stay as they are.
        found: pair id → findings; a pair without any loses its flags.
        revisions: pair id → the revision that was checked.

    Returns:
        The pairs that were decided about meanwhile: they are left as they are.
    """
    now = dict(session.exec(select(Pair.id, Pair.revision).where(col(Pair.id).in_(revisions))).all())
    stale = {pair_id for pair_id, revision in revisions.items() if now.get(pair_id) != revision}
    fresh = revisions.keys() - stale
    stored = defaultdict(list)
    for flag in session.exec(select(Flag).where(col(Flag.pair_id).in_(fresh), col(Flag.check).in_(checks))):
        stored[flag.pair_id].append(flag)
    for pair_id in sorted(fresh):
        missing = [finding for finding in found.get(pair_id, ()) if finding.check in checks]
        for flag in stored[pair_id]:
            same = next((finding for finding in missing if _is_same(flag, finding)), None)
            if same is None:
                session.delete(flag)
            else:
                missing.remove(same)
        session.add_all(Flag.model_validate({"pair_id": pair_id, **vars(finding)}) for finding in missing)
    session.flush()
    _weigh(session, fresh)
    return stale


def _weigh(session: Session, ids: Collection[int]) -> None:
    """Keep how suspicious the flags of these pairs make them."""
    total = sa.select(suspicion_of_flags()).where(col(Flag.pair_id) == Pair.id).scalar_subquery()
    for chunk in _chunks(sorted(ids)):
        session.execute(sa.update(Pair).where(col(Pair.id).in_(chunk)).values(suspicion=func.coalesce(total, 0)))


def check_again(session: Session, ids: Collection[int]) -> None:
    """Check these pairs with the checks of single answers, and keep what they find."""
    for chunk in _chunks(sorted(ids)):
        pairs = checkable(session, chunk)
        found = {pair.pair_id: check_pair(pair.facts) for pair in pairs}
        replace_flags(session, PAIR_CHECKS, found, {pair.pair_id: pair.revision for pair in pairs})


def check_new(session: Session, pair_id: int, facts: Facts) -> None:
    """Check a pair that has just been added, and so has no flags yet."""
    found = check_pair(facts)
    session.add_all(Flag.model_validate({"pair_id": pair_id, **vars(finding)}) for finding in found)
    if weight := suspicion(finding.severity for finding in found):
        session.execute(sa.update(Pair).where(col(Pair.id) == pair_id).values(suspicion=weight))


def flags_of(session: Session, ids: Collection[int]) -> Mapping[int, list[Flag]]:
    """The flags of each of these pairs, the most severe first, then in the order of the text."""
    flags: defaultdict[int, list[Flag]] = defaultdict(list)
    for flag in session.exec(select(Flag).where(col(Flag.pair_id).in_(ids))):
        flags[flag.pair_id].append(flag)
    for of in flags.values():
        of.sort(key=lambda flag: (-WEIGHTS[flag.severity], flag.span_start or 0, flag.id))
    return flags


def count_flags(session: Session) -> dict[str, int]:
    """How many pairs each check has flagged."""
    query = select(Flag.check, func.count(sa.distinct(col(Flag.pair_id)))).group_by(Flag.check)
    return dict(sorted(session.exec(query).all()))  # here, since each database has its own order of texts


def count_flagged(session: Session) -> int:
    """How many pairs have a flag."""
    return session.exec(select(func.count(sa.distinct(col(Flag.pair_id))))).one()


def _checkable(session: Session, pairs: Sequence[Pair]) -> list[Checkable]:
    labels = labels_of(session, {pair.image_id for pair in pairs})
    return [
        Checkable(
            pair.id,
            pair.revision,
            Facts(pair.attribute, pair.question, pair.stands, labels[pair.image_id]),
        )
        for pair in pairs
        if pair.id is not None
    ]


def _is_same(flag: Flag, finding: Finding) -> bool:
    return all(getattr(flag, name) == value for name, value in vars(finding).items())


def _chunks(ids: Sequence[int], size: int = 500) -> Iterator[Sequence[int]]:
    return (ids[i : i + size] for i in range(0, len(ids), size))
