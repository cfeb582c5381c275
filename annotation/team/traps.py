"""Traps: pairs that are known to be bad, shown among the others, to see who reads what he accepts.

    views = store.traps.mix(reviewer, store.claim(reviewer, …), store.traps.share())

Whether one is due follows from the reviewer's name and the pair that comes next, so a reloaded page is shown the same
ones. A trap is made for one reviewer, has an id that no pair has, and is decided about like a pair, through the store;
what he says is kept in `trap_answers` and counts nowhere else. It is shown without flags, even where a check would find
what is wrong: a trap is to tell whether the reviewer reads, and who reads does not need the flag. So none is due before
a pair that has flags, where one without would be the odd one out.

The one surprising fact: a trap stands between two faces rather than between two questions about one, since a strange
face for a moment would give it away. So in the order by image there can be no more than one for each face.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy import Engine
from sqlmodel import Session, col, func, select

from annotation.database import reading, writing
from annotation.decisions import STATUS_AFTER, labels_of
from annotation.models import (
    CURATED,
    GROUPS,
    Action,
    Decision,
    DecisionInput,
    Image,
    Lease,
    Pair,
    Reviewer,
    Role,
    Status,
    Trap,
    TrapAnswer,
    Verdict,
)
from annotation.project import read_project
from annotation.team.trap_making import MadeTrap, Source, make_trap
from facellm.errors import DataError, StaleError

if TYPE_CHECKING:
    from annotation.store import PairView

# Pairs count up from 1 and will never be as many; a 32-bit integer, which PostgreSQL compares ids as, holds both.
FIRST_ID: Final = 2_000_000_000
ALONE: Final = 1  # one reviewer needs no traps
HOSTS: Final = 12  # pairs that are tried until a trap can be made of one
OTHERS: Final = 40  # answers of other faces that are tried
CLOSED: Final = (Status.ACCEPTED, Status.EDITED, Status.REJECTED)


def is_trap(pair_id: int) -> bool:
    """Whether what the desk knows under this id is a trap."""
    return pair_id > FIRST_ID


class TrapStore:
    """The door to them: `store.traps`."""

    def __init__(self, engine: Engine, view: "type[PairView]") -> None:
        """Use `store.traps`; `view` is what the store shows pairs as."""
        self._engine = engine
        self._view = view

    def share(self) -> float:
        """How many of what a reviewer is shown are traps: the project's share, or 0 for a lone researcher."""
        can_review = [role for role in Role if role.rank >= Role.REVIEWER.rank]
        query = select(func.count()).where(col(Reviewer.active), col(Reviewer.role).in_(can_review))
        with reading(self._engine) as session:
            return read_project(session).trap_share if session.exec(query).one() > ALONE else 0.0

    def mix(
        self, reviewer: str, views: "Sequence[PairView]", share: float, *, exclude: Collection[int] = ()
    ) -> "list[PairView]":
        """Open pairs that a reviewer is about to be shown, with the traps that are due among them.

        A trap looks like a pending pair of the same attribute, and of the same race, gender and age where all of the
        pairs share those. It cannot look like what a search or a run has found, so do not mix it into such queues.

        Args:
            reviewer: whose pairs they are.
            views: in the order in which they are shown.
            share: how many of what is shown are to be traps, 0 to 0.2; see `share`.
            exclude: ids that the page has already, of traps too.
        """
        places = trap_places(reviewer, views, share)
        if not places:
            return list(views)
        with writing(self._engine) as session:
            ids = {place: _trap_for(session, reviewer, views[due], views) for place, due in places.items()}
            wanted = {place: trap_id for place, trap_id in ids.items() if trap_id and trap_id not in exclude}
            traps = {view.pair.id: view for view in _views(session, self._view, wanted.values())}
        mixed: list[PairView] = []
        for place, view in enumerate(views):
            mixed += [traps[wanted[place]]] if place in wanted else []
            mixed.append(view)
        return mixed

    def views(self, ids: Collection[int]) -> "list[PairView]":
        """The traps of these ids as the reviewer whose they are sees them; other ids are left out."""
        with reading(self._engine) as session:
            return _views(session, self._view, ids)

    def is_for(self, reviewer: str, pair_id: int) -> bool:
        """Whether a reviewer may see it: every pair, and of the traps his own."""
        return not is_trap(pair_id) or pair_id in self.held(reviewer, [pair_id])

    def own_revisions(self, reviewer: str, ids: Collection[int]) -> dict[int, int]:
        """How many events each of these traps has had; see `Store.own_revisions`."""
        traps = [trap_id - FIRST_ID for trap_id in ids if is_trap(trap_id)]
        query = select(TrapAnswer.trap_id, func.count()).group_by(col(TrapAnswer.trap_id))
        with reading(self._engine) as session:
            found = session.exec(query.where(TrapAnswer.reviewer == reviewer, col(TrapAnswer.trap_id).in_(traps)))
            return {FIRST_ID + trap_id: count for trap_id, count in found}

    def history(self, reviewer: str, limit: int) -> list[Decision]:
        """The reviewer's standing decisions about traps, newest first, in the form of decisions about pairs."""
        newest = select(func.max(TrapAnswer.id)).where(TrapAnswer.reviewer == reviewer, *_stands())
        of_each = newest.group_by(col(TrapAnswer.trap_id))
        query = select(TrapAnswer).where(col(TrapAnswer.id).in_(of_each)).order_by(col(TrapAnswer.id).desc())
        with reading(self._engine) as session:
            return [_as_decision(row, 1) for row in session.exec(query.limit(limit)).all()]

    def held(self, reviewer: str, ids: Collection[int]) -> set[int]:
        """Those of these ids that are traps of the reviewer: they need no lease."""
        traps = [trap_id - FIRST_ID for trap_id in ids if is_trap(trap_id)]
        with reading(self._engine) as session:
            found = session.exec(select(Trap.id).where(Trap.reviewer == reviewer, col(Trap.id).in_(traps)))
            return {FIRST_ID + (trap_id or 0) for trap_id in found}


def trap_places(reviewer: str, views: "Sequence[PairView]", share: float) -> dict[int, int]:
    """Where traps go: place → the pair that made it due. Each stands before the pair of its place, no two in a row."""
    due = [place for place, view in enumerate(views) if _is_due(reviewer, view, share)]
    free = [place for place in range(1, len(views)) if views[place - 1].image.id != views[place].image.id]
    if not free:
        return {due[0]: due[0]} if due else {}
    places: dict[int, int] = {}
    for wanted in due:
        if left := [place for place in free if place not in places]:
            places[min(left, key=lambda place: abs(place - wanted))] = wanted
    return places


def _is_due(reviewer: str, view: "PairView", share: float) -> bool:
    """By a hash, so that gaps are at random and yet the same each time."""
    pair = view.pair
    if not pair.status.is_open or pair.attribute is None or view.flags:
        return False
    digest = hashlib.blake2b(f"trap\0{reviewer}\0{pair.id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share / (1 - share) * 2**64  # traps to pairs: the share is of both together


def _trap_for(session: Session, reviewer: str, view: "PairView", views: "Sequence[PairView]") -> int | None:
    """The id under which the trap is shown that is due before a pair, made if need be; None if it is decided."""
    pair = view.pair
    stored = session.exec(select(Trap).where(Trap.reviewer == reviewer, Trap.before_pair == pair.id)).first()
    if stored is None:
        made = _make(session, reviewer, view, views)
        if made is None:
            return None
        row = {"image_id": made.host.image_id, "attribute": made.host.attribute, "question": made.host.question}
        row |= {"answer": made.answer, "kind": made.kind.value, "made_from": made.made_from}
        stored = Trap.model_validate(row | {"reviewer": reviewer, "before_pair": pair.id})
        session.add(stored)
        session.flush()
    is_decided = session.exec(select(TrapAnswer.id).where(TrapAnswer.trap_id == stored.id, *_stands())).first()
    return None if is_decided else FIRST_ID + (stored.id or 0)


def _make(session: Session, reviewer: str, view: "PairView", views: "Sequence[PairView]") -> MadeTrap | None:
    """A new trap; the same reviewer and pair give the same one from the same data."""
    rng = random.Random(f"trap {reviewer} {view.pair.id}")
    others: list[Source] | None = None
    for host in _hosts(session, reviewer, view, views, rng):
        if others is None:
            query = select(Pair).where(Pair.attribute == view.pair.attribute, col(Pair.status).in_(CURATED))
            others = _sources(session, _drawn(session, query, OTHERS, rng))
        own = select(Pair).where(Pair.image_id == host.image_id, Pair.id != host.pair_id)
        around = _sources(session, session.exec(own.where(col(Pair.attribute).is_not(None))).all())
        if made := make_trap(host, others, rng.sample(around, len(around)), rng):
            return made
    return None


def _hosts(
    session: Session, reviewer: str, view: "PairView", views: "Sequence[PairView]", rng: random.Random
) -> Iterator[Source]:
    """Pairs whose image and question may be shown to the reviewer: best those that he will never get himself."""
    seen = select(Verdict.pair_id).where(Verdict.pair_id == Pair.id, Verdict.reviewer == reviewer).exists()
    held = select(Lease.pair_id).where(Lease.pair_id == Pair.id, Lease.reviewer == reviewer).exists()
    used = select(Trap.image_id).where(Trap.reviewer == reviewer)
    around = {each.pair.image_id for each in views}
    query = select(Pair).where(Pair.attribute == view.pair.attribute, ~seen, ~held)
    query = query.where(col(Pair.image_id).not_in(used), col(Pair.image_id).not_in(around))
    for name in GROUPS:
        if len(values := {getattr(each.pair, name) for each in views}) == 1:
            query = query.where(getattr(Pair, name) == values.pop())
    for statuses in (CURATED, CLOSED, (Status.PENDING,)):
        yield from _sources(session, _drawn(session, query.where(col(Pair.status).in_(statuses)), HOSTS, rng))


def _drawn(session: Session, query: Any, limit: int, rng: random.Random) -> list[Pair]:
    """Some pairs from a random place on, so that no more has to be read."""
    start = rng.randint(1, session.exec(select(func.max(Pair.id))).one() or 1)
    found = list(session.exec(query.where(col(Pair.id) >= start).order_by(col(Pair.id)).limit(limit)).all())
    if len(found) < limit:
        before = query.where(col(Pair.id) < start).order_by(col(Pair.id)).limit(limit - len(found))
        found += session.exec(before).all()
    return rng.sample(found, len(found))


def _sources(session: Session, pairs: Sequence[Pair]) -> list[Source]:
    labels = labels_of(session, {pair.image_id for pair in pairs})
    return [
        Source(pair.id or 0, pair.image_id, pair.attribute, pair.question, pair.stands, labels[pair.image_id])
        for pair in pairs
        if pair.attribute is not None
    ]


def append_answer(session: Session, reviewer: str, decision: DecisionInput) -> Decision:
    """Store what a reviewer decides about a trap of his; returned in the form of a decision about a pair.

    Raises:
        StaleError: he has decided about it meanwhile, or what is to be undone no longer stands.
        DataError: there is no such trap of his, or it shows another image than he saw.
    """
    trap_id = decision.pair_id - FIRST_ID
    events = session.exec(select(TrapAnswer).where(TrapAnswer.trap_id == trap_id).order_by(col(TrapAnswer.id))).all()
    for place, event in enumerate(events, 1):
        if event.uuid == str(decision.uuid):
            return _as_decision(event, place)
    seen = select(Image.sha256).join(Trap, col(Trap.image_id) == Image.id)
    if session.exec(seen.where(Trap.id == trap_id, Trap.reviewer == reviewer)).first() != decision.image_sha256:
        raise DataError("A decision was not stored: it is about a pair of another data set. Reload the page.")
    if len(events) != decision.revision:
        raise StaleError("A decision of yours was not stored: you have decided about its pair in another window.")
    stands = _standing(events)
    if decision.undoes is not None:
        if stands is None or stands.uuid != str(decision.undoes):
            raise StaleError("The decision to undo no longer stands: it was undone or replaced meanwhile.")
        stands.undone = True
        session.add(stands)
    fields = decision.model_dump(mode="json", exclude={"pair_id", "image_sha256", "others", "revision", "undoes"})
    event = TrapAnswer.model_validate(fields | {"trap_id": trap_id, "reviewer": reviewer})
    session.add(event)
    session.flush()
    return _as_decision(event, len(events) + 1)


def _stands() -> tuple[sa.ColumnElement[bool], ...]:
    return ~col(TrapAnswer.undone), col(TrapAnswer.action) != Action.UNDO


def _standing(events: Sequence[TrapAnswer]) -> TrapAnswer | None:
    """The newest that is no undo and not taken back; events oldest first."""
    return next((event for event in reversed(events) if not event.undone and event.action is not Action.UNDO), None)


def _as_decision(event: TrapAnswer, revision: int) -> Decision:
    fields = event.model_dump(exclude={"id", "trap_id", "undone"})
    return Decision.model_validate(fields | {"pair_id": FIRST_ID + event.trap_id, "revision": revision})


def _views(session: Session, view: "Callable[..., PairView]", ids: Collection[int]) -> "list[PairView]":
    """Traps as pairs, with the status that the decisions of the reviewer would have given them."""
    found = session.exec(
        select(Trap, Image, Pair)
        .join(Image, col(Image.id) == Trap.image_id)
        .join(Pair, col(Pair.id) == Trap.made_from)
        .where(col(Trap.id).in_([trap_id - FIRST_ID for trap_id in ids if is_trap(trap_id)]))
        .order_by(col(Trap.id))
    ).all()
    labels = labels_of(session, {trap.image_id for trap, _, _ in found})
    events: defaultdict[int, list[TrapAnswer]] = defaultdict(list)
    answers = select(TrapAnswer).where(col(TrapAnswer.trap_id).in_([trap.id for trap, _, _ in found]))
    for event in session.exec(answers.order_by(col(TrapAnswer.id))):
        events[event.trap_id].append(event)
    shown = []
    for trap, image, source in found:
        of = labels[trap.image_id]
        pair, verdicts = _as_pair(trap, source, of, events[trap.id or 0])
        shown.append(view(pair, image, of, verdicts, ()))
    return shown


def _as_pair(
    trap: Trap, source: Pair, labels: dict[str, str], events: Sequence[TrapAnswer]
) -> tuple[Pair, tuple[Verdict, ...]]:
    """A row of `pairs` that is never stored; where its answer comes from it takes what is not shown."""
    stands = _standing(events)
    groups = {name: labels.get(name, "") for name in GROUPS}
    fields = trap.model_dump(include={"image_id", "attribute", "question", "answer", "created_at"})
    fields |= source.model_dump(include={"teacher", "prompt_version", "parameters", "run_id", "shuffle"})
    shown_id = FIRST_ID + (trap.id or 0)
    fields |= groups | {"id": shown_id, "revision": len(events)}
    if stands is None:
        return Pair.model_validate(fields), ()
    fields |= {"status": STATUS_AFTER[stands.action], "verdicts": int(stands.action.is_verdict), "text": stands.text}
    verdict = stands.model_dump(include={"reviewer", "action", "reason", "text", "note", "created_at"})
    verdict |= {"pair_id": shown_id, "decision_uuid": stands.uuid, "revision": events.index(stands) + 1, "blind": True}
    return Pair.model_validate(fields), (Verdict.model_validate(verdict),)
