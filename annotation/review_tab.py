"""The Review tab: one desk for deciding about pairs, a key for each decision.

The desk is a single `gr.HTML` whose script fetches pairs ahead and keeps decisions until they are stored, because a
Gradio event for each key would cost three times as long. The surprising fact: to the script, a server function that
raises looks as if it had returned nothing, and it tries again; so what can never succeed must be answered, not raised.
"""

import base64
import mimetypes
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from annotation.models import FREE_QUESTION, DecisionInput, Flag, Reason, Status
from annotation.review_queue import Order
from annotation.store import PairView, Store
from facellm.data import Attribute
from facellm.errors import FaceLLMError

HERE = Path(__file__).resolve().parent
SCRIPTS = ("review_outbox.js", "review_view.js", "review_desk.js")


class QueueRequest(BaseModel):
    """What the desk asks for when it fetches ahead."""

    model_config = ConfigDict(extra="forbid")

    attribute: Attribute | Literal["free question"] | None
    status: Status
    order: Order
    after: int = Field(ge=0)
    below: int | None = Field(ge=0)
    exclude: list[int] = Field(max_length=5000)
    limit: int = Field(ge=1, le=100)
    known: list[str]


def build_review_tab(store: Store, reviewer: str) -> None:
    """Build the desk inside an open tab.

    Args:
        store: where pairs come from and decisions go.
        reviewer: the name under which decisions are stored.
    """
    gr.HTML(
        html_template=_asset("review_desk.html"),
        css_template=_asset("review_desk.css"),
        js_on_load="\n".join(_asset(script) for script in SCRIPTS),
        server_functions=_server_functions(store, reviewer),
        apply_default_css=False,
        elem_id="review-desk",
        reviewer=reviewer,
        attributes=[*((attribute.value, attribute.topic) for attribute in Attribute), (FREE_QUESTION, FREE_QUESTION)],
        statuses=[status.value for status in Status],
        orders=[order.value for order in Order],
        reasons=[reason.value for reason in Reason],
    )


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _server_functions(store: Store, reviewer: str) -> list[Callable[[dict[str, Any]], dict[str, Any]]]:
    """What the script calls as server.NAME({...}); each takes and returns one JSON object."""

    def next_pairs(request: dict[str, Any]) -> dict[str, Any]:
        wanted = QueueRequest.model_validate(request | {"attribute": request["attribute"] or None})
        views = store.queue(**wanted.model_dump(exclude={"known"}))
        return _pairs_reply(store, reviewer, views, wanted.known) | {"counts": _counts_for_desk(store)}

    def recall(request: dict[str, Any]) -> dict[str, Any]:
        return _pairs_reply(store, reviewer, store.pairs(map(int, request["ids"])), request["known"])

    def history(_request: dict[str, Any]) -> dict[str, Any]:
        newest_first = store.history(reviewer)
        return {"decisions": [{"uuid": event.uuid, "pairId": event.pair_id} for event in reversed(newest_first)]}

    def decide(request: dict[str, Any]) -> dict[str, Any]:
        try:
            event = store.decide(reviewer, DecisionInput.model_validate(request))
        except ValidationError as error:
            return _refusal(store, request, f"A decision could not be stored: {error.errors()[0]['msg']}.")
        except FaceLLMError as error:
            return _refusal(store, request, str(error))
        (view,) = store.pairs([event.pair_id])
        return {
            "ok": event.uuid,
            "pair_id": event.pair_id,
            "revision": store.own_revisions(reviewer, [event.pair_id])[event.pair_id],
            "status": view.pair.status,
            "answer": view.answer,
            "flags": [_flag_for_desk(flag) for flag in view.flags],
        }

    return [next_pairs, recall, history, decide]


def _refusal(store: Store, request: dict[str, Any], message: str) -> dict[str, Any]:
    """An answer that makes the desk drop the decision and say why."""
    return {"refused": request.get("uuid"), "message": message, "counts": _counts_for_desk(store)}


def _counts_for_desk(store: Store) -> dict[str, dict[str, dict[Status, int]]]:
    """Of all pairs, and of those with a flag: attribute → status → number."""
    both = {"all": store.counts(), "flagged": store.counts(flagged=True)}
    return {
        which: {attribute or FREE_QUESTION: of for attribute, of in counts.items()} for which, counts in both.items()
    }


def _pairs_reply(store: Store, reviewer: str, views: list[PairView], known: Iterable[str]) -> dict[str, Any]:
    """Pairs for the desk, with the pictures that it does not have yet."""
    missing = {view.image.sha256: view.image.path for view in views}
    for sha256 in known:
        missing.pop(sha256, None)
    own = store.own_revisions(reviewer, [view.pair.id or 0 for view in views])
    return {
        "pairs": [_pair_for_desk(view, own.get(view.pair.id or 0, 0)) for view in views],
        "images": {sha256: _data_url(store.data_dir / path) for sha256, path in missing.items()},
    }


def _pair_for_desk(view: PairView, own: int) -> dict[str, Any]:
    """The pair as the desk shows it; `own` is how many decisions of the reviewer's it has had."""
    return {
        "id": view.pair.id,
        "image": view.image.sha256,
        "attribute": view.pair.attribute or FREE_QUESTION,
        "topic": view.pair.attribute.topic if view.pair.attribute else FREE_QUESTION,
        "question": view.pair.question,
        "answer": view.answer,
        "status": view.pair.status,
        "revision": own,
        "others": None if view.pair.status.is_open else view.pair.revision - own,
        "labels": view.labels,
        "decided": _decided(view),
        "suspicion": view.suspicion,
        "flags": [_flag_for_desk(flag) for flag in view.flags],
    }


def _flag_for_desk(flag: Flag) -> dict[str, Any]:
    """The span is in characters as Python counts them; the desk counts alike, by code points."""
    return flag.model_dump(mode="json", include={"check", "severity", "message", "span_start", "span_end"})


def _decided(view: PairView) -> str:
    """By whom and why, such as `by demo: contradicts image`; empty while the pair is pending."""
    if view.decision is None:
        return ""
    reason = f": {view.decision.reason.value}" if view.decision.reason else ""
    return f"by {view.decision.reviewer}{reason}"


def _data_url(path: Path) -> str:
    """The picture within the reply: it is there when its pair is, and no directory has to be opened to the browser.

    Empty when the file is missing, which the desk shows: one lost file must not stop the review.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return ""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
