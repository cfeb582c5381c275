"""The rules of deciding: which event about a pair stands, what its status is, and what may be added.

The one surprising fact: an event that has been taken back stays taken back. A rejection that is given its reason
afterwards is a second rejection that takes the first one back; undoing it leaves the pair pending again.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select, update

from annotation.models import Action, Decision, DecisionInput, Image, Label, Pair, Status
from facellm.errors import DataError, StaleError

STATUS_AFTER = {
    Action.ACCEPT: Status.ACCEPTED,
    Action.EDIT: Status.EDITED,
    Action.REJECT: Status.REJECTED,
    Action.SKIP: Status.SKIPPED,
}


def standing(events: Sequence[Decision]) -> Decision | None:
    """The decision that counts among all events of one pair, oldest first; None when nothing stands."""
    taken_back = {event.undoes for event in events}
    return next(
        (event for event in reversed(events) if event.action is not Action.UNDO and event.uuid not in taken_back), None
    )


def replay(events: Sequence[Decision]) -> Status:
    """The status that all events of one pair, oldest first, add up to."""
    decision = standing(events)
    return Status.PENDING if decision is None else STATUS_AFTER[decision.action]


def still_stands() -> sa.ColumnElement[bool]:
    """The condition under which a row of `decisions` is the one that `standing` picks for its pair."""
    later = aliased(Decision)
    is_last = ~(
        select(later.id)
        .where(later.pair_id == Decision.pair_id, col(later.id) > col(Decision.id), _counts(later))
        .exists()
    )
    return sa.and_(_counts(Decision), is_last)


def _counts(decision: Any) -> sa.ColumnElement[bool]:
    """Not an undo, and not taken back."""
    taking_back = aliased(Decision)
    taken_back = select(taking_back.id).where(taking_back.undoes == decision.uuid).exists()
    return sa.and_(decision.action != Action.UNDO, ~taken_back)


def events_of(session: Session, pair_ids: Iterable[int]) -> Mapping[int, list[Decision]]:
    """All events of each of these pairs, oldest first."""
    events: defaultdict[int, list[Decision]] = defaultdict(list)
    query = select(Decision).where(col(Decision.pair_id).in_(list(pair_ids))).order_by(col(Decision.id))
    for event in session.exec(query):
        events[event.pair_id].append(event)
    return events


def labels_of(session: Session, image_ids: Iterable[int]) -> Mapping[int, dict[str, str]]:
    """The labels of each of these images: name → value, in the order in which they came."""
    labels: defaultdict[int, dict[str, str]] = defaultdict(dict)
    query = select(Label).where(col(Label.image_id).in_(list(image_ids))).order_by(col(Label.id))
    for label in session.exec(query):
        labels[label.image_id][label.name] = label.value
    return labels


def append_decision(session: Session, reviewer: str, decision: DecisionInput) -> Decision:
    """Add an event and set the pair's status to what its events then add up to, or raise and change nothing.

    Raises:
        StaleError: the pair has changed since the reviewer saw it, or what is to be undone no longer stands.
        DataError: there is no such pair, or it belongs to another image than the reviewer saw.
    """
    pair = _pair_seen(session, decision)
    events = events_of(session, [decision.pair_id])[decision.pair_id]
    if decision.undoes is not None:
        _check_undoes(reviewer, str(decision.undoes), standing(events))
    fields = decision.model_dump(mode="json", exclude={"image_sha256"})
    event = Decision.model_validate(fields | {"reviewer": reviewer, "revision": decision.revision + 1})
    changed = session.exec(
        update(Pair)
        .where(col(Pair.id) == decision.pair_id, col(Pair.revision) == decision.revision)
        .values(status=replay([*events, event]), revision=event.revision)
    )
    if changed.rowcount != 1:
        raise StaleError(_stale_message(pair, standing(events)))
    session.add(event)
    return event


def _pair_seen(session: Session, decision: DecisionInput) -> Pair:
    row = session.exec(
        select(Pair, Image.sha256).join(Image, col(Pair.image_id) == Image.id).where(Pair.id == decision.pair_id)
    ).first()
    if row is None or row[1] != decision.image_sha256:
        raise DataError("A decision was not stored: it is about a pair of another data set. Reload the page.")
    return row[0]


def _check_undoes(reviewer: str, undoes: str, stands: Decision | None) -> None:
    if stands is None or stands.uuid != undoes:
        raise StaleError("The decision to undo no longer stands: it was undone or replaced meanwhile.")
    if stands.reviewer != reviewer:
        raise StaleError(f"That decision is {stands.reviewer}'s; only {stands.reviewer} can undo it.")


def _stale_message(pair: Pair, stands: Decision | None) -> str:
    by = f" by {stands.reviewer}" if stands else ""
    return f"A decision of yours was not stored: its pair is {pair.status.value}{by} since you saw it."
