"""The rules of deciding: what stands of a reviewer's events, what all reviewers' verdicts add up to, what may be added.

The one surprising fact: an event that has been taken back stays taken back. A rejection that is given its reason
afterwards is a second rejection that takes the first one back; undoing it leaves the pair pending again.

What the verdicts add up to: a curator's settlement counts before all; a flag asks for one; else reviewers who differ
make a dispute, too few leave the pair pending, and enough that agree decide it. Nobody overwrites anybody.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from annotation.models import Action, Decision, DecisionInput, Image, Label, Pair, Status, Verdict
from facellm.errors import DataError, StaleError

STATUS_AFTER = {
    Action.ACCEPT: Status.ACCEPTED,
    Action.EDIT: Status.EDITED,
    Action.REJECT: Status.REJECTED,
    Action.SKIP: Status.SKIPPED,
    Action.FLAG: Status.FLAGGED,
}
STANDING_FIELDS = ("revision", "action", "reason", "text", "note", "settles", "blind", "created_at")


class Opinion(Protocol):
    """What stands of one reviewer: a row of `decisions` or of `verdicts`."""

    action: Action
    text: str | None
    settles: bool
    revision: int


@dataclass(frozen=True)
class Outcome:
    """What all that stands about a pair adds up to."""

    status: Status
    verdicts: int  # of how many reviewers
    text: str | None  # the edited answer that stands; None: the draft does


def standing(events: Sequence[Decision]) -> Decision | None:
    """The decision that counts among one reviewer's events about one pair, oldest first; None when nothing stands."""
    taken_back = {event.undoes for event in events}
    return next(
        (event for event in reversed(events) if event.action is not Action.UNDO and event.uuid not in taken_back), None
    )


def outcome(opinions: Collection[Opinion], overlap: int) -> Outcome:
    """What the standing decisions of all reviewers add up to; see the top of this module."""
    verdicts = [opinion for opinion in opinions if opinion.action.is_verdict]
    settling = [opinion for opinion in verdicts if opinion.settles]
    if settling:
        settled = max(settling, key=lambda opinion: opinion.revision)
        return Outcome(STATUS_AFTER[settled.action], len(verdicts), settled.text)
    if any(opinion.action is Action.FLAG for opinion in opinions):
        return Outcome(Status.FLAGGED, len(verdicts), None)
    if len({(opinion.action, opinion.text) for opinion in verdicts}) > 1:
        return Outcome(Status.DISPUTED, len(verdicts), None)
    if verdicts and len(verdicts) >= overlap:
        return Outcome(STATUS_AFTER[verdicts[0].action], len(verdicts), verdicts[0].text)
    status = Status.SKIPPED if opinions and not verdicts else Status.PENDING
    return Outcome(status, len(verdicts), None)


def replay(events: Sequence[Decision], overlap: int = 1) -> Outcome:
    """What all events of one pair, oldest first, add up to."""
    return outcome(standing_of_each(events).values(), overlap)


def standing_of_each(events: Iterable[Decision]) -> dict[str, Decision]:
    """What stands of each reviewer, of all events of one pair, oldest first; who has nothing standing is left out."""
    by_reviewer: defaultdict[str, list[Decision]] = defaultdict(list)
    for event in events:
        by_reviewer[event.reviewer].append(event)
    return {name: stands for name, own in by_reviewer.items() if (stands := standing(own))}


def still_stands() -> sa.ColumnElement[bool]:
    """The condition under which a row of `decisions` is neither an undo nor taken back, so that it can be undone."""
    taking_back = aliased(Decision)
    taken_back = select(taking_back.id).where(taking_back.undoes == Decision.uuid).exists()
    of_it = (Verdict.pair_id == Decision.pair_id, Verdict.reviewer == Decision.reviewer)  # its primary key
    is_last = select(Verdict.pair_id).where(*of_it, Verdict.decision_uuid == Decision.uuid).exists()
    return sa.and_(col(Decision.action) != Action.UNDO, ~taken_back, is_last)


def events_of(session: Session, pair_ids: Iterable[int]) -> Mapping[int, list[Decision]]:
    """All events of each of these pairs, oldest first."""
    events: defaultdict[int, list[Decision]] = defaultdict(list)
    query = select(Decision).where(col(Decision.pair_id).in_(list(pair_ids))).order_by(col(Decision.id))
    for event in session.exec(query):
        events[event.pair_id].append(event)
    return events


def verdicts_of(session: Session, pair_ids: Iterable[int]) -> Mapping[int, list[Verdict]]:
    """What stands of every reviewer about each of these pairs, oldest first."""
    found: defaultdict[int, list[Verdict]] = defaultdict(list)
    query = select(Verdict).where(col(Verdict.pair_id).in_(list(pair_ids)))
    for verdict in session.exec(query.order_by(col(Verdict.revision))):
        found[verdict.pair_id].append(verdict)
    return found


def labels_of(session: Session, image_ids: Iterable[int]) -> Mapping[int, dict[str, str]]:
    """The labels of each of these images: name → value, in the order in which they came."""
    labels: defaultdict[int, dict[str, str]] = defaultdict(dict)
    query = select(Label.image_id, Label.name, Label.value).where(col(Label.image_id).in_(list(image_ids)))
    for image_id, name, value in session.exec(query.order_by(col(Label.id))):
        labels[image_id][name] = value
    return labels


def append_decision(session: Session, reviewer: str, decision: DecisionInput, *, may_settle: bool = False) -> Decision:
    """Add an event and set the pair's status to what its events then add up to, or raise and change nothing.

    Args:
        session: one that writes.
        reviewer: whose decision it is.
        decision: about the pair as his page has shown it.
        may_settle: whether his is the last word about what others have closed, flagged or disagree about.

    Raises:
        StaleError: the pair has changed since the reviewer saw it, or what is to be undone no longer stands.
        DataError: there is no such pair, or it belongs to another image than the reviewer saw.
    """
    pair = _pair_seen(session, decision)
    events = events_of(session, [decision.pair_id])[decision.pair_id]
    own = [event for event in events if event.reviewer == reviewer]
    theirs = [
        verdict
        for verdict in verdicts_of(session, [decision.pair_id])[decision.pair_id]
        if verdict.reviewer != reviewer
    ]
    _check_seen(pair, decision, own, events, theirs)
    _check_undoes(events, reviewer, decision, standing(own))
    saw_theirs = decision.others is not None  # a curator who reviews blind, as anybody does, settles nothing
    settles = may_settle and saw_theirs and decision.action.is_verdict and bool(theirs) and not pair.status.is_open
    if any(verdict.settles for verdict in theirs) and not settles and decision.action.is_verdict:
        raise StaleError(f"{_settled_by(theirs)} has settled this pair: only a curator can decide otherwise.")
    fields = decision.model_dump(mode="json", exclude={"image_sha256", "others"})
    event = Decision.model_validate(
        fields
        | {"reviewer": reviewer, "revision": pair.revision + 1, "settles": settles, "blind": decision.others is None}
    )
    session.add(event)
    session.flush()
    put_verdict(session, reviewer, decision.pair_id, standing([*own, event]))
    derive(session, pair)
    return event


def put_verdict(session: Session, reviewer: str, pair_id: int, stands: Decision | None) -> None:
    """Make the row of `verdicts` be what stands of a reviewer about a pair."""
    row = session.get(Verdict, (pair_id, reviewer))
    if row is not None:
        session.delete(row)
        session.flush()
    if stands is not None:
        fields = {name: getattr(stands, name) for name in STANDING_FIELDS}
        session.add(
            Verdict.model_validate(fields | {"pair_id": pair_id, "reviewer": reviewer, "decision_uuid": stands.uuid})
        )
    session.flush()


def derive(session: Session, pair: Pair, *, events: int = 1) -> None:
    """Set what is derived of a pair: after `events` more decisions, or after its overlap was changed (0)."""
    now = outcome(verdicts_of(session, [pair.id or 0])[pair.id or 0], pair.overlap)
    pair.status, pair.verdicts, pair.text = now.status, now.verdicts, now.text
    pair.revision += events
    session.add(pair)
    session.flush()


def _pair_seen(session: Session, decision: DecisionInput) -> Pair:
    row = session.exec(
        select(Pair, Image.sha256).join(Image, col(Pair.image_id) == Image.id).where(Pair.id == decision.pair_id)
    ).first()
    if row is None or row[1] != decision.image_sha256:
        raise DataError("A decision was not stored: it is about a pair of another data set. Reload the page.")
    return row[0]


def _check_seen(
    pair: Pair, decision: DecisionInput, own: Sequence[Decision], events: Sequence[Decision], theirs: Sequence[Verdict]
) -> None:
    """Whether the page showed the pair as it is now; what others do about an open pair is none of its business."""
    if len(own) != decision.revision:
        raise StaleError("A decision of yours was not stored: you have decided about its pair in another window.")
    if decision.others is None:
        stale = decision.action is not Action.UNDO and not outcome(theirs, pair.overlap).status.is_open
    else:
        stale = decision.others != len(events) - len(own)
    if stale:
        if pair.status.is_open:
            raise StaleError("A decision of yours was not stored: its pair is open again. Look at it once more.")
        by = " and ".join(verdict.reviewer for verdict in theirs) or "others"
        raise StaleError(
            f"A decision of yours was not stored: its pair is {pair.status.value} by {by} since you saw it."
        )


def _check_undoes(events: Sequence[Decision], reviewer: str, decision: DecisionInput, stands: Decision | None) -> None:
    if decision.undoes is None:
        return
    undone = next((event for event in events if event.uuid == str(decision.undoes)), None)
    if undone is not None and undone.reviewer != reviewer:
        raise StaleError(f"That decision is {undone.reviewer}'s; only {undone.reviewer} can undo it.")
    if stands is None or undone is None or stands.uuid != undone.uuid:
        raise StaleError("The decision to undo no longer stands: it was undone or replaced meanwhile.")


def _settled_by(verdicts: Sequence[Verdict]) -> str:
    return next(verdict.reviewer for verdict in reversed(verdicts) if verdict.settles)
