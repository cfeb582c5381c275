"""A run of the engine as a command shows it: a line of progress, a Ctrl-C that drains, and how it ended.

The one surprising fact: Ctrl-C is no exception here. It asks the run to stop, and what is in flight is waited for and
stored; only the second one leaves at once.
"""

import asyncio
import signal
import sys
from typing import Any

import typer

from annotation.models import RunState, TaskState
from annotation.store import Store
from annotation.teaching.batch import BatchRun
from annotation.teaching.generate import Generation, Limits, Outcome, Progress
from annotation.teaching.plan import Work
from annotation.teaching.teacher import Teacher
from facellm.errors import FaceLLMError


async def shown(store: Store, teacher: Teacher, plan: Work, limits: Limits, told: dict[str, Any]) -> Outcome:
    """Run it, with a line of progress and a Ctrl-C that drains."""
    line = _Line(sys.stderr.isatty())
    run = Generation(store, teacher, plan, limits, options=told, watch=line.show)
    try:
        return await stoppable(run, "Stopping: what is in flight is waited for.")
    finally:
        line.end()


async def stoppable(run: Generation | BatchRun, said: str) -> Outcome:
    """Run it, with a Ctrl-C that says so and drains; the second one leaves at once."""
    loop, work = asyncio.get_running_loop(), asyncio.current_task()

    def interrupted() -> None:
        if run.stopping and work is not None:
            work.cancel()
        else:
            typer.echo(f"\n{said} Press Ctrl-C again to leave at once.", err=True)
            run.stop("Stopped by Ctrl-C.")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted)
    try:
        return await run.run()
    except asyncio.CancelledError:
        raise FaceLLMError("Left at once; what was under way is seen to by the next run.") from None


class _Line:
    """One line on a terminal that says how far it is; elsewhere a line every half minute."""

    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal
        self._next = 0.0
        self._shown = False

    def show(self, progress: Progress) -> None:
        if not self._is_terminal and progress.seconds < self._next:
            return
        self._next = progress.seconds + 30
        self._shown = True
        text = _progress_text(progress)
        typer.echo(f"\r\x1b[2K{text}" if self._is_terminal else text, nl=not self._is_terminal, err=True)

    def end(self) -> None:
        if self._shown and self._is_terminal:
            typer.echo(err=True)


def _progress_text(progress: Progress) -> str:
    share = f"{progress.finished}/{progress.total}"
    eta = "" if progress.eta_s is None else f", {_span(progress.eta_s)} left"
    refused = progress.ends[TaskState.REFUSED] if progress.ends else 0
    speed = progress.finished / progress.seconds if progress.seconds else 0.0
    cost = f"{progress.cost_usd:.4f} USD"
    return f"{share} ({speed:.1f}/s{eta}), {refused} refused, {progress.limited} times told to slow down, {cost}"


def outcome_numbers(outcome: Outcome) -> dict[str, Any]:
    """How a run ended, for `json.dumps`."""
    progress = outcome.progress
    return {
        "run": outcome.uuid,
        "state": outcome.state,
        "message": outcome.message,
        "total": progress.total,
        "finished": progress.finished,
        "ends": {state.value: number for state, number in sorted((progress.ends or {}).items())},
        "requests": progress.asked,
        "limited": progress.limited,
        "cost_usd": progress.cost_usd,
        "seconds": progress.seconds,
    }


def outcome_text(outcome: Outcome, limits: Limits) -> str:
    """The same for reading."""
    progress = outcome.progress
    if not progress.total:
        return f"Nothing is missing: every question of this plan has been asked. {outcome.message}".rstrip()
    ends = ", ".join(f"{number} {state.value}" for state, number in (progress.ends or {}).items() if number)
    by_others = progress.finished - sum((progress.ends or {}).values())
    if by_others > 0:
        ends = f"{ends}, {by_others} by another run" if ends else "all of it by another run"
    cost = f"{progress.cost_usd:.4f} USD" if limits.price else "cost unknown (no price)"
    left = progress.total - progress.finished
    message = "" if outcome.state is RunState.FAILED else outcome.message  # that is printed as the command's error
    why = f"{message} {left} are left; run it again to go on.".strip() if left else message
    done = f"{progress.finished} of {progress.total} done in {_span(progress.seconds)}"
    return f"{done}: {ends or 'nothing'}; {cost}. {why}".rstrip()


def _span(seconds: float) -> str:
    """Such as `2 h 10 min`, `3 min 5 s` or `12 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def raise_unless_done(outcome: Outcome) -> None:
    """Make a command exit with 1 where its run failed, and with 3 where questions were left by network faults.

    Raises:
        FaceLLMError: the run failed.
        typer.Exit: some questions have no answer.
    """
    if outcome.state is RunState.FAILED:
        raise FaceLLMError(outcome.message)
    if outcome.progress.ends and outcome.progress.ends[TaskState.FAILED]:
        raise typer.Exit(3)
