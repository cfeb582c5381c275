"""What the desk is sent about pairs, events and refusals, as JSON objects.

    pair_for_desk(view, reviewer="ana", own=1, others=0)

The one surprising fact: two people are sent different things about one pair. While it is open each sees the draft and
what he himself said about it, and nothing of anybody else's: neither names nor a status nor a number.
"""

from collections.abc import Sequence
from typing import Any, Final

from annotation.decisions import STATUS_AFTER
from annotation.models import FREE_QUESTION, Decision, Flag, Status, Verdict
from annotation.store import PairView

_VERDICT_FIELDS: Final = {"reviewer", "action", "reason", "text", "note", "settles", "created_at"}
_EVENT_FIELDS: Final = {"uuid", "reviewer", "action", "reason", "text", "note", "settles", "undoes", "created_at"}
_FLAG_FIELDS: Final = {"check", "severity", "message", "span_start", "span_end"}


def pair_for_desk(view: PairView, reviewer: str, own: int) -> dict[str, Any]:
    """The pair as this reviewer may see it.

    Args:
        view: the pair as it is.
        reviewer: who looks.
        own: how many events about it are his.
    """
    pair = view.pair
    return {
        "id": pair.id,
        "image": view.image.sha256,
        "attribute": pair.attribute or FREE_QUESTION,
        "topic": pair.attribute.topic if pair.attribute else FREE_QUESTION,
        "question": pair.question,
        "draft": pair.answer,
        "labels": view.labels,
        "suspicion": view.suspicion,
        "revision": own,
        **(_blind(view, reviewer) if pair.status.is_open else _seen(view, reviewer, own)),
    }


def _blind(view: PairView, reviewer: str) -> dict[str, Any]:
    """Of an open pair: the draft, and what the reviewer himself has said."""
    mine = _of(view, reviewer)
    text = mine.text if mine else None
    return {
        "status": STATUS_AFTER[mine.action] if mine else Status.PENDING,
        "mine": mine and _verdict(mine),
        "others": None,
        "answer": view.pair.answer if text is None else text,
        "flags": [_flag(flag, without_span=text is not None) for flag in view.flags],
        "decided": "",
        "verdicts": [],
    }


def _seen(view: PairView, reviewer: str, own: int) -> dict[str, Any]:
    """Of a closed one: what everybody has said, and what it came to."""
    mine = _of(view, reviewer)
    return {
        "status": view.pair.status,
        "mine": mine and _verdict(mine),
        "others": view.pair.revision - own,
        "answer": view.answer,
        "flags": [_flag(flag) for flag in view.flags],
        "decided": _decided(view),
        "verdicts": [_verdict(verdict) for verdict in view.verdicts],
    }


def _of(view: PairView, reviewer: str) -> Verdict | None:
    return next((verdict for verdict in view.verdicts if verdict.reviewer == reviewer), None)


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return verdict.model_dump(mode="json", include=_VERDICT_FIELDS)


def _flag(flag: Flag, *, without_span: bool = False) -> dict[str, Any]:
    """The span is in characters as Python counts them; the desk counts alike, by code points."""
    told = flag.model_dump(mode="json", include=_FLAG_FIELDS)
    return told | {"span_start": None, "span_end": None} if without_span else told


def _decided(view: PairView) -> str:
    """By whom and why, such as `by demo: contradicts image`."""
    if view.decision is None:
        return ""
    if view.pair.status in (Status.DISPUTED, Status.FLAGGED):
        return "by " + " and ".join(verdict.reviewer for verdict in view.verdicts if _counts(view, verdict))
    reason = f": {view.decision.reason.value}" if view.decision.reason else ""
    return f"by {view.decision.reviewer}{reason}"


def _counts(view: PairView, verdict: Verdict) -> bool:
    """Whether a verdict has made the pair what it is: those who differ, or those who have flagged it."""
    return verdict.action.is_verdict if view.pair.status is Status.DISPUTED else verdict.action.value == "flag"


def event_for_desk(event: Decision) -> dict[str, Any]:
    """One line of a pair's history."""
    return event.model_dump(mode="json", include=_EVENT_FIELDS)


def own_decision(event: Decision) -> dict[str, Any]:
    """One of the reviewer's own decisions, by which he finds its pair again, or takes it back."""
    return {
        "uuid": event.uuid,
        "pairId": event.pair_id,
        "lot": event.lot,
        "action": event.action,
        "reason": event.reason,
        "at": event.created_at.isoformat(),
    }


def what_stands(view: PairView, reviewer: str, own: int) -> dict[str, Any]:
    """What a refused decision is compared with."""
    shown = pair_for_desk(view, reviewer, own)
    return {"status": shown["status"], "by": shown["decided"], "text": shown["answer"], "answer": shown["draft"]}


def pictures_wanted(views: Sequence[PairView], known: Sequence[str]) -> dict[str, str]:
    """The pictures that the desk does not have yet: SHA-256 → path below the data directory."""
    has = set(known)
    return {view.image.sha256: view.image.path for view in views if view.image.sha256 not in has}
