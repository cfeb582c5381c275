"""The Fine-tune tab: from the accepted pairs to an adapter with one button, and every run that there has been.

`build_training_tab` is called inside an open `gr.Tab`; its styles are in training.css. The one surprising fact: the tab
holds no run in memory. Each look reads the run directories, so a page that is loaded anew, another visitor's page and
an app that was restarted all show the same.
"""

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from facellm import jobs
from facellm.config import Settings
from facellm.data import Attribute
from facellm.errors import ConfigError, DataError, FaceLLMError
from facellm.jobs import RunStatus, SnapshotRef, State
from facellm.permission import Refusal, check
from facellm.prepare import configure, prepare, reserved_names
from facellm.recipe import portable_name

POINTS = 400  # of a curve at most: more than a screen can show
LOG_LINES = 10
TICK = 1.0  # seconds between two looks at a run that is going
NO_RUNS = "Press Fine-tune: the base model learns from your pairs, and the first run shows here."
NO_PAIRS = "No pairs to learn from yet. Accept some in the Review tab first."
SHOWN_BY_TICK = 13  # outputs: the list of runs, and the view of one
STOPPING = "Stopping…"
START = "fine-tune a model"
LABELS = {"epochs": "Epochs", "rank": "Rank", "learning_rate": "Learning rate"}
NO_STEPS = "The curve begins with the first step."


@dataclass(frozen=True)
class TrainingTab:
    """What app.py needs to connect other tabs with this one."""

    chat_button: gr.Button  # "Chat with it"; only active for a run whose adapter the loaded base can use
    selected_run: gr.Radio  # the name of the selected run, which is its adapter's name, too
    refresh: Callable[..., list[Any]]  # (the selected run, the request) → updates of `shown`: read everything anew
    shown: list[Any]


def build_training_tab(
    settings: Settings,
    *,
    counts: Callable[[], dict[Attribute | None, int]],
    snapshot: Callable[[str], SnapshotRef],
    bases: Sequence[str],
    refusal: Refusal,
) -> TrainingTab:
    """Build the tab inside the open Gradio context.

    Args:
        settings: where the runs are, on which device they train, and what the chat has loaded.
        counts: how many accepted pairs there are now, by attribute; None stands for free questions.
        snapshot: freezes the accepted pairs under a name.
        bases: the base models to choose from; the first is the usual one.
        refusal: why somebody may not start, stop or delete a run.
    """
    tuning = _Tuning(settings, counts, snapshot, refusal)
    usual = jobs.recipe(bases[0])
    with gr.Row(elem_id="tune"):
        with gr.Column(elem_id="tune-form", scale=0, min_width=300):
            pairs = gr.HTML(elem_id="tune-pairs", padding=False)
            with gr.Group(elem_id="tune-settings"):
                base = gr.Dropdown([(_base_label(each), each) for each in bases], value=bases[0], label="Base model")
                with gr.Row():
                    name = gr.Textbox(label="Name", max_lines=1, max_length=64, min_width=100)
                    epochs = gr.Number(
                        usual.epochs, label=LABELS["epochs"], precision=0, minimum=1, maximum=1000, min_width=100
                    )
            may_not = gr.HTML(visible=False, elem_id="tune-may-not", padding=False)
            begin = gr.Button("Fine-tune", variant="primary", elem_id="tune-begin")
            with gr.Accordion("Advanced", open=False, elem_id="tune-advanced"), gr.Row():
                rank = gr.Number(usual.rank, label=LABELS["rank"], precision=0, minimum=1, maximum=256, min_width=100)
                rate = gr.Number(
                    usual.learning_rate, label=LABELS["learning_rate"], minimum=1e-7, maximum=0.1, min_width=100
                )
        with gr.Column(elem_id="tune-main", scale=1, min_width=300):
            head = gr.HTML(elem_id="tune-head", padding=False)
            curve = gr.LinePlot(
                x="step", y="loss", height=240, show_label=False, buttons=[], visible=False, elem_id="tune-curve"
            )
            with gr.Row(elem_id="tune-actions"):
                stop = gr.Button("Stop", size="sm", visible=False, scale=0, elem_id="tune-stop")
                chat = gr.Button("Chat with it", size="sm", visible=False, scale=0, elem_id="tune-chat")
                delete = gr.Button("Delete", size="sm", visible=False, scale=0, elem_id="tune-delete")
                sure = gr.Button(variant="stop", size="sm", visible=False, scale=0, elem_id="tune-sure")
                keep = gr.Button("Keep it", size="sm", visible=False, scale=0, elem_id="tune-keep")
            selected = gr.Radio([], label="Runs, newest first", visible=False, elem_id="tune-runs")
            with gr.Accordion("Log and settings", open=False, visible=False, elem_id="tune-details") as details:
                log = gr.Textbox(label="End of the log", lines=LOG_LINES, max_lines=LOG_LINES, elem_id="tune-log")
                record = gr.JSON(show_label=False, max_height=260, elem_id="tune-config")
    seen, doomed = gr.State(""), gr.State("")  # what the page shows; the run that is asked about
    timer = gr.Timer(TICK, active=False)

    run_view = [head, curve, stop, chat, delete, sure, keep, details, log, record, seen, timer]
    shown = [pairs, name, may_not, begin, selected, *run_view]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    gr.on(None, tuning.refresh, selected, shown, **quiet)  # when the page is loaded
    selected.input(tuning.show, selected, run_view, **quiet)
    timer.tick(tuning.tick, [selected, seen], [selected, *run_view], **quiet)
    base.input(tuning.defaults, base, [epochs, rank, rate], **quiet)
    started = begin.click(
        tuning.begin, [base, epochs, rank, rate, name], selected, **(quiet | {"concurrency_limit": 1})
    )
    started.success(tuning.start_over, selected, shown, **quiet)
    stop.click(tuning.stop, selected, stop, **quiet)
    delete.click(tuning.ask_delete, selected, [doomed, chat, delete, sure, keep], **quiet)
    keep.click(tuning.show, selected, run_view, **quiet)
    sure.click(tuning.delete, doomed, None, **quiet).then(tuning.refresh, selected, shown, **quiet)
    return TrainingTab(chat, selected, tuning.refresh, shown)


class _Tuning:
    """What happens on the page's events. Nothing here is about one visitor, and nothing is kept between two events."""

    def __init__(
        self,
        settings: Settings,
        counts: Callable[[], dict[Attribute | None, int]],
        snapshot: Callable[[str], SnapshotRef],
        refusal: Refusal,
    ) -> None:
        self._settings = settings
        self._refusal = refusal
        self._runs_dir = settings.runs_dir
        self._counts = counts
        self._snapshot = snapshot

    def refresh(self, selected: str | None, request: gr.Request) -> list[Any]:
        """Everything anew; without a selected run the newest one is selected."""
        runs = jobs.list_runs(self._runs_dir)
        run = _find(runs, selected)
        why = self._refusal(request, START)
        return [
            _pairs_html(self._counts()),
            gr.update(placeholder=jobs.next_name(self._runs_dir, reserved_names(self._settings))),
            gr.update(value=f'<p class="tune-empty">{html.escape(why)}</p>', visible=bool(why)),
            gr.update(interactive=not why),
            _runs_list(runs, run),
            *self._view(run, runs, request),
        ]

    def start_over(self, selected: str | None, request: gr.Request) -> list[Any]:
        """A run was started: everything anew, and an empty name for the next."""
        pairs, name, *others = self.refresh(selected, request)
        return [pairs, name | {"value": ""}, *others]

    def show(self, selected: str, request: gr.Request) -> list[Any]:
        """Another run was selected."""
        runs = jobs.list_runs(self._runs_dir)
        return self._view(_find(runs, selected), runs, request)

    def tick(self, selected: str | None, seen: str, request: gr.Request) -> list[Any]:
        """Look at the run that is going; what has not changed is not sent, so nothing flickers."""
        runs = jobs.list_runs(self._runs_dir)
        run = _find(runs, selected)
        if _signature(run, runs) == seen:
            return [gr.skip()] * SHOWN_BY_TICK
        return [_runs_list(runs, run), *self._view(run, runs, request)]

    def defaults(self, base: str) -> list[Any]:
        """Another base was chosen: the numbers that suit it."""
        config = jobs.recipe(base)
        return [config.epochs, config.rank, config.learning_rate]

    def begin(
        self, base: str, epochs: int | None, rank: int | None, rate: float | None, name: str, request: gr.Request
    ) -> Any:
        """Freeze the accepted pairs, make a run of them, and start it."""
        try:
            check(self._refusal, request, START)
            jobs.check_free(self._runs_dir)
            reserved = reserved_names(self._settings)
            name = name.strip() or jobs.next_name(self._runs_dir, reserved)
            jobs.check_name(self._runs_dir, name, reserved)
            if not sum(self._counts().values()):
                raise DataError(NO_PAIRS)
            changes = {"epochs": epochs, "rank": rank, "learning_rate": rate}
            if empty := [field for field, value in changes.items() if value is None]:
                raise ConfigError(f"The field {LABELS[empty[0]]} is empty; expected a number. Fill it in.")
            config = configure(self._settings, base, changes, "The settings")
            taken = self._snapshot(f"{name}.{datetime.now(UTC):%Y%m%d-%H%M%S}")
            jobs.start(prepare(self._settings, taken, config, name=name))
        except FaceLLMError as error:
            _warn("Not started", error)
            raise gr.Error(visible=False, print_exception=False) from error  # so that nothing follows
        return gr.update(choices=[name], value=name)

    def stop(self, selected: str, request: gr.Request) -> Any:
        """The run saves its adapter first; the next looks will show it as stopped."""
        try:
            check(self._refusal, request, "stop a run")
        except FaceLLMError as error:
            _warn("Not stopped", error)
            return gr.skip()
        jobs.stop(self._runs_dir / selected)
        return gr.update(value=STOPPING, interactive=False)

    def ask_delete(self, selected: str) -> list[Any]:
        """Ask before a run is deleted; what is then deleted is the run that the question names."""
        hidden, label = gr.update(visible=False), f"Delete {selected} for good"
        return [selected, hidden, hidden, gr.update(value=label, visible=True), gr.update(visible=True)]

    def delete(self, name: str, request: gr.Request) -> None:
        """Delete a run: what `python -m facellm delete RUN` does."""
        try:
            check(self._refusal, request, "delete a run")
            jobs.delete(jobs.find_run(self._runs_dir / name, self._runs_dir))
        except FaceLLMError as error:
            _warn("Not deleted", error)

    def _view(self, run: RunStatus | None, runs: Sequence[RunStatus], request: gr.Request) -> list[Any]:
        """Updates for all that shows one run, and for the timer."""
        timer = gr.Timer(active=any(each.state is State.RUNNING for each in runs))
        if run is None:
            hidden = gr.update(visible=False)
            return [_empty_html(), *[hidden] * 7, "", None, "", timer]
        running = run.state is State.RUNNING
        may = not self._refusal(request, START)
        record = run.config and jobs.load_record(run.path)
        no_chat = self._no_chat(run)
        return [
            _head_html(run, no_chat),
            _curve(run),
            gr.update(
                visible=running and may, value=STOPPING if run.stopping else "Stop", interactive=not run.stopping
            ),
            gr.update(visible=not running, interactive=run.adapter is not None and not no_chat),
            gr.update(visible=not running and may),
            gr.update(visible=False),
            gr.update(visible=False),
            gr.update(visible=True, open=True) if run.state is State.FAILED else gr.update(visible=True),
            "\n".join(jobs.log_tail(run.path).splitlines()[-LOG_LINES:]) or "Nothing yet.",
            json.dumps(record) if record else None,
            _signature(run, runs),
            timer,
        ]

    def _no_chat(self, run: RunStatus) -> str:
        """Why the chat cannot ask the adapter that the run has left; empty where it can, and where there is none."""
        if run.adapter is None or run.config is None:
            return ""
        loaded, base = portable_name(self._settings.base_checkpoint), run.config.base_model
        if base != loaded:
            return (
                f"The chat has another base loaded, {_base_label(loaded)}. To chat with this run, start the app with "
                f"FACELLM_BASE_MODEL={base}."
            )
        if run.name in reserved_names(self._settings):
            return f"The chat has another model called {run.name}. To chat with this run, rename its folder."
        return ""


def _warn(what: str, error: FaceLLMError) -> None:
    """Say what was not done, and why; of a title Gradio's page shows nothing."""
    gr.Warning(html.escape(f"{what}. {error}"))


def _find(runs: Sequence[RunStatus], name: str | None) -> RunStatus | None:
    """The run of this name, or the newest if it is gone or none is named."""
    return next((run for run in runs if run.name == name), runs[0] if runs else None)


def _signature(run: RunStatus | None, runs: Sequence[RunStatus]) -> str:
    """What the page shows, in short: the same signature, the same page."""
    states = [[each.name, each.state] for each in runs]
    return json.dumps([run.name, run.step, len(jobs.log_tail(run.path)), states] if run else states)


def _runs_list(runs: Sequence[RunStatus], run: RunStatus | None) -> Any:
    return gr.update(
        choices=[(_run_label(each), each.name) for each in runs], value=run.name if run else None, visible=bool(runs)
    )


def _run_label(run: RunStatus) -> str:
    facts = [run.name, str(run.state), *([_pair_count(run.pairs)] if run.config else [])]
    if run.first_loss is not None and run.loss is not None and run.state is not State.RUNNING:
        facts.append(f"loss {run.first_loss:.2f} → {run.loss:.2f}")
    return " · ".join([*facts, f"{run.created.astimezone():%-d %b %H:%M}"])


def _curve(run: RunStatus) -> Any:
    """The loss by step; the axis has its full length from the start, so the curve grows and nothing jumps."""
    try:
        steps = jobs.metrics(run.path)
    except DataError:  # the run is shown without its curve; `status` says what is damaged, where it needs it
        steps = []
    if not steps:
        return gr.update(visible=False)
    points = pd.DataFrame(steps, columns=["step", "loss"])
    points = pd.concat([points[:: 1 + len(points) // POINTS], points[-1:]]).drop_duplicates()
    top = 1.05 * max(points["loss"])
    return gr.LinePlot(points, x_lim=[0, steps[-1]["total"]], y_lim=[0, top], visible=True)


def _pairs_html(counts: dict[Attribute | None, int]) -> str:
    total = sum(counts.values())
    if not total:
        return f'<p class="tune-empty">{NO_PAIRS}</p>'
    named = [(str(attribute), counts.get(attribute, 0)) for attribute in Attribute]
    free = [("free question", counts[None])] if counts.get(None) else []
    rows = "".join(f"<li>{name}<b>{count:,}</b></li>" for name, count in [*named, *free])
    title = f'<h3>{_pair_count(total)} to learn from</h3><p class="tune-empty">accepted and edited</p>'
    return f"{title}<ul>{rows}</ul>"


def _empty_html() -> str:
    return f'<div class="tune-none"><h3>No runs yet</h3><p class="tune-empty">{NO_RUNS}</p></div>'


def _head_html(run: RunStatus, no_chat: str) -> str:
    """Name, state, progress, and what there is to say about the run at this moment."""
    share = run.step / run.total_steps if run.total_steps else 0
    facts = f"{_pair_count(run.pairs)} · {_base_label(run.config.base_model)}" if run.config else ""
    bar = f'<div class="tune-bar"><div style="width:{100 * share:.1f}%"></div></div>'
    return (
        f'<div class="tune-title"><h3>{html.escape(run.name)}</h3>'
        f'<span class="tune-state tune-{run.state}">{run.state}</span>'
        f"<span>{html.escape(facts)}</span></div>"
        + (bar if run.state is State.RUNNING else "")
        + f'<p role="status">{html.escape(" ".join([_situation(run), no_chat]).strip())}</p>'
    )


def _situation(run: RunStatus) -> str:
    step = f"step {run.step} of {run.total_steps}"
    match run.state:
        case State.QUEUED:
            return "Made, but not started."
        case State.RUNNING if not run.step:
            return f"Loading the model and the pictures. {NO_STEPS}"
        case State.RUNNING:
            return f"{step.capitalize()} · loss {run.loss:.3f} · about {_duration(run.eta_s or 0)} left"
        case State.FINISHED:
            loss = f"{run.first_loss or 0:.3f} → {run.loss or 0:.3f}"
            return f"Loss {loss} in {run.step} steps and {_duration(run.seconds)}."
        case State.STOPPED if run.adapter:
            return f"Stopped at {step}. What it had learnt is kept."
        case State.STOPPED:
            return "Stopped before the first step; there is nothing to chat with."
        case State.FAILED:
            return run.error or "Failed; the log says why."


def _pair_count(count: int) -> str:
    return f"{count:,} {'pair' if count == 1 else 'pairs'}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _base_label(base: str) -> str:
    """The last part of a folder's path; a Hub id as it is."""
    name = portable_name(base)
    return Path(name).name if Path(base).is_absolute() or name != base or name.startswith("facellm/") else name
