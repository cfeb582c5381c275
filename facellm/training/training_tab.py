"""The Fine-tune tab: from the accepted pairs to an adapter with one button, and every run that there has been.

`build_training_tab` is called inside an open `gr.Tab`; its styles are in training.css, its words in run_view.py. The
one surprising fact: the tab holds no run in memory. Each look reads the run directories, so a page that is loaded
anew, another visitor's page and an app that was restarted all show the same.
"""

import html
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import gradio as gr

from facellm.config import Settings
from facellm.data import Attribute, Example
from facellm.errors import DataError, FaceLLMError
from facellm.permission import Refusal, check
from facellm.training import estimating, jobs
from facellm.training.comparison_tab import RunComparison
from facellm.training.estimating import Estimate
from facellm.training.jobs import RunStatus, SnapshotRef, State
from facellm.training.loss_plot_tab import run_curve, run_plot
from facellm.training.prepare import configure, prepare, reserved_names
from facellm.training.recipe import RunConfig, portable_name
from facellm.training.recipe_form_tab import RecipeForm
from facellm.training.run_view import (
    NO_PAIRS,
    base_label,
    empty_html,
    head_html,
    pairs_html,
    results_html,
    run_label,
)

LOG_LINES = 10
TICK = 1.0  # seconds between two looks at a run that is going
STOPPING = "Stopping…"
START = "fine-tune a model"
GOING = (State.RUNNING, State.QUEUED)
SHOWN_BY_TICK = 17  # outputs: the lists of runs, and the view of one


@dataclass(frozen=True)
class TrainingTab:
    """What app.py needs to connect other tabs with this one."""

    chat_button: gr.Button  # "Chat with it"; only active for a run whose adapter the loaded base can use
    selected_run: gr.Radio  # the name of the selected run, which is its adapter's name, too
    refresh: Callable[..., list[Any]]  # (the selected run, the request) → updates of `shown`: read everything anew
    shown: list[Any]


@dataclass(frozen=True)
class Pairs:
    """The pairs to learn from, as they are at the moment of asking."""

    counts: Callable[[], dict[Attribute | None, int]]  # by attribute; None stands for free questions
    examples: Callable[[], Iterable[Example]]  # their images and texts, one after another
    snapshot: Callable[[str], SnapshotRef]  # freezes them under a name


def build_training_tab(settings: Settings, *, pairs: Pairs, bases: Sequence[str], refusal: Refusal) -> TrainingTab:
    """Build the tab inside the open Gradio context.

    Args:
        settings: where the runs are, on which device they train, and what the chat has loaded.
        pairs: those that are accepted.
        bases: the base models to choose from; the first is the usual one.
        refusal: why somebody may not start, stop, resume or delete a run.
    """
    with gr.Row(elem_id="tune"):
        with gr.Column(elem_id="tune-form", scale=0, min_width=300):
            counted = gr.HTML(elem_id="tune-pairs", padding=False)
            with gr.Group(elem_id="tune-settings"):
                base = gr.Dropdown([(base_label(each), each) for each in bases], value=bases[0], label="Base model")
                with gr.Row():
                    name = gr.Textbox(label="Name", max_lines=1, max_length=64, min_width=100)
                    form = RecipeForm(configure(settings, bases[0], {}, "The settings"))
            may_not = gr.HTML(visible=False, elem_id="tune-may-not", padding=False)
            begin = gr.Button("Fine-tune", variant="primary", elem_id="tune-begin")
            needs = gr.HTML(elem_id="tune-needs", padding=False)
            with gr.Accordion("Advanced", open=False, elem_id="tune-advanced"):
                form.advanced()
        with gr.Column(elem_id="tune-main", scale=1, min_width=300):
            head = gr.HTML(elem_id="tune-head", padding=False)
            curve = run_plot()
            results = gr.HTML(visible=False, elem_id="tune-results", padding=False)
            with gr.Row(elem_id="tune-actions"):
                hidden: dict[str, Any] = {"size": "sm", "visible": False, "scale": 0}
                chat = gr.Button("Chat with it", variant="primary", elem_id="tune-chat", **hidden)
                stop = gr.Button("Stop", elem_id="tune-stop", **hidden)
                resume = gr.Button("Resume", elem_id="tune-resume", **hidden)
                delete = gr.Button("Delete", elem_id="tune-delete", **hidden)
                sure = gr.Button(variant="stop", elem_id="tune-sure", **hidden)
                keep = gr.Button("Keep it", elem_id="tune-keep", **hidden)
            selected = gr.Radio([], label="Runs, newest first", visible=False, elem_id="tune-runs")
            comparison = RunComparison(settings.runs_dir)
            with gr.Accordion("Log and settings", open=False, visible=False, elem_id="tune-details") as details:
                log = gr.Textbox(label="End of the log", lines=LOG_LINES, max_lines=LOG_LINES, elem_id="tune-log")
                record = gr.JSON(show_label=False, max_height=260, elem_id="tune-config")
    seen, doomed = gr.State(["", []]), gr.State("")  # what the page shows; the run that is asked about
    timer = gr.Timer(TICK, active=False)

    tuning = _Tuning(settings, pairs, form, comparison, refusal)
    buttons = [chat, stop, resume, delete, sure, keep]
    run_view = [head, curve, results, *buttons, details, log, record, seen, timer]
    lists = [selected, comparison.panel, comparison.chosen]
    shown = [counted, name, may_not, begin, *lists, *run_view]
    compared = [comparison.chosen, comparison.axis, comparison.seen]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    one: dict[str, Any] = quiet | {"concurrency_limit": 1}

    gr.on(None, tuning.refresh, selected, shown, **quiet)  # when the page is loaded
    selected.input(tuning.show, selected, run_view, **quiet)
    timer.tick(tuning.tick, [selected, seen, *compared], [*lists, *run_view, *comparison.shown], **quiet)
    gr.on([comparison.chosen.change, comparison.axis.input], comparison.look, compared, comparison.shown, **quiet)
    base.input(tuning.defaults, base, form.inputs, **quiet)
    asks = [counted.change, *(each.change for each in form.inputs)]
    gr.on(asks, tuning.estimate, [base, *form.inputs], needs, trigger_mode="always_last", **one)
    started = begin.click(tuning.begin, [base, name, *form.inputs], selected, **one)
    started.success(tuning.start_over, selected, shown, **quiet)
    stop.click(tuning.stop, selected, stop, **quiet)
    resume.click(tuning.go_on, selected, resume, **one).success(tuning.refresh, selected, shown, **quiet)
    delete.click(tuning.ask_delete, selected, [doomed, *buttons], **quiet)
    keep.click(tuning.show, selected, run_view, **quiet)
    sure.click(tuning.delete, doomed, None, **quiet).then(tuning.refresh, selected, shown, **quiet)
    return TrainingTab(chat, selected, tuning.refresh, shown)


class _Tuning:
    """What happens on the page's events. Nothing here is about one visitor, and nothing is kept between two events."""

    def __init__(
        self, settings: Settings, pairs: Pairs, form: RecipeForm, comparison: RunComparison, refusal: Refusal
    ) -> None:
        self._settings = settings
        self._refusal = refusal
        self._runs_dir = settings.runs_dir
        self._pairs = pairs
        self._form = form
        self._comparison = comparison

    def refresh(self, selected: str | None, request: gr.Request) -> list[Any]:
        """Everything anew; without a selected run the newest one is selected."""
        runs = jobs.list_runs(self._runs_dir)
        run = _find(runs, selected)
        why = self._refusal(request, START)
        return [
            pairs_html(self._pairs.counts()),
            gr.update(placeholder=jobs.next_name(self._runs_dir, reserved_names(self._settings))),
            gr.update(value=f'<p class="tune-empty">{html.escape(why)}</p>', visible=bool(why)),
            gr.update(interactive=not why),
            _runs_list(runs, run),
            *self._comparison.choices(runs),
            *self._view(run, runs, request),
        ]

    def start_over(self, selected: str | None, request: gr.Request) -> list[Any]:
        """A run was started: everything anew, and an empty name for the next."""
        counted, name, *others = self.refresh(selected, request)
        return [counted, name | {"value": ""}, *others]

    def show(self, selected: str, request: gr.Request) -> list[Any]:
        """Another run was selected."""
        runs = jobs.list_runs(self._runs_dir)
        return self._view(_find(runs, selected), runs, request)

    def tick(
        self,
        selected: str | None,
        seen: list[Any],
        chosen: list[str] | None,
        axis: str,
        compared: str,
        request: gr.Request,
    ) -> list[Any]:
        """Look at the runs that are going; what has not changed is not sent, so nothing flickers."""
        runs = jobs.list_runs(self._runs_dir)
        run = _find(runs, selected)
        signature, names = _signature(run, runs)
        comparison = self._comparison.look(chosen, axis, compared)
        if signature == seen[0]:
            return [*[gr.skip()] * SHOWN_BY_TICK, *comparison]
        choices = [gr.skip()] * 2 if names == seen[1] else self._comparison.choices(runs)
        return [_runs_list(runs, run), *choices, *self._view(run, runs, request), *comparison]

    def defaults(self, base: str) -> list[Any]:
        """Another base was chosen: the numbers that suit it."""
        return self._form.defaults(configure(self._settings, base, {}, "The settings"))

    def estimate(self, request: gr.Request, base: str, *values: Any) -> str:
        """What a run with these numbers would need, for whoever may start one."""
        if self._refusal(request, START) or not sum(self._pairs.counts().values()):
            return ""
        try:
            found = self._estimate(self._config(base, values))
        except FaceLLMError as error:
            return _needs_html(str(error), fits=False)
        return _needs_html(found.line(), fits=found.fits)

    def begin(self, request: gr.Request, base: str, name: str, *values: Any) -> Any:
        """Freeze the accepted pairs, make a run of them, and start it, or let it wait for its turn."""
        try:
            check(self._refusal, request, START)
            reserved = reserved_names(self._settings)
            name = name.strip() or jobs.next_name(self._runs_dir, reserved)
            jobs.check_name(self._runs_dir, name, reserved)
            if not sum(self._pairs.counts().values()):
                raise DataError(NO_PAIRS)
            config = self._config(base, values)
            if not any(run.state in GOING for run in jobs.list_runs(self._runs_dir)):  # else memory is free by its turn
                estimating.check(self._estimate(config))
            taken = self._pairs.snapshot(f"{name}.{datetime.now(UTC):%Y%m%d-%H%M%S}")
            jobs.start(prepare(self._settings, taken, config, name=name))
        except FaceLLMError as error:
            _warn("Not started", error)
            raise gr.Error(visible=False, print_exception=False) from error  # so that nothing follows
        return gr.update(choices=[name], value=name)

    def go_on(self, selected: str, request: gr.Request) -> Any:
        """Resume a run from its checkpoint, or start it where it has none: `python -m facellm resume` or `start`."""
        try:
            check(self._refusal, request, "resume a run")
            run_dir = jobs.find_run(self._runs_dir / selected, self._runs_dir)
            jobs.start(run_dir, resume=jobs.status(run_dir).can_resume)
        except FaceLLMError as error:
            _warn("Not resumed", error)
            raise gr.Error(visible=False, print_exception=False) from error
        return gr.update(interactive=False)

    def stop(self, selected: str, request: gr.Request) -> Any:
        """The run saves a checkpoint and its adapter first; the next looks will show it as stopped."""
        try:
            check(self._refusal, request, "stop a run")
            jobs.stop(self._runs_dir / selected)
        except FaceLLMError as error:
            _warn("Not stopped", error)
            return gr.skip()
        return gr.update(value=STOPPING, interactive=False)

    def ask_delete(self, selected: str) -> list[Any]:
        """Ask before a run is deleted; what is then deleted is the run that the question names."""
        hidden, label = gr.update(visible=False), f"Delete {selected} for good"
        return [selected, *[hidden] * 4, gr.update(value=label, visible=True), gr.update(visible=True)]

    def delete(self, name: str, request: gr.Request) -> None:
        """Delete a run: what `python -m facellm delete RUN` does."""
        try:
            check(self._refusal, request, "delete a run")
            jobs.delete(jobs.find_run(self._runs_dir / name, self._runs_dir))
        except FaceLLMError as error:
            _warn("Not deleted", error)

    def _config(self, base: str, values: Sequence[Any]) -> RunConfig:
        return configure(self._settings, base, self._form.changes(values), "The settings")

    def _estimate(self, config: RunConfig) -> Estimate:
        folder = self._settings.data_dir
        examples = _Anew(self._pairs.examples)
        return estimating.estimate(config, examples, folder=folder if folder.is_dir() else None)

    def _view(self, run: RunStatus | None, runs: Sequence[RunStatus], request: gr.Request) -> list[Any]:
        """Updates for all that shows one run, and for the timer."""
        timer = gr.Timer(active=any(each.state in GOING for each in runs))
        seen = _signature(run, runs)
        hidden = gr.update(visible=False)
        if run is None:
            return [empty_html(), *[hidden] * 9, "", None, seen, timer]
        record = run.config and jobs.load_record(run.path)
        no_chat = self._no_chat(run)
        table = results_html(run)
        return [
            head_html(run, runs, no_chat),
            run_curve(run.path),
            gr.update(value=table, visible=bool(table)),
            *self._buttons(run, no_chat, may=not self._refusal(request, START)),
            gr.update(visible=True, open=True) if run.state is State.FAILED else gr.update(visible=True),
            "\n".join(jobs.log_tail(run.path).splitlines()[-LOG_LINES:]) or "Nothing yet.",
            json.dumps(record) if record else None,
            seen,
            timer,
        ]

    def _buttons(self, run: RunStatus, no_chat: str, *, may: bool) -> list[Any]:
        """Updates of the buttons below the run: chat, stop, resume, delete, and of the two after Delete."""
        going, hidden = run.state in GOING, gr.update(visible=False)
        to_stop = STOPPING if run.stopping else "Stop" if run.state is State.RUNNING else "Leave the queue"
        to_go_on = "Resume" if run.can_resume else "Start" if run.state is State.MADE else "Start again"
        may_go_on = may and run.config is not None and run.state not in (*GOING, State.FINISHED)
        return [
            gr.update(visible=not going and run.adapter is not None, interactive=not no_chat),
            gr.update(visible=going and may, value=to_stop, interactive=not run.stopping),
            gr.update(visible=may_go_on, value=to_go_on, interactive=True),
            gr.update(visible=not going and may),
            hidden,
            hidden,
        ]

    def _no_chat(self, run: RunStatus) -> str:
        """Why the chat cannot ask the adapter that the run has left; empty where it can, and where there is none."""
        if run.adapter is None or run.config is None:
            return ""
        loaded, base = portable_name(self._settings.base_checkpoint), run.config.base_model
        if base != loaded:
            return (
                f"The chat has another base loaded, {base_label(loaded)}. To chat with this run, start the app with "
                f"FACELLM_BASE_MODEL={base}."
            )
        if run.name in reserved_names(self._settings):
            return f"The chat has another model called {run.name}. To chat with this run, rename its folder."
        return ""


class _Anew:
    """Examples that are read anew each time they are gone through, so that they are never all in memory."""

    def __init__(self, read: Callable[[], Iterable[Example]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[Example]:
        return iter(self._read())


def _warn(what: str, error: FaceLLMError) -> None:
    """Say what was not done, and why; of a title Gradio's page shows nothing."""
    gr.Warning(html.escape(f"{what}. {error}"))


def _find(runs: Sequence[RunStatus], name: str | None) -> RunStatus | None:
    """The run of this name, or the newest if it is gone or none is named."""
    return next((run for run in runs if run.name == name), runs[0] if runs else None)


def _signature(run: RunStatus | None, runs: Sequence[RunStatus]) -> list[Any]:
    """What the page shows, in short: the same signature, the same page. And the names of the runs."""
    states = [[each.name, each.state, each.place] for each in runs]
    names = [each.name for each in runs]
    if run is None:
        return [json.dumps(states), names]
    shown = [run.step, run.stage, run.stopping, run.held_out, run.checkpoint_step, len(jobs.log_tail(run.path))]
    return [json.dumps([run.name, shown, states]), names]


def _runs_list(runs: Sequence[RunStatus], run: RunStatus | None) -> Any:
    return gr.update(
        choices=[(run_label(each), each.name) for each in runs], value=run.name if run else None, visible=bool(runs)
    )


def _needs_html(text: str, *, fits: bool) -> str:
    return f'<p class="{"tune-empty" if fits else "tune-unfit"}">{html.escape(text)}</p>'
