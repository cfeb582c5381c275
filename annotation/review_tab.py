"""The Review tab: one desk for deciding about pairs, a key for each decision.

The desk is a single `gr.HTML` whose scripts lease pairs ahead and keep decisions until they are stored, because a
Gradio event for each key would cost three times as long. The surprising fact: to the script, a server function that
raises looks as if it had returned nothing, and it tries again; so what can never succeed must be answered, not raised.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from annotation.accounts.identity import Identity, Who, refusal
from annotation.desk.guidelines import render_guidelines
from annotation.desk.payloads import event_for_desk, own_decision, pair_for_desk, pictures_wanted, what_stands
from annotation.images import data_url
from annotation.models import FREE_QUESTION, Action, DecisionInput, Reason, Role, Status
from annotation.pair_filter import PairFilter
from annotation.review_queue import Order
from annotation.store import PairView, Store
from facellm.data import Attribute
from facellm.errors import DataError, FaceLLMError, StaleError, UnavailableError

DESK = Path(__file__).resolve().parent / "desk"
SCRIPTS = ("outbox", "word_diff", "zoom", "view", "verdicts", "filters", "queue", "grid", "panels", "desk")
STYLES = ("desk", "bar", "pair", "grid", "panels", "phone")
DECIDE = "decide about pairs"  # goes on from "Only a reviewer can"
MOST_AT_ONCE = 100
ASKS_A_CURATOR = {Status.FLAGGED, Status.DISPUTED}

ServerFunction = Callable[..., dict[str, Any]]


class QueueRequest(BaseModel):
    """What the desk asks for when it fetches ahead."""

    model_config = ConfigDict(extra="forbid")

    filter: dict[str, Any]
    order: Order
    holder: str = Field(min_length=1, max_length=36)  # which window asks
    exclude: list[int] = Field(max_length=20_000)
    limit: int = Field(ge=1, le=MOST_AT_ONCE)
    known: list[str] = Field(max_length=1000)


def build_review_tab(store: Store, who: Who) -> None:
    """Build the desk inside an open tab.

    Args:
        store: where pairs come from and decisions go.
        who: tells who is asking, of a request.
    """
    gr.HTML(
        html_template=_asset("desk.html"),
        css_template="\n".join(_asset(f"{name}.css") for name in STYLES),
        js_on_load="\n".join(_asset(f"{name}.js") for name in SCRIPTS),
        server_functions=[
            *_about_queue(store, who),
            *_about_pairs(store, who),
            *_about_decisions(store, who),
            *_about_project(store, who),
        ],
        apply_default_css=False,
        elem_id="review-desk",
        attributes=[*((attribute.value, attribute.topic) for attribute in Attribute), (FREE_QUESTION, FREE_QUESTION)],
        statuses=[status.value for status in Status],
        orders=[order.value for order in Order],
        reasons=[reason.value for reason in Reason],
    )


def _asset(name: str) -> str:
    return (DESK / name).read_text(encoding="utf-8")


# What the scripts call as server.NAME({...}); each takes one JSON object and returns one.


def _about_queue(store: Store, who: Who) -> list[ServerFunction]:
    """Pairs to decide about or to look at, and the leases of them."""

    def claim(request: dict[str, Any], page: gr.Request) -> dict[str, Any]:
        identity = who(page)
        try:
            wanted = QueueRequest.model_validate(request)
            views = _next_pairs(store, identity, wanted, PairFilter.read(wanted.filter))
        except (ValidationError, FaceLLMError) as error:
            return {"error": str(error), "pairs": [], "images": {}, "ends": not isinstance(error, UnavailableError)}
        ends = len(views) < wanted.limit
        return _pairs_reply(store, identity, views, wanted.known) | {"ends": ends}

    def renew(request: dict[str, Any], page: gr.Request) -> dict[str, Any]:
        held = store.renew(who(page).name, str(request["holder"]), _ids(request))
        return {"held": sorted(held)}

    def release(request: dict[str, Any], page: gr.Request) -> dict[str, Any]:
        store.release(who(page).name, str(request["holder"]), _ids(request) if "ids" in request else None)
        return {"ok": True}

    def leave(request: dict[str, Any], page: gr.Request) -> dict[str, Any]:
        store.leave(who(page).name, str(request["holder"]))
        return {"ok": True}

    def facets(request: dict[str, Any], page: gr.Request) -> dict[str, Any]:
        try:
            which, name = PairFilter.read(request["filter"]), who(page).name
            found = dict(store.facets(which))
        except FaceLLMError as error:
            return {"error": str(error)}
        if which.reviewer not in (None, name):
            found["status"] = {status: n for status, n in found["status"].items() if not Status(status).is_open}
        if _shows_open(which):  # who else has decided about an open pair is not shown, not even as a number
            found["reviewer"] = {name: found["reviewer"][name]} if name in found["reviewer"] else {}
        return found

    return [claim, renew, release, leave, facets]


def _next_pairs(store: Store, identity: Identity, wanted: QueueRequest, which: PairFilter) -> list[PairView]:
    """Leased, where they are open and the person may decide; else only shown."""
    if _shows_open(which) and which.reviewer not in (None, identity.name):
        raise DataError("Whether somebody else has decided about an open pair is not shown. Choose another status.")
    if ASKS_A_CURATOR & set(which.status) and not identity.may(Role.CURATOR):
        which = which.model_copy(
            update={"reviewer": identity.name}
        )  # what others say of a pair is not for who comes next
    if which.status != (Status.PENDING,) or not identity.may(Role.REVIEWER):
        return store.browse(which, wanted.order, exclude=wanted.exclude, limit=wanted.limit)
    which = which.model_copy(update={"status": ()})  # what others have skipped is open, too
    views = store.claim(identity.name, wanted.holder, which, wanted.order, exclude=wanted.exclude, limit=wanted.limit)
    if which.text or which.run or which.flag:
        return views  # a known-bad pair has none of these, and would be told by it
    return store.traps.mix(identity.name, views, store.traps.share(), exclude=wanted.exclude)


def _shows_open(which: PairFilter) -> bool:
    return any(status.is_open for status in which.status or Status)


def _about_pairs(store: Store, who: Who) -> list[ServerFunction]:
    """Pairs that were seen before, what was decided, and what happened to a pair."""

    def recall(request: dict[str, Any], page: gr.Request) -> dict[str, Any]:
        name = who(page).name
        seen = (view for view in store.pairs(_ids(request)) if store.traps.is_for(name, view.pair.id or 0))
        by_id = {view.pair.id: view for view in seen}
        views = [by_id[pair_id] for pair_id in _ids(request) if pair_id in by_id]
        return _pairs_reply(store, who(page), views, request["known"])

    def history(_request: dict[str, Any], page: gr.Request) -> dict[str, Any]:
        newest_first = store.history(who(page).name)
        return {"decisions": [own_decision(event) for event in reversed(newest_first)]}

    def pair_events(request: dict[str, Any], page: gr.Request) -> dict[str, Any]:
        """All that was decided about a pair; of an open one only what the person has decided himself."""
        found = store.events(int(request["id"]))
        if any(view.pair.status.is_open for view in store.pairs([int(request["id"])])):
            found = [event for event in found if event.reviewer == who(page).name]
        return {"events": [event_for_desk(event) for event in found]}

    return [recall, history, pair_events]


def _about_decisions(store: Store, who: Who) -> list[ServerFunction]:
    """Decisions. Each is answered by `ok`, by `refused`, or by `waits` while its reviewer is not the one signed in."""

    def decide(request: dict[str, Any], page: gr.Request) -> dict[str, Any]:
        identity, sent = who(page), dict(request)
        if waits := _waits(identity, sent.pop("as", identity.name)):
            return {"waits": sent.get("uuid"), "message": waits}
        try:
            decision = DecisionInput.model_validate(sent)
            event = store.decide(identity.name, decision, may_settle=identity.may(Role.CURATOR))
        except UnavailableError as error:
            return {"waits": sent.get("uuid"), "message": str(error)}
        except (ValidationError, FaceLLMError) as error:
            return _refused(store, identity, str(sent.get("uuid")), sent.get("pair_id"), error)
        return {"ok": event.uuid, "pair_id": event.pair_id} | _what_is_new(store, identity, event.pair_id, decision)

    def decide_lot(request: dict[str, Any], page: gr.Request) -> dict[str, Any]:
        """All or none; a refusal names the pair that it is about, so that the desk can send the others."""
        identity = who(page)
        lot = str(request.get("lot"))
        if waits := _waits(identity, request.get("as", identity.name)):
            return {"waits": lot, "message": waits}
        try:
            decisions = [DecisionInput.model_validate(sent) for sent in request["decisions"]]
            events = store.decide_lot(identity.name, decisions, may_settle=identity.may(Role.CURATOR))
        except UnavailableError as error:
            return {"waits": lot, "message": str(error)}
        except (ValidationError, FaceLLMError) as error:
            pair_id = error.pair_id if isinstance(error, StaleError) else None
            return _refused(store, identity, lot, pair_id, error)
        return {"ok": lot, "replies": [{"ok": event.uuid, "pair_id": event.pair_id} for event in events]}

    return [decide, decide_lot]


def _waits(identity: Identity, meant: str) -> str:
    """Why a decision can be stored only later, so that the browser has to keep it; empty where it can now."""
    if identity.name == meant:
        return refusal(identity, Role.REVIEWER, DECIDE)
    if not identity.name:
        return f"You are signed out. Sign in again as {meant}."
    return f"You are signed in as {identity.name} now, and these decisions are {meant}'s. Sign in as {meant}."


def _what_is_new(store: Store, identity: Identity, pair_id: int, decision: DecisionInput) -> dict[str, Any]:
    """What the page cannot know by itself: the flags of a new text, and what stands after an undo."""
    if decision.action not in (Action.EDIT, Action.UNDO):
        return {}
    (view,) = store.pairs([pair_id])
    return {"pair": pair_for_desk(view, identity.name, store.own_revisions(identity.name, [pair_id])[pair_id])}


def _refused(
    store: Store, identity: Identity, uuid: str, pair_id: Any, error: ValidationError | FaceLLMError
) -> dict[str, Any]:
    """An answer that makes the desk take the decision back and show what stands instead."""
    message = str(error)
    if isinstance(error, ValidationError):
        message = f"A decision could not be stored: {error.errors()[0]['msg']}."
    reply = {"refused": uuid, "message": message, "pair_id": pair_id}
    views = store.pairs([pair_id]) if isinstance(error, StaleError) and isinstance(pair_id, int) else []
    if not views:
        return reply
    own = store.own_revisions(identity.name, [pair_id]).get(pair_id, 0)
    return reply | {"stale": what_stands(views[0], identity.name, own)}


def _about_project(store: Store, who: Who) -> list[ServerFunction]:
    """Who is asking, and the guidelines."""

    def me(_request: dict[str, Any], page: gr.Request) -> dict[str, Any]:
        identity = who(page)
        return {
            "name": identity.name,
            "can_decide": identity.may(Role.REVIEWER),
            "can_settle": identity.may(Role.CURATOR),
            "why_not": refusal(identity, Role.REVIEWER, DECIDE),
            "overlap": store.project.read().overlap,
        }

    def guidelines(request: dict[str, Any], _page: gr.Request) -> dict[str, Any]:
        """As they are stored, or of a text that is being written."""
        text = request.get("text")
        text = store.project.read().guidelines if text is None else str(text)
        return {"text": text, "html": render_guidelines(text)}

    def save_guidelines(request: dict[str, Any], page: gr.Request) -> dict[str, Any]:
        identity, text = who(page), str(request["text"])
        if why := refusal(identity, Role.CURATOR, "change the guidelines"):
            return {"error": why}
        try:
            store.project.set_guidelines(identity.name, text)
        except FaceLLMError as error:
            return {"error": str(error)}
        return {"text": text, "html": render_guidelines(text)}

    return [me, guidelines, save_guidelines]


def _ids(request: dict[str, Any]) -> list[int]:
    return [int(pair_id) for pair_id in request["ids"] if 0 < int(pair_id) < 2**31][:1000]  # as ids are stored


def _pairs_reply(store: Store, identity: Identity, views: Sequence[PairView], known: Sequence[str]) -> dict[str, Any]:
    """Pairs for the desk, with the pictures that it does not have yet."""
    own = store.own_revisions(identity.name, [view.pair.id or 0 for view in views])
    return {
        "pairs": [pair_for_desk(view, identity.name, own.get(view.pair.id or 0, 0)) for view in views],
        "images": {sha256: data_url(store.data_dir / path) for sha256, path in pictures_wanted(views, known).items()},
    }
