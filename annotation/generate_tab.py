"""The part of the Dataset tab that has answers written: a form for `python -m annotation generate`, and its runs.

`build_form` and `build_runs` are called inside an open Gradio context; only curators may start, stop and estimate. The
one surprising fact: not even they can name a server, or go on with a run from a terminal. The teachers are those of the
settings, because the server's key goes to whatever address a teacher has, and only they are meant to be asked from the
page.
"""

import html
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import gradio as gr

from annotation.accounts.identity import Who, refusal, require
from annotation.fairface import AGES, MINORS
from annotation.models import GenerationRun, Purpose, Role, RunState, TaskState
from annotation.store import Store
from annotation.teaching import generation_process
from annotation.teaching.estimate import second_answers
from annotation.teaching.usage_policy import OPENAI_POLICY, POLICY_SUBJECT, is_openai
from facellm.config import Settings
from facellm.data import Attribute
from facellm.errors import BusyError, ConfigError, DataError, FaceLLMError

RUNS: Final = 20  # in the list
TICK: Final = 1.0  # seconds between two looks at a run that is going
START_SECONDS: Final = 60.0  # that a run may take to appear
ALONE, TOGETHER = "One request each", "All in one request"
PICTURES, MAX_COST = "Pictures", "Cost limit, USD"  # text fields: an empty number field would show 0
CONSENT: Final = "I have read this, and may send these pictures to OpenAI."
STOPPING: Final = "Stopping…"
ASK: Final = "have answers written"
ESTIMATING: Final = "<p>Estimating…</p>"
QUIET: Final[dict[str, Any]] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}


class View(StrEnum):
    """How a run looks from outside: its state, and whether its process is still there."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    WAITING = "waiting"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Form:
    """What is asked of whom."""

    inputs: list[Any]  # teacher, attributes, together, limit, ages, max_cost, consent
    may_not: gr.HTML  # why the buttons cannot be pressed
    estimate: gr.Button
    generate: gr.Button
    estimated: gr.HTML
    ages: gr.Dropdown
    policy: gr.Column


@dataclass(frozen=True)
class Runs:
    """The runs, and one of them in detail."""

    selected: gr.Radio
    refresh: Callable[..., list[Any]]  # (the selected run, the request) → updates of `shown`
    shown: list[Any]
    ended: gr.State  # changes when a run has ended


def build_form(settings: Settings) -> Form:
    """Teacher, attributes, images, limits; there must be a teacher in the settings."""
    first = next(iter(settings.teachers))
    with gr.Group(elem_id="data-form"):
        teacher = gr.Dropdown(list(settings.teachers), value=first, label="Teacher")
        attributes = gr.CheckboxGroup(
            [(attribute.value, attribute.value) for attribute in Attribute],
            value=[attribute.value for attribute in Attribute],
            label="Attributes",
            elem_id="data-attributes",
        )
        together = gr.Radio([ALONE, TOGETHER], value=ALONE, label="Attributes of a picture", elem_id="data-together")
        with gr.Row():
            limit = gr.Textbox(label=PICTURES, placeholder="all", max_lines=1, min_width=100)
            max_cost = gr.Textbox(label=MAX_COST, placeholder="none", max_lines=1, min_width=100)
        ages = gr.Dropdown(
            list(AGES), value=_ages(settings, first), label="Leave out ages", multiselect=True, visible=False
        )
    with gr.Column(visible=False, elem_id="data-policy") as policy:
        gr.HTML(_policy_html(), padding=False)
        consent = gr.Checkbox(label=CONSENT, container=False)
    may_not = gr.HTML(visible=False, elem_id="data-may-not", padding=False)
    with gr.Row(elem_id="data-buttons"):
        estimate = gr.Button("Estimate", min_width=100, elem_id="data-estimate")
        generate = gr.Button("Generate", variant="primary", min_width=100, elem_id="data-generate")
    estimated = gr.HTML(visible=False, elem_id="data-estimated", padding=False)
    inputs = [teacher, attributes, together, limit, ages, max_cost, consent]
    return Form(inputs, may_not, estimate, generate, estimated, ages, policy)


def build_runs(store: Store, settings: Settings, form: Form | None, who: Who) -> Runs:
    """The runs with their progress, hidden while there are none; and what happens on all events of form and runs."""
    with gr.Column(visible=False, elem_id="data-runs-box") as box:
        head = gr.HTML(elem_id="data-head", padding=False)
        with gr.Row(elem_id="data-actions"):
            stop = gr.Button("Stop", size="sm", visible=False, scale=0, elem_id="data-stop")
            go_on = gr.Button("Continue", size="sm", visible=False, scale=0, elem_id="data-continue")
        selected = gr.Radio([], label="Runs, newest first", elem_id="data-runs")
        with gr.Accordion("Log", open=False, visible=False, elem_id="data-log") as log_box:
            log = gr.Textbox(show_label=False, lines=6, max_lines=12, elem_id="data-log-text")
    seen, ended = gr.State(""), gr.State("")
    timer = gr.Timer(TICK, active=False)
    view = [head, stop, go_on, log_box, log, seen, timer]
    shown = [box, selected, *view] + ([form.ages, form.may_not, form.estimate, form.generate] if form else [])
    work = _Generation(store, settings, who, has_form=form is not None)
    selected.input(work.show, selected, view, **QUIET)
    timer.tick(work.tick, [selected, seen], [ended, selected, *view], **QUIET)
    stop.click(work.stop, selected, stop, **QUIET)
    once = QUIET | {"concurrency_limit": 1, "concurrency_id": "generate"}  # so that a second click sees the first
    again = go_on.click(work.go_on, selected, selected, **once)
    again.success(work.refresh, selected, shown, **QUIET)
    if form is not None:
        teacher = form.inputs[0]
        gr.on(None, work.consent_needed, teacher, form.policy, **QUIET)
        teacher.input(work.teacher_chosen, teacher, [form.ages, form.policy], **QUIET)
        few = QUIET | {"concurrency_limit": 1}  # each is a process that walks the whole plan
        form.estimate.click(work.estimate, form.inputs, form.estimated, **few)
        begun = form.generate.click(work.begin, form.inputs, selected, **once)
        begun.success(work.refresh, selected, shown, **QUIET)
        begun.success(work.consent_needed, teacher, form.policy, **QUIET)
    return Runs(selected, work.refresh, shown, ended)


class _Generation:
    """What happens on the page's events. Nothing here is about one visitor, and nothing is kept between two events."""

    def __init__(self, store: Store, settings: Settings, who: Who, *, has_form: bool) -> None:
        self._store = store
        self._who = who
        self._ledger = store.ledger
        self._settings = settings
        self._has_form = has_form

    def refresh(self, selected: str | None, request: gr.Request) -> list[Any]:
        """Everything anew; without a selected run the newest one is selected."""
        runs = self._ledger.runs(RUNS)
        run = _find(runs, selected)
        form = self._form(request) if self._has_form else []
        return [gr.update(visible=bool(runs)), self._list(runs, run), *self._view(run, runs, request), *form]

    def _form(self, request: gr.Request) -> list[Any]:
        """Ages are asked for where there are any, and the buttons are dead, with the reason, for who may not ask."""
        why = refusal(self._who(request), Role.CURATOR, ASK)
        pressed = gr.update(interactive=not why)
        ages = gr.update(visible=not self._store.label_values("age").isdisjoint(AGES))
        return [ages, gr.update(value=f"<p>{html.escape(why)}</p>", visible=bool(why)), pressed, pressed]

    def show(self, selected: str, request: gr.Request) -> list[Any]:
        """Another run was selected."""
        runs = self._ledger.runs(RUNS)
        return self._view(_find(runs, selected), runs, request)

    def tick(self, selected: str | None, seen: str, request: gr.Request) -> list[Any]:
        """Look at the runs that are going; what has not changed is not sent, so nothing flickers."""
        runs = self._ledger.runs(RUNS)
        run = _find(runs, selected)
        signature = self._signature(run, runs)
        if signature == seen:
            return [gr.skip()] * 9
        ended = _going(seen) - _going(signature)
        return [signature if ended else gr.skip(), self._list(runs, run), *self._view(run, runs, request)]

    def consent_needed(self, teacher: str) -> Any:
        """Whether something has to be read before this teacher is asked."""
        return gr.update(visible=self._must_consent(teacher))

    def teacher_chosen(self, teacher: str) -> list[Any]:
        """Minors are left out where pictures go to OpenAI, unless somebody takes them in."""
        return [_ages(self._settings, teacher), self.consent_needed(teacher)]

    def estimate(self, request: gr.Request, *form: Any) -> Iterator[Any]:
        """What `python -m annotation generate … --dry-run` says."""
        yield gr.update(value=ESTIMATING, visible=True)
        try:
            require(self._who(request), Role.CURATOR, ASK)
            found = generation_process.estimate(self._settings, self._options(*form))
        except FaceLLMError as error:
            _warn("No estimate", error)
            yield gr.update(visible=False)
            return
        yield gr.update(value=_estimate_html(found))

    def begin(self, request: gr.Request, *form: Any) -> Any:
        """Start `python -m annotation generate …`, and wait until its run is there."""
        teacher, consent = form[0], form[-1]
        identity = self._who(request)
        try:
            require(identity, Role.CURATOR, ASK)
            options = self._options(*form)
            if self._must_consent(teacher):
                if not consent:
                    raise ConfigError("Read what is said about OpenAI above the button first, and tick its box.")
                self._ledger.acknowledge(POLICY_SUBJECT, identity.name)
            return self._start(self._settings.teachers[teacher].model, options)
        except FaceLLMError as error:
            _warn("Not started", error)
            raise gr.Error(visible=False, print_exception=False) from error  # so that nothing follows

    def go_on(self, selected: str, request: gr.Request) -> Any:
        """The same command again: it asks only what has no answer yet."""
        run = self._ledger.run(selected)
        try:
            require(self._who(request), Role.CURATOR, ASK)
            if run is None:
                raise DataError("That run is no longer there. Reload the page.")
            if not self._is_ours(run):
                raise ConfigError("Its teacher is none of the setting teachers. Go on with it in a terminal.")
            return self._start(run.teacher, json.loads(run.options))
        except FaceLLMError as error:
            _warn("Not started", error)
            raise gr.Error(visible=False, print_exception=False) from error

    def stop(self, selected: str, request: gr.Request) -> Any:
        """What is in flight is waited for; the next looks will show the run as stopped."""
        try:
            require(self._who(request), Role.CURATOR, "stop a run")
        except FaceLLMError as error:
            _warn("Not stopped", error)
            return gr.skip()
        self._ledger.request_stop(selected)
        return gr.update(value=STOPPING, interactive=False)

    def _start(self, model: str, options: dict[str, Any]) -> Any:
        if any(run.teacher == model and self._ledger.is_alive(run) for run in self._ledger.runs(RUNS)):
            raise BusyError(f"A run with {model} is going. Wait until it ends, or stop it.")
        started = generation_process.start(self._settings, options)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            over = started.has_ended  # before the look, so that a short run is seen
            for run in self._ledger.runs(RUNS):
                if run.pid == started.process.pid and run.started_at >= started.at:
                    return gr.update(choices=[(run.teacher, run.uuid)], value=run.uuid)
            if over:
                raise DataError(started.last_words)
            time.sleep(0.1)
        raise BusyError("It was started, but has not begun in a minute. Its log is in the folder generation.")

    def _options(self, teacher: str, attributes: list[str], together: str, *more: Any) -> dict[str, Any]:
        """The form as options of the command."""
        limit, ages, max_cost, _consent = more
        pictures, dollars = _number(limit, PICTURES), _number(max_cost, MAX_COST)
        if not attributes:
            raise ConfigError("No attribute is chosen. Choose at least one.")
        return {
            "model": teacher,
            "attributes": [] if len(attributes) == len(Attribute) else attributes,
            "per_image": together == TOGETHER,
            "limit": None if pictures is None else int(pictures),
            "exclude_ages": ages,
            "max_cost": dollars,
        }

    def _must_consent(self, teacher: str) -> bool:
        known = self._settings.teachers.get(teacher)
        return known is not None and is_openai(known.base_url) and not self._ledger.acknowledged(POLICY_SUBJECT)

    def _list(self, runs: Sequence[GenerationRun], run: GenerationRun | None) -> Any:
        choices = [(_run_label(each, self._look(each)), each.uuid) for each in runs]
        return gr.update(choices=choices, value=run.uuid if run else None)

    def _view(self, run: GenerationRun | None, runs: Sequence[GenerationRun], request: gr.Request) -> list[Any]:
        """Updates for all that shows one run, and for the timer."""
        timer = gr.Timer(active=any(self._look(each) is View.RUNNING for each in runs))
        if run is None:
            return ["", *[gr.update(visible=False)] * 3, "", "", timer]
        look, counts = self._look(run), self._ledger.task_counts(run.id or 0)
        log = generation_process.log_of(self._settings, run)
        running = look is View.RUNNING
        may = self._who(request).may(Role.CURATOR)
        word = STOPPING if run.stop_requested else "Stop"
        return [
            _head_html(run, look, counts),
            gr.update(visible=running and may, value=word, interactive=not run.stop_requested),
            gr.update(visible=may and self._is_ours(run) and _may_go_on(look, counts)),
            gr.update(visible=log is not None),
            generation_process.log_tail(log) if log else "",
            self._signature(run, runs),
            timer,
        ]

    def _is_ours(self, run: GenerationRun) -> bool:
        """Whether the form could have started it: whoever opens the page must not spend money on anything else."""
        told = json.loads(run.options)
        typed = told.get("base_url") or told.get("key_variable")
        return run.purpose is Purpose.GENERATE and told.get("model") in self._settings.teachers and not typed

    def _look(self, run: GenerationRun) -> View:
        if run.state is RunState.RUNNING and not self._ledger.is_alive(run):
            return View.INTERRUPTED
        return View(run.state.value)

    def _signature(self, run: GenerationRun | None, runs: Sequence[GenerationRun]) -> str:
        """What the page shows, in short: the same signature, the same page."""
        going = [[each.uuid, each.finished] for each in runs if self._look(each) is View.RUNNING]
        shown = run and [run.uuid, self._look(run), run.heartbeat_at.isoformat(), run.stop_requested]
        return json.dumps([going, [each.uuid for each in runs], shown])


def _going(signature: str) -> set[str]:
    """The runs that a signature tells to be going."""
    return {uuid for uuid, _finished in json.loads(signature)[0]} if signature else set()


def _ages(settings: Settings, teacher: str) -> list[str]:
    return list(MINORS) if is_openai(settings.teachers[teacher].base_url) else []


def _number(text: str, field: str) -> float | None:
    """What was typed into a field; None where it is empty."""
    if not text.strip():
        return None
    whole = field == PICTURES
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        number = math.nan
    if not number > 0 or math.isinf(number) or (whole and number != int(number)):
        wanted = "a whole number above 0" if whole else "a number above 0"
        raise ConfigError(f"The field {field} holds {text!r}; expected {wanted}, or nothing.")
    return number


def _warn(what: str, error: FaceLLMError) -> None:
    """Say what was not done, and why; of a title Gradio's page shows nothing."""
    gr.Warning(html.escape(f"{what}. {error}"))


def _find(runs: Sequence[GenerationRun], uuid: str | None) -> GenerationRun | None:
    """The run of this UUID, or the newest if it is not there or none is named."""
    return next((run for run in runs if run.uuid == uuid), runs[0] if runs else None)


def _may_go_on(look: View, counts: dict[TaskState, int]) -> bool:
    """Whether the same command again would have something to do."""
    unfinished = look in (View.INTERRUPTED, View.STOPPED, View.FAILED)
    return unfinished or (look is View.DONE and TaskState.FAILED in counts)


def _run_label(run: GenerationRun, look: View) -> str:
    facts = [run.teacher, str(look), f"{run.finished:,} of {run.total:,}"]
    facts += [f"${run.cost_usd:,.2f}"] if run.cost_usd else []
    return " · ".join([*facts, f"{run.started_at.astimezone():%-d %b %H:%M}"])


def _head_html(run: GenerationRun, look: View, counts: dict[TaskState, int]) -> str:
    """Teacher, state, progress, and what there is to say about the run at this moment."""
    share = 100 * min(1.0, run.finished / run.total) if run.total else 0
    bar = f'<div class="data-bar"><div style="width:{share:.1f}%"></div></div>' if look is not View.DONE else ""
    purpose = "" if run.purpose is Purpose.GENERATE else f"<span>{run.purpose.value}</span>"
    situation = _situation(run, look)
    return (
        f'<div class="data-title"><h3>{html.escape(run.teacher)}</h3>'
        f'<span class="data-state data-{look}">{look}</span>{purpose}</div>{bar}'
        f'<p role="status">{html.escape(" · ".join(_facts(run, look, counts)))}</p>'
        + (f"<p>{html.escape(situation)}</p>" if situation else "")
    )


def _facts(run: GenerationRun, look: View, counts: dict[TaskState, int]) -> list[str]:
    ends = (TaskState.REFUSED, TaskState.FILTERED, TaskState.CUT, TaskState.INVALID, TaskState.FAILED)
    facts = [f"{run.finished:,} of {run.total:,}"]
    facts += [f"{counts[state]:,} {state.value}" for state in ends if counts.get(state)]
    facts += [f"${run.cost_usd:,.4f}" if run.cost_usd < 1 else f"${run.cost_usd:,.2f}"] if run.cost_usd else []
    if look is View.RUNNING and not run.stop_requested and run.finished and run.total > run.finished:
        seconds = (run.heartbeat_at - run.started_at).total_seconds() / run.finished * (run.total - run.finished)
        facts.append(f"about {_duration(seconds)} left")
    elif run.ended_at is not None:
        facts.append(f"in {_duration((run.ended_at - run.started_at).total_seconds())}")
    return facts


def _situation(run: GenerationRun, look: View) -> str:
    match look:
        case View.RUNNING if run.stop_requested:
            return "Stopping: what has been sent is waited for and kept."
        case View.RUNNING if not run.finished:
            return "Waiting for the first answers."
        case View.RUNNING:
            return ""
        case View.INTERRUPTED:
            return "Its process is gone. All answers that came are kept; Continue asks for the rest."
        case View.WAITING:
            return f"{run.message} A batch is at the provider. To collect it: python -m annotation generate --resume"
        case View.DONE if not run.total:
            return "Nothing was missing: every question of it had been asked before."
        case _:
            return run.message


def _policy_html() -> str:
    """The text about OpenAI; its lines are wrapped for a terminal, and those that begin with a dash are a list."""
    lines = html.escape(OPENAI_POLICY).replace("\n  ", " ").splitlines()
    return "".join(f"<ul><li>{line[2:]}</li></ul>" if line.startswith("- ") else f"<p>{line}</p>" for line in lines)


def _estimate_html(found: dict[str, Any]) -> str:
    """What a dry run says, in two lines."""
    if not found["requests"]:
        return "<p>Nothing is missing: every question of it has been asked already.</p>"
    cost = "no price is known" if found["cost_usd"] is None else f"about ${found['cost_usd']:,.2f}"
    batch = f", ${found['cost_batch_usd']:,.2f} as a batch" if found["cost_batch_usd"] else ""
    again = found["second_answers"]
    tokens = f"{found['input_tokens']:,.0f} tokens in, {found['output_tokens']:,.0f} out"
    return (
        f"<p><b>{found['requests']:,} requests, {cost}</b>{batch}</p>"
        f"<p>{tokens}; about {_duration(found['seconds'])} ({html.escape(found['basis'])}).</p>"
        + (f"<p>{html.escape(second_answers(again, found['model']))}</p>" if again else "")
    )


def _duration(seconds: float) -> str:
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
