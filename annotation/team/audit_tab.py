"""The Team tab's audit: a curator draws curated pairs at random and judges each, right or wrong.

`build_audit` is called inside an open Gradio context. The one surprising fact: which pair is shown is the page's own
state, and the store refuses what is judged twice; so two curators may audit at once.
"""

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import gradio as gr

from annotation.accounts.identity import Identity, Who, require
from annotation.images import data_url
from annotation.models import Role
from annotation.store import Store
from annotation.team.team_view import audit_html, audited_pair_html
from facellm.errors import FaceLLMError

QUIET: Final[dict[str, Any]] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
NOTHING: Final = "<p>Every drawn pair is judged. Draw more for a narrower interval.</p>"
AUDIT: Final = "audit the data set"


@dataclass(frozen=True)
class AuditPanel:
    """What the tab needs to show it anew."""

    refresh: Callable[..., list[Any]]  # inputs and who asks → updates of `shown`
    inputs: list[Any]
    shown: list[Any]


def build_audit(store: Store, who: Who) -> AuditPanel:
    """The estimate, for curators also the form to draw and to judge."""
    estimate = gr.HTML(elem_id="team-audit-estimate", padding=False)
    current, later, last = gr.State(), gr.State([]), gr.State()
    with gr.Column(visible=False, elem_id="team-audit") as judging:
        pair = gr.HTML(elem_id="team-audit-pair", padding=False)
        with gr.Row(elem_id="team-audit-keys"):
            right = gr.Button("Right", size="sm", min_width=70)
            wrong = gr.Button("Wrong", size="sm", min_width=70)
            put_off = gr.Button("Later", size="sm", min_width=70)
            back = gr.Button("Take back", size="sm", min_width=70, interactive=False)
    with gr.Row(visible=False, elem_id="team-audit-draw") as drawing:
        count = gr.Number(100, label="Pairs", precision=0, minimum=1, min_width=90)
        even = gr.Checkbox(label="As many of each attribute", min_width=120)
        draw = gr.Button("Draw at random", size="sm", min_width=120)
    work = _Audit(store, who)
    shown = [estimate, judging, drawing, current, pair, right, wrong, put_off, later, last, back]
    state = [current, later, last]
    right.click(work.right, state, shown, **QUIET)
    wrong.click(work.wrong, state, shown, **QUIET)
    put_off.click(work.put_off, state, shown, **QUIET)
    back.click(work.take_back, [later, last], shown, **QUIET)
    draw.click(work.draw, [count, even, later, last], shown, **QUIET)
    return AuditPanel(work.show, [later, last], shown)


class _Audit:
    """What happens on the panel's events; the page keeps (current, later, last)."""

    def __init__(self, store: Store, who: Who) -> None:
        self._store = store
        self._who = who

    def show(self, later: list[int], last: int | None, identity: Identity) -> list[Any]:
        """The estimate, and the next pair for who may judge it."""
        audits, filtered = self._store.audits.estimate(), self._store.audits.filtered()
        may = identity.may(Role.CURATOR)
        drawn = self._store.audits.next(identity.name, skipped=later) if may else None
        keys = [gr.update(interactive=drawn is not None)] * 3
        return [
            audit_html(audits, filtered),
            gr.update(visible=may and any(each.drawn for each in (audits, *filtered))),
            gr.update(visible=may),
            drawn and drawn.audit_id,
            self._pair_html(drawn.pair_id, drawn.left) if drawn else NOTHING,
            *keys,
            later,
            last,
            gr.update(interactive=last is not None),
        ]

    def right(self, current: int | None, later: list[int], last: int | None, request: gr.Request) -> list[Any]:
        """The pair that is shown is as it should be."""
        return self._judge(True, current, later, last, request)

    def wrong(self, current: int | None, later: list[int], last: int | None, request: gr.Request) -> list[Any]:
        """It should not have been accepted like that."""
        return self._judge(False, current, later, last, request)

    def _judge(
        self, is_right: bool, current: int | None, later: list[int], last: int | None, request: gr.Request
    ) -> list[Any]:
        identity = self._who(request)

        def work() -> int | None:
            if current is not None:
                self._store.audits.judge(current, is_right, identity.name)
            return current

        return self._done(work, later, last, identity)

    def put_off(self, current: int | None, later: list[int], last: int | None, request: gr.Request) -> list[Any]:
        """Show another one first."""
        return self.show([*later, *([current] if current else [])], last, self._who(request))

    def take_back(self, later: list[int], last: int | None, request: gr.Request) -> list[Any]:
        """Judge the last one again."""
        identity = self._who(request)

        def work() -> None:
            if last is not None:
                self._store.audits.take_back(last, identity.name)

        return self._done(work, later, last, identity)

    def draw(
        self,
        count: int | None,
        even: bool,
        later: list[int],
        last: int | None,
        request: gr.Request,
    ) -> list[Any]:
        """Draw more pairs."""
        identity = self._who(request)

        def work() -> int | None:
            drawn = self._store.audits.draw(identity.name, count or 0, by_attribute=even)
            gr.Info(f"{drawn:,} pairs were drawn.", title="", duration=4)
            return last

        return self._done(work, later, last, identity)

    def _done(
        self, work: Callable[[], int | None], later: list[int], last: int | None, identity: Identity
    ) -> list[Any]:
        """Do it if a curator asks, say why not, and show everything anew."""
        try:
            require(identity, Role.CURATOR, AUDIT)
            last = work()
        except FaceLLMError as error:
            gr.Warning(html.escape(str(error)), title="")
        return self.show(later, last, identity)

    def _pair_html(self, pair_id: int, left: int) -> str:
        (view,) = self._store.pairs([pair_id])
        picture = data_url(self._store.data_dir / view.image.path)
        return audited_pair_html(picture, view.pair.question, view.answer, view.labels, left)
