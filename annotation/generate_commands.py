"""python -m annotation generate: ask a teacher for all pairs that are missing."""

import asyncio
import json
import signal
import sys
from contextlib import closing
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from annotation.batch import BatchRun
from annotation.dry_run import estimate_plan
from annotation.estimate import as_json, describe
from annotation.fairface import AGES
from annotation.generate import Generation, Limits, Outcome, Progress
from annotation.models import RunState, TaskState
from annotation.plan import Plan
from annotation.prices import Price, price_of
from annotation.store import Store
from annotation.teacher import Parameters, Teacher
from annotation.usage_policy import OPENAI_POLICY, POLICY_SUBJECT, is_openai
from facellm.config import Settings, TeacherEndpoint, load_settings
from facellm.data import Attribute
from facellm.errors import ConfigError, FaceLLMError
from facellm.remote_server import Server

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
app = typer.Typer()


@app.command("generate")
def generate_command(
    model: Annotated[str, typer.Option(help="The teacher: a name in the setting teachers, or a model's name.")],
    base_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible server, such as http://127.0.0.1:8000/v1; else OpenAI.")
    ] = None,
    key_variable: Annotated[
        str | None, typer.Option(help=f"The environment variable that holds the key; {OPENAI_KEY} for OpenAI.")
    ] = None,
    attributes: Annotated[
        str | None, typer.Option(help="Only these, with commas between; all eight unless given.")
    ] = None,
    per_image: Annotated[
        bool,
        typer.Option("--per-image/--per-attribute", help="All attributes of an image in one request, or one each."),
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="The most requests at once.")] = 32,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 120.0,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Stop before so many USD are spent.")] = None,
    price: Annotated[
        str | None, typer.Option(help="USD per million input,output tokens where prices.json does not know the model.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N images.")] = None,
    exclude_ages: Annotated[
        str | None, typer.Option(help="Leave images with these age labels out, such as 0-2,3-9,10-19.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 400,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="The server's own unless given.")] = None,
    seed: Annotated[int | None, typer.Option(help="For servers that heed it.")] = None,
    detail: Annotated[
        str, typer.Option(help="How closely the picture is looked at: low, high, original or auto.")
    ] = "low",
    reasoning_effort: Annotated[
        str | None, typer.Option(help="For models that think first, such as none or low.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how much it would be, and send nothing.")] = False,
    batch: Annotated[
        bool, typer.Option("--batch", help="Send it through the Batch API: half the price, in a day.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only collect batches, and send again what they lack.")
    ] = False,
    poll: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at the batches.")] = 60.0,
    accept_usage_policy: Annotated[
        bool, typer.Option("--accept-usage-policy", help="You have read what is said before the first run with OpenAI.")
    ] = False,
    as_json_: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Ask a teacher for all pairs that are missing; what was asked before is never asked again.

    Ctrl-C ends what is in flight and stores it; a second one leaves at once. Run it again to go on. Exits with 1 where
    the run failed, and with 3 where some questions were left without an answer by network or server faults.
    """
    settings = load_settings()
    told = {name: value for name, value in locals().items() if name not in ("settings", "as_json_")}
    endpoint = _endpoint(settings, model, base_url, key_variable, price)
    parameters = _parameters(
        detail=detail,
        max_completion_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        reasoning_effort=reasoning_effort,
    )
    plan = Plan(
        teacher=endpoint.model,
        parameters=parameters.text,
        attributes=_attributes(attributes),
        per_image=per_image,
        excluded_ages=_ages(exclude_ages),
        limit=limit,
    )
    limits = Limits(concurrency, max_cost, _price(endpoint))
    if max_cost is not None and limits.price is None:
        raise ConfigError(
            f"No price of {endpoint.model} is known, so --max-cost cannot be kept. Add --price IN,OUT in USD per "
            "million tokens; for a server of your own, 0,0."
        )
    with closing(Store.open(settings.data_dir)) as store:
        if dry_run:
            found = estimate_plan(store, plan, parameters, limits)
            print(json.dumps(as_json(found), indent=2) if as_json_ else describe(found))
            return
        _check_policy(store, endpoint.base_url, accept_usage_policy, settings.reviewer)
        teacher = Teacher(Server(endpoint.base_url, endpoint.api_key, timeout), endpoint.model, parameters)
        if batch or resume:
            run = BatchRun(
                *(store, teacher, plan, limits),
                submit=batch,
                poll_s=poll,
                options=told,
                say=lambda text: print(text, file=sys.stderr, flush=True),
            )
            outcome = asyncio.run(_stoppable(run, "Leaving: batches go on at the provider."))
        else:
            outcome = asyncio.run(_generate(store, teacher, plan, limits, told))
        print(json.dumps(_outcome_numbers(outcome), indent=2) if as_json_ else _outcome_text(outcome, limits))
    if outcome.state is RunState.FAILED:
        raise FaceLLMError(outcome.message)
    if outcome.progress.ends and outcome.progress.ends[TaskState.FAILED]:
        raise typer.Exit(3)


async def _generate(store: Store, teacher: Teacher, plan: Plan, limits: Limits, told: dict[str, Any]) -> Outcome:
    """Run it, with a line of progress and a Ctrl-C that drains."""
    line = _Line(sys.stderr.isatty())
    run = Generation(store, teacher, plan, limits, options=told, watch=line.show)
    try:
        return await _stoppable(run, "Stopping: what is in flight is waited for.")
    finally:
        line.end()


async def _stoppable(run: Generation | BatchRun, said: str) -> Outcome:
    """Run it, with a Ctrl-C that drains; the second one leaves at once."""
    loop, work = asyncio.get_running_loop(), asyncio.current_task()

    def interrupted() -> None:
        if run.stopping and work is not None:
            work.cancel()
        else:
            print(f"\n{said} Press Ctrl-C again to leave at once.", file=sys.stderr)
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
        print(
            f"\r\x1b[2K{text}" if self._is_terminal else text,
            end="" if self._is_terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def end(self) -> None:
        if self._shown and self._is_terminal:
            print(file=sys.stderr)


def _progress_text(progress: Progress) -> str:
    share = f"{progress.finished}/{progress.total}"
    eta = "" if progress.eta_s is None else f", {_span(progress.eta_s)} left"
    refused = progress.ends[TaskState.REFUSED] if progress.ends else 0
    speed = progress.finished / progress.seconds if progress.seconds else 0.0
    return f"{share} ({speed:.1f}/s{eta}), {refused} refused, {progress.limited} too early, {progress.cost_usd:.4f} USD"


def _outcome_numbers(outcome: Outcome) -> dict[str, Any]:
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


def _outcome_text(outcome: Outcome, limits: Limits) -> str:
    progress = outcome.progress
    if not progress.total:
        return "Nothing is missing: every question of this plan has been asked."
    ends = ", ".join(f"{number} {state.value}" for state, number in (progress.ends or {}).items() if number)
    ends = ends or "all of it was there already"
    cost = f"{progress.cost_usd:.4f} USD" if limits.price else "cost unknown (no price)"
    left = progress.total - progress.finished
    why = f"{outcome.message} {left} are left; run it again to go on." if left else outcome.message
    return f"{progress.finished} of {progress.total} done in {_span(progress.seconds)}: {ends}; {cost}. {why}".rstrip()


def _span(seconds: float) -> str:
    """Such as `2 h 10 min`, `3 min 5 s` or `12 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def _endpoint(
    settings: Settings, model: str, base_url: str | None, key_variable: str | None, price: str | None
) -> TeacherEndpoint:
    """The teacher that is meant; what was typed wins over the settings."""
    known = settings.teachers.get(model)
    url = base_url or (known.base_url if known else OPENAI_URL)
    same = known is not None and url == known.base_url  # a key goes only where it was meant to go
    variable = key_variable or (known.key_variable if known and same else None)
    if variable is None and url == OPENAI_URL:
        variable = OPENAI_KEY
    return TeacherEndpoint(
        base_url=url,
        model=known.model if known else model,
        key_variable=variable,
        price=_typed_price(price) if price else (known.price if known else None),
    )


def _typed_price(text: str) -> tuple[float, float]:
    try:
        into, out = (float(part) for part in text.split(","))
    except ValueError:
        into = out = -1.0
    if min(into, out) < 0:
        raise ConfigError(
            f"--price is {text!r}. Expected two numbers such as 2.5,10: USD per million tokens in and out."
        )
    return into, out


def _price(endpoint: TeacherEndpoint) -> Price | None:
    if endpoint.price is None:
        return price_of(endpoint.model) if is_openai(endpoint.base_url) else None
    into, out = endpoint.price
    return Price(input=into, cached_input=into, output=out, batch_factor=0.5)


def _parameters(**told: Any) -> Parameters:
    try:
        return Parameters.model_validate(told)
    except ValueError as error:
        first = error.errors()[0]  # type: ignore[attr-defined]
        name = ".".join(map(str, first["loc"]))
        raise ConfigError(f"--{name} is {first['input']!r}: {first['msg']}.") from error


def _attributes(text: str | None) -> tuple[Attribute, ...]:
    names = [attribute.value for attribute in Attribute]
    wanted = names if text is None else [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise ConfigError(f"--attributes names {', '.join(unknown) or 'nothing'}. Expected some of {', '.join(names)}.")
    return tuple(attribute for attribute in Attribute if attribute.value in wanted)


def _ages(text: str | None) -> tuple[str, ...]:
    wanted = [] if text is None else [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [age for age in wanted if age not in AGES]:
        raise ConfigError(f"--exclude-ages names {', '.join(unknown)}. Expected some of {', '.join(AGES)}.")
    return tuple(wanted)


def _check_policy(store: Store, base_url: str, accepted: bool, who: str) -> None:
    """Once before the first run with OpenAI, somebody has to have read what its usage policy says about this work."""
    if not is_openai(base_url) or store.ledger.acknowledged(POLICY_SUBJECT):
        return
    if not accepted and sys.stdin.isatty():
        print(OPENAI_POLICY)
        accepted = typer.confirm("Go on?")
    if not accepted:
        raise ConfigError(
            f"{urlsplit(base_url).hostname} has a usage policy that concerns this work, and nobody has acknowledged it "
            "yet. Run it in a terminal to read what it says, or add --accept-usage-policy if you have."
        )
    store.ledger.acknowledge(POLICY_SUBJECT, who)
