"""python -m annotation judge: another model scores pairs against their pictures and labels."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Annotated, Any

import typer

from annotation.models import Status
from annotation.store import Store
from annotation.teaching.families import family
from annotation.teaching.judge import JudgePlan
from annotation.teaching.judge_report import ENOUGH, Calibration, calibrations
from annotation.teaching.ledger import Ledger
from annotation.teaching.rough_estimate import rough_estimate, rough_text
from annotation.teaching.run_display import outcome_numbers, outcome_text, raise_unless_done, shown
from annotation.teaching.teacher_options import (
    AcceptUsagePolicy,
    AsJson,
    BaseUrl,
    Concurrency,
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
from facellm.errors import ConfigError

app = typer.Typer()


@app.command("judge")
def judge_command(
    model: Annotated[
        str | None, typer.Option(help="The judge: a name in the setting teachers, or a model's name.")
    ] = None,
    base_url: BaseUrl = None,
    key_variable: KeyVariable = None,
    share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Only this share of the pairs, the same ones each time.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only N pairs, drawn at random, the same each time.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only pairs of this status.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Only pairs that this model has written.")] = None,
    same_family: Annotated[
        bool, typer.Option("--same-family", help="Let a model judge what its own family has written.")
    ] = False,
    concurrency: Concurrency = 32,
    timeout: Timeout = 120.0,
    max_cost: MaxCost = None,
    price: PriceOption = None,
    exclude_ages: ExcludeAges = None,
    max_tokens: MaxTokens = 400,
    temperature: Temperature = None,
    seed: Seed = None,
    detail: Detail = "low",
    reasoning_effort: ReasoningEffort = None,
    dry_run: DryRun = False,
    report: Annotated[
        bool, typer.Option("--report", help="Ask nothing: say how far the verdicts agree with people's decisions.")
    ] = False,
    accept_usage_policy: AcceptUsagePolicy = False,
    as_json: AsJson = False,
) -> None:
    """Let another model score pairs against picture and labels; low scores become flags, no pair is judged twice.

    Ctrl-C, going on later and the exit codes are as for generate.
    """
    settings = load_settings()
    told = {name: value for name, value in locals().items() if name not in ("settings", "as_json")}
    with closing(Store.of(settings)) as store:
        if report:
            found = [each for each in calibrations(store.ledger) if model in (None, each.judge.model)]
            print(json.dumps([_numbers(each) for each in found], indent=2) if as_json else _text(found))
            return
        if model is None:
            raise ConfigError("No judge is named. Add --model NAME, or --report to see what was judged so far.")
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
        plan = JudgePlan(
            judge=to.endpoint.model,
            parameters=to.parameters.text,
            status=status,
            teacher=teacher,
            share=share,
            limit=limit,
            excluded_ages=typed_ages(exclude_ages),
        )
        if not same_family:
            _check_family(store.ledger, plan)
        if dry_run:
            rough = rough_estimate(store, plan, to.endpoint.model, to.parameters, to.limits.price)
            print(json.dumps(asdict(rough), indent=2) if as_json else rough_text(rough))
            return
        check_policy(store, to.endpoint.base_url, accept_usage_policy, settings.reviewer)
        outcome = asyncio.run(shown(store, to.teacher(), plan, to.limits, told))
        print(json.dumps(outcome_numbers(outcome), indent=2) if as_json else outcome_text(outcome, to.limits))
    raise_unless_done(outcome)


def _check_family(ledger: Ledger, plan: JudgePlan) -> None:
    """Models of one family make the same mistakes and like each other's answers."""
    relatives = [f"{name} ({count} pairs)" for name, count in plan.teachers(ledger).items() if _related(name, plan)]
    if relatives:
        raise ConfigError(
            f"{plan.judge} seems to be of the family of {', '.join(sorted(relatives))}, which it is to judge, and "
            "shares its faults. Take a judge of another family, choose other pairs by --teacher, or add --same-family."
        )


def _related(teacher: str, plan: JudgePlan) -> bool:
    return family(teacher) == family(plan.judge)


def _numbers(found: Calibration) -> dict[str, Any]:
    """Everything that `judge --report --json` prints of one judge."""
    return asdict(found) | {"enough": found.enough, "needed": ENOUGH}


def _text(found: Sequence[Calibration]) -> str:
    """The same for reading."""
    return "\n\n".join(map(_judge_text, found)) or "Nothing was judged yet."


def _judge_text(found: Calibration) -> str:
    without = "".join(f", {number} {state}" for state, number in found.without.items())
    judge = found.judge
    lines = [f"{judge.model} ({judge.prompt_version}, {judge.parameters})"]
    lines += [f"{found.verdicts} verdicts{without}; {found.objections} object"]
    lines += [f"{found.compared} of these pairs are decided about by people"]
    if found.agreement is None:
        return "\n".join(lines)
    statuses = list(found.scores[1])
    lines += ["", f"{'':10}" + "".join(f"{status:>10}" for status in statuses)]
    for score in sorted(found.scores, reverse=True):
        lines.append(f"score {score:<4}" + "".join(f"{found.scores[score][status]:>10}" for status in statuses))
    table = f"both for {found.both_for}, both against {found.both_against}, "
    table += f"judge alone against {found.judge_against}, people alone against {found.people_against}"
    lines += ["", table, f"agreement {found.agreement:.3f}, Cohen's kappa {_kappa_text(found)}"]
    if not found.enough:
        lines.append(f"Fewer than {ENOUGH} pairs have both, so do not rely on these figures yet.")
    return "\n".join(lines)


def _kappa_text(found: Calibration) -> str:
    if found.kappa is None:
        return "not defined, since one side always says the same"
    if found.kappa_low is None:
        return f"{found.kappa:.3f}"
    return f"{found.kappa:.3f} (95 % interval {found.kappa_low:.3f} to {found.kappa_high:.3f})"
