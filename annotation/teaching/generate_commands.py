"""python -m annotation generate: ask a teacher for all pairs that are missing."""

import asyncio
import json
import sys
from contextlib import closing
from dataclasses import replace
from typing import Annotated

import typer

from annotation.store import Store
from annotation.teaching.batch import BatchRun
from annotation.teaching.batch_ledger import batched_tasks
from annotation.teaching.dry_run import count_second_answers, estimate_plan
from annotation.teaching.estimate import as_json, describe, second_answers
from annotation.teaching.generate import Limits
from annotation.teaching.plan import Plan
from annotation.teaching.run_display import outcome_numbers, outcome_text, raise_unless_done, shown, stoppable
from annotation.teaching.teacher_options import (
    AcceptUsagePolicy,
    AsJson,
    BaseUrl,
    Concurrency,
    Connection,
    Detail,
    DryRun,
    ExcludeAges,
    KeyVariable,
    MaxCost,
    MaxTokens,
    PriceOption,
    ReasoningEffort,
    Seed,
    Temperature,
    Timeout,
    check_policy,
    connection,
    typed_ages,
)
from facellm.config import load_settings
from facellm.data import Attribute
from facellm.errors import ConfigError

app = typer.Typer()


@app.command("generate")
def generate_command(
    model: Annotated[str, typer.Option(help="The teacher: a name in the setting teachers, or a model's name.")],
    base_url: BaseUrl = None,
    key_variable: KeyVariable = None,
    attributes: Annotated[
        str | None, typer.Option(help="Only these, with commas between; all eight unless given.")
    ] = None,
    per_image: Annotated[
        bool,
        typer.Option("--per-image/--per-attribute", help="All attributes of an image in one request, or one each."),
    ] = False,
    concurrency: Concurrency = 32,
    timeout: Timeout = 120.0,
    max_cost: MaxCost = None,
    price: PriceOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N images.")] = None,
    exclude_ages: ExcludeAges = None,
    max_tokens: MaxTokens = 400,
    temperature: Temperature = None,
    seed: Seed = None,
    detail: Detail = "low",
    reasoning_effort: ReasoningEffort = None,
    dry_run: DryRun = False,
    batch: Annotated[
        bool, typer.Option("--batch", help="Send it through the Batch API: half the price, in a day.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only collect batches, and send again what they lack.")
    ] = False,
    poll: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at the batches.")] = 60.0,
    accept_usage_policy: AcceptUsagePolicy = False,
    as_json_: AsJson = False,
) -> None:
    """Ask a teacher for all pairs that are missing; what was asked before is never asked again.

    Ctrl-C ends what is in flight and stores it; a second one leaves at once. Run it again to go on. Exits with 1 where
    the run failed, and with 3 where some questions were left without an answer by network or server faults.
    """
    settings = load_settings()
    told = {name: value for name, value in locals().items() if name not in ("settings", "as_json_")}
    to = connection(
        settings,
        model,
        base_url,
        key_variable,
        concurrency=concurrency,
        timeout=timeout,
        max_cost=max_cost,
        price=price,
        detail=detail,
        max_completion_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        reasoning_effort=reasoning_effort,
    )
    plan = Plan(
        teacher=to.endpoint.model,
        parameters=to.parameters.text,
        attributes=_attributes(attributes),
        per_image=per_image,
        excluded_ages=typed_ages(exclude_ages),
        limit=limit,
    )
    with closing(Store.of(settings)) as store:
        if dry_run:
            found = estimate_plan(store, plan, to.parameters, to.limits)
            print(json.dumps(as_json(found), indent=2) if as_json_ else describe(found))
            return
        check_policy(store, to.endpoint.base_url, accept_usage_policy, settings.reviewer)
        if number := 0 if resume else count_second_answers(store, plan):
            print(second_answers(number, plan.teacher), file=sys.stderr)
        limits = _with_expected_cost(store, plan, to)
        if batch or resume:
            run = BatchRun(
                *(store, to.teacher(), plan, limits),
                submit=batch,
                poll_s=poll,
                options=told,
                say=lambda text: print(text, file=sys.stderr, flush=True),
            )
            outcome = asyncio.run(stoppable(run, "Leaving: batches go on at the provider."))
            if not (batch or as_json_ or outcome.progress.total):
                print(_no_batch(plan.count(store.ledger).total))
                return
        else:
            outcome = asyncio.run(shown(store, to.teacher(), plan, limits, told))
            if waiting := batched_tasks(store.ledger, plan.teacher):
                print(f"{waiting} questions wait in batches. Collect them with --resume.", file=sys.stderr)
        print(json.dumps(outcome_numbers(outcome), indent=2) if as_json_ else outcome_text(outcome, to.limits))
    raise_unless_done(outcome)


def _with_expected_cost(store: Store, plan: Plan, to: Connection) -> Limits:
    """The limits, knowing what the first requests may cost while none has been answered."""
    if to.limits.max_cost is None:
        return to.limits
    found = estimate_plan(store, plan, to.parameters, to.limits)
    return replace(to.limits, expected_cost=(found.cost_usd or 0.0) / max(found.requests, 1))


def _no_batch(left: int) -> str:
    """What to say where there was no batch to collect."""
    if not left:
        return "There is no batch to collect, and every question of this plan has been asked."
    return f"There is no batch to collect. {left} questions have not been asked: leave --resume out, or add --batch."


def _attributes(text: str | None) -> tuple[Attribute, ...]:
    names = [attribute.value for attribute in Attribute]
    wanted = names if text is None else [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise ConfigError(f"--attributes names {', '.join(unknown) or 'nothing'}. Expected some of {', '.join(names)}.")
    return tuple(attribute for attribute in Attribute if attribute.value in wanted)
