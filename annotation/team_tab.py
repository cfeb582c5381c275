"""The Team tab: how far the work has come, how well it is done, and what curators set for it.

`build_team_tab` is called inside an open `gr.Tab`; its styles are in team/team.css. Everybody sees the numbers of the
data set; those of persons, the settings and the audit are for curators. The one surprising fact: what is hidden is
refused as well, on the server, whatever a page may send.
"""

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import gradio as gr

from annotation.accounts.accounts_tab import build_accounts_panel
from annotation.accounts.identity import Identity, Who, require
from annotation.agreement.agreement import measure_agreement
from annotation.agreement.agreement_view import agreement_html
from annotation.models import Role
from annotation.project import MOST_REVIEWERS
from annotation.store import Store
from annotation.team.audit_tab import QUIET, build_audit
from annotation.team.team_view import accepted_html, progress_html, rates_html, reviewers_html
from facellm.errors import FaceLLMError

SETTINGS: Final = "change how pairs are reviewed"
AGREEMENT: Final = "<h3>Agreement</h3><p>How far reviewers say the same about the same pair, by five coefficients.</p>"
LONE: Final = "Traps are shown as soon as two accounts may review."


@dataclass(frozen=True)
class TeamTab:
    """What app.py needs: to read everything anew when the tab is opened."""

    refresh: Callable[..., list[Any]]  # inputs → updates of `shown`
    inputs: list[Any]
    shown: list[Any]


def build_team_tab(store: Store, who: Who) -> TeamTab:
    """Build the tab inside the open Gradio context.

    Args:
        store: where everything is read from.
        who: tells who is asking.
    """
    with gr.Row(elem_id="team"):
        with gr.Column(elem_id="team-main", scale=1, min_width=300):
            numbers = [gr.HTML(elem_id=f"team-{name}", padding=False) for name in ("progress", "accepted", "rates")]
            reviewers = gr.HTML(elem_id="team-reviewers", padding=False, visible=False)
            agreement = _build_agreement(store, who)
            build_accounts_panel(store, who)
        with gr.Column(elem_id="team-side", scale=0, min_width=300):
            settings = _build_settings(store, who)
            with gr.Column(elem_id="team-audit-box"):
                audit = build_audit(store, who)
    read: list[Any] = [*numbers, reviewers, agreement]

    def refresh(later: list[int], last: int | None, request: gr.Request) -> list[Any]:
        identity = who(request)
        shown = [*_numbers(store, identity), *settings.show(identity)]
        return [*shown, *audit.refresh(later, last, identity)]

    return TeamTab(refresh, audit.inputs, [*read, *settings.shown, *audit.shown])


def _numbers(store: Store, identity: Identity) -> list[Any]:
    """Progress, accepted over time, accept rates, reviewers, and whether agreement may be measured."""
    progress = store.team.progress()
    shown = [progress_html(progress, store.audits.estimate()), accepted_html(progress), rates_html(progress)]
    if not identity.may(Role.CURATOR):
        return [*shown, gr.update(visible=False, value=""), gr.update(visible=False)]
    return [*shown, gr.update(visible=True, value=reviewers_html(store.team.reviewers())), gr.update(visible=True)]


def _build_agreement(store: Store, who: Who) -> gr.Column:
    """How far reviewers agree; asked for by a button, since its intervals take seconds where much is decided."""
    with gr.Column(visible=False, elem_id="team-agreement") as box:
        shown = gr.HTML(AGREEMENT, padding=False)
        button = gr.Button("Measure", size="sm", elem_id="team-measure")

    def measure(request: gr.Request) -> Any:
        try:
            require(who(request), Role.CURATOR, "measure agreement")
        except FaceLLMError as error:
            gr.Warning(html.escape(str(error)), title="")
            return gr.skip()
        return agreement_html(measure_agreement(store.ratings()))

    button.click(measure, None, shown, show_progress="minimal", api_visibility="private", concurrency_limit=1)
    return box


@dataclass(frozen=True)
class _Settings:
    show: Callable[[Identity], list[Any]]
    shown: list[Any]


def _build_settings(store: Store, who: Who) -> _Settings:
    """By how many reviewers pairs are decided, and how many traps they are shown; for curators."""
    with gr.Column(visible=False, elem_id="team-settings") as box:
        gr.HTML("<h3>How pairs are reviewed</h3>", padding=False)
        reviewers = gr.Number(1, label="Reviewers per pair", precision=0, minimum=1, maximum=MOST_REVIEWERS)
        share = gr.Slider(0, 100, 100, step=1, label="of so many pairs, %", elem_id="team-share")
        decided = gr.Checkbox(label="Also of those that are decided already")
        traps = gr.Slider(0, 20, 2, step=0.5, label="Known-bad pairs among the others, %", elem_id="team-traps")
        note = gr.HTML(elem_id="team-settings-note", padding=False)
        save = gr.Button("Save", size="sm", variant="primary")
    shown = [box, reviewers, share, traps, note]

    def show(identity: Identity) -> list[Any]:
        project = store.project.read()
        visible = gr.update(visible=identity.may(Role.CURATOR))
        lone = f"<p>{LONE}</p>" if project.trap_share and not store.traps.share() else ""
        return [visible, project.overlap, 100 * project.overlap_share, 100 * project.trap_share, lone]

    def change(count: int | None, of: float, also_decided: bool, trap_share: float, request: gr.Request) -> list[Any]:
        identity = who(request)
        try:
            require(identity, Role.CURATOR, SETTINGS)
            store.project.set_trap_share(identity.name, trap_share / 100)
            changed = store.project.set_overlap(identity.name, count or 0, of / 100, decided=also_decided)
        except FaceLLMError as error:
            gr.Warning(html.escape(str(error)), title="")
            return [gr.skip() for _ in shown] + [gr.skip()]
        gr.Info(f"Saved; {changed:,} pairs now want another number of reviewers.", title="", duration=5)
        return [*show(identity), False]

    save.click(change, [reviewers, share, decided, traps], [*shown, decided], **QUIET)
    return _Settings(show, shown)
