"""Audits: curated pairs drawn at random, which a curator judges once more; from them, what is still wrong.

    store.audits.draw("carol", 200)
    while drawn := store.audits.next("carol"):
        store.audits.judge(drawn.audit_id, True, "carol")
    print(store.audits.estimate().sentence)

The one surprising fact: an audit is of the pair as it was when it was drawn. Once somebody decides about it anew, the
audit counts for nothing, be it judged or not; so what an audit found can be put right without spoiling the estimate.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Engine
from sqlmodel import Session, col, func, select

from annotation.database import reading, writing
from annotation.models import CURATED, FREE_QUESTION, Audit, Pair, Verdict
from annotation.pair_filter import NO_FILTER, PairFilter
from annotation.team.error_estimate import Estimate, Judged, estimate_by_stratum, estimate_errors
from facellm.data import Attribute
from facellm.errors import DataError, StaleError

MOST: Final = 10_000  # pairs of one draw


@dataclass(frozen=True)
class Drawn:
    """A pair to be judged; `Store.pairs` has all about it."""

    audit_id: int
    pair_id: int
    left: int  # to be judged, this one too


@dataclass(frozen=True)
class AuditEstimate:
    """What the audits say of all that is curated, or of what a filter leaves of it."""

    population: str  # the filter in words; empty: all that is curated
    is_by_attribute: bool
    drawn: int  # those that still count
    curated: int  # pairs, now
    estimate: Estimate | None  # None: nothing judged yet
    attributes: dict[str, Estimate]  # by attribute, where something was judged

    @property
    def sentence(self) -> str:
        """What a person reads."""
        found = self.estimate
        if found is None:
            return f"{self.drawn:,} drawn pairs wait for their judge." if self.drawn else "No pair is drawn yet."
        about, low, high = found.left
        which = "curated pairs" if found.pairs >= self.curated else "curated pairs of the attributes audited so far"
        return (
            f"{found.wrong:,} of {found.judged:,} audited pairs are wrong: {found.share:.1%} "
            f"(95 % interval {found.low:.1%} to {found.high:.1%}), so about {about:,} of {found.pairs:,} {which} "
            f"({low:,} to {high:,})."
        )


class AuditStore:
    """The door to them: `store.audits`."""

    def __init__(self, engine: Engine) -> None:
        """Use `store.audits`."""
        self._engine = engine

    def draw(
        self,
        who: str,
        count: int,
        *,
        by_attribute: bool = False,
        of: PairFilter = NO_FILTER,
    ) -> int:
        """Draw curated pairs at random, none that is in an audit that counts; return how many there were.

        Args:
            who: draws.
            count: at most so many.
            by_attribute: as many of each attribute as of the others, instead of by their shares.
            of: only curated pairs that this leaves; such a sample speaks for those, not for all.

        Raises:
            DataError: the number is not within 1 and 10,000, or no curated pair is left.
        """
        if not 1 <= count <= MOST:
            raise DataError(f"{count} pairs cannot be drawn; expected 1 to {MOST:,}.")
        same = (Audit.pair_id == Pair.id, Audit.revision == Pair.revision, Audit.population == of.to_json())
        audited = select(Audit.pair_id).where(*same).exists()
        query = select(Pair.id, Pair.attribute, Pair.revision).where(col(Pair.status).in_(CURATED))
        with writing(self._engine) as session:
            query = query.where(*of.conditions(session))
            rows = session.exec(query.where(~audited).order_by(col(Pair.id))).all()
            if not rows:
                raise DataError("No curated pair is left to be drawn. Accept some first, or widen the filter.")
            fields = {"population": of.to_json(), "by_attribute": by_attribute, "drawn_by": who}
            for pair_id, _, revision in _sample(rows, count, by_attribute):
                session.add(Audit.model_validate(fields | {"pair_id": pair_id, "revision": revision}))
            return min(count, len(rows))

    def next(self, auditor: str, *, skipped: Sequence[int] = ()) -> Drawn | None:
        """The next pair to judge, best one that the auditor has not decided himself; None when all are judged.

        Args:
            auditor: who will judge it.
            skipped: audits that he has put off.
        """
        own = select(Verdict.pair_id).where(Verdict.pair_id == Audit.pair_id, Verdict.reviewer == auditor).exists()
        query = select(Audit.id, Audit.pair_id).join(Pair, col(Pair.id) == Audit.pair_id)
        waiting = (col(Audit.is_right).is_(None), *_counts())
        order = (col(Audit.id).in_(skipped), sa.case((own, 1), else_=0), col(Audit.id))
        with reading(self._engine) as session:
            row = session.exec(query.where(*waiting).order_by(*order).limit(1)).first()
            left = session.exec(
                select(func.count()).select_from(Audit).join(Pair, col(Pair.id) == Audit.pair_id).where(*waiting)
            ).one()
        return None if row is None else Drawn(row[0] or 0, row[1], left)

    def judge(self, audit_id: int, is_right: bool, auditor: str) -> None:
        """Store whether a drawn pair is right.

        Raises:
            DataError: there is no such audit.
            StaleError: it is judged already, or its pair was decided about anew since it was drawn.
        """
        with writing(self._engine) as session:
            audit, pair = self._stored(session, audit_id)
            if audit.is_right is not None:
                raise StaleError(f"This pair was not judged: {audit.auditor} has judged it meanwhile.")
            if audit.revision != pair.revision or pair.status not in CURATED:
                raise StaleError("This pair was not judged: it was decided about anew since it was drawn.")
            audit.is_right, audit.auditor, audit.judged_at = is_right, auditor, datetime.now(UTC)
            session.add(audit)

    def take_back(self, audit_id: int, auditor: str) -> None:
        """Let a pair be judged once more.

        Raises:
            DataError: there is no such audit.
            StaleError: somebody else has judged it.
        """
        with writing(self._engine) as session:
            audit, _ = self._stored(session, audit_id)
            if audit.auditor != auditor:
                raise StaleError("Only who has judged a pair can take that back.")
            audit.is_right = audit.auditor = audit.judged_at = None
            session.add(audit)

    def all(self) -> list[tuple[Audit, Pair, bool]]:
        """All audits, oldest first, with their pairs and whether they still count."""
        query = select(Audit, Pair).join(Pair, col(Pair.id) == Audit.pair_id).order_by(col(Audit.id))
        with reading(self._engine) as session:
            return [
                (audit, pair, audit.revision == pair.revision and pair.status in CURATED)
                for audit, pair in session.exec(query)
            ]

    def estimate(self, of: PairFilter = NO_FILTER) -> AuditEstimate:
        """What the audits that were drawn with this filter say of the pairs that it leaves now."""
        with reading(self._engine) as session:
            return _estimate(session, of)

    def filtered(self) -> list[AuditEstimate]:
        """The same for every filter that was drawn with."""
        with reading(self._engine) as session:
            named = session.exec(select(Audit.population).distinct().order_by(Audit.population)).all()
            filters = [of for population in named if (of := PairFilter.model_validate_json(population)) != NO_FILTER]
            return [_estimate(session, of) for of in filters]

    @staticmethod
    def _stored(session: Session, audit_id: int) -> tuple[Audit, Pair]:
        query = select(Audit, Pair).join(Pair, col(Pair.id) == Audit.pair_id).where(Audit.id == audit_id)
        row = session.exec(query).first()
        if row is None:
            raise DataError(f"There is no audit {audit_id}. Draw pairs first: python -m annotation audit draw N.")
        return row[0], row[1]


def _counts() -> tuple[sa.ColumnElement[bool], ...]:
    """The conditions under which an audit still counts; its pair is joined."""
    return Audit.revision == Pair.revision, col(Pair.status).in_(CURATED)  # type: ignore[return-value]


def _sample(rows: Sequence[Any], count: int, by_attribute: bool) -> list[Any]:
    rng = random.SystemRandom()
    if not by_attribute:
        return rng.sample(rows, min(count, len(rows)))
    left = {attribute: [row for row in rows if row[1] == attribute] for attribute in {row[1] for row in rows}}
    for of in left.values():
        rng.shuffle(of)
    drawn: list[Any] = []
    while len(drawn) < min(count, len(rows)):  # one of each in turn, until there is none
        for of in left.values():
            if of and len(drawn) < count:
                drawn.append(of.pop())
    return drawn


def _estimate(session: Session, of: PairFilter) -> AuditEstimate:
    """Exact where all were drawn alike; weighed by attribute where some were drawn by attribute."""
    judged, wrong = sa.func.count(col(Audit.is_right)), sa.func.count(sa.case((~col(Audit.is_right), 1)))
    evenly = sa.func.count(sa.case((col(Audit.by_attribute), 1)))
    query = sa.select(col(Pair.attribute), sa.func.count(), judged, wrong, evenly)
    query = query.join_from(Audit, Pair, col(Pair.id) == col(Audit.pair_id)).where(*_counts(), *of.conditions(session))
    query = query.where(col(Audit.population) == of.to_json())
    rows = {name: numbers for name, *numbers in session.execute(query.group_by(col(Pair.attribute)))}
    sizes = sa.select(col(Pair.attribute), sa.func.count()).where(
        col(Pair.status).in_(CURATED), *of.conditions(session)
    )
    pairs = {_name(name): size for name, size in session.execute(sizes.group_by(col(Pair.attribute)))}
    samples = {_name(name): Judged(rows[name][1], rows[name][2]) for name in (*Attribute, None) if name in rows}
    by_attribute = any(even for *_, even in rows.values())
    pooled = Judged(sum(each.size for each in samples.values()), sum(each.wrong for each in samples.values()))
    total = estimate_by_stratum(pairs, samples) if by_attribute else estimate_errors(sum(pairs.values()), pooled)
    each = {name: found for name, sample in samples.items() if (found := estimate_errors(pairs[name], sample))}
    words = " ".join(f"{name}={value}" for name, value in of.set_fields().items())
    drawn = sum(numbers[0] for numbers in rows.values())
    return AuditEstimate(words, by_attribute, drawn, sum(pairs.values()), total, each)


def _name(attribute: Attribute | None) -> str:
    return attribute or FREE_QUESTION
