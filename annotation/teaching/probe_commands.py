"""python -m annotation probe: does a teacher look at the picture, or repeat what it was told?"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from annotation.statistics.intervals import Mean, Share
from annotation.store import Store
from annotation.teaching.ledger import Ledger
from annotation.teaching.probe import ProbePlan, told_parameters
from annotation.teaching.probe_report import BlankRow, EchoRow, ProbeReport, probe_reports
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


@app.command("probe")
def probe_command(
    model: Annotated[str, typer.Option(help="The teacher: a name in the setting teachers, or a model's name.")],
    base_url: BaseUrl = None,
    key_variable: KeyVariable = None,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Of the images that it has described, the same ones each time.")
    ] = 0.01,
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
    report: Annotated[bool, typer.Option("--report", help="Ask nothing: say what was found so far.")] = False,
    accept_usage_policy: AcceptUsagePolicy = False,
    as_json: AsJson = False,
) -> None:
    """Ask a teacher again with a blank picture and with false hints, and say how often it only repeats the labels.

    Its prompts and options have to be those of its stored pairs. Ctrl-C, going on later and the exit codes are as for
    generate.
    """
    settings = load_settings()
    told = {name: value for name, value in locals().items() if name not in ("settings", "as_json")}
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
    plan = ProbePlan(to.endpoint.model, to.parameters.text, share, typed_ages(exclude_ages))
    with closing(Store.of(settings)) as store:
        if report:
            found = probe_reports(store.ledger, plan.teacher)
            print(json.dumps([asdict(each) for each in found], indent=2) if as_json else _text(found))
            return
        _check_answers(store.ledger, plan)
        if dry_run:
            rough = rough_estimate(store, plan, plan.teacher, to.parameters, to.limits.price)
            print(json.dumps(asdict(rough), indent=2) if as_json else rough_text(rough))
            return
        check_policy(store, to.endpoint.base_url, accept_usage_policy, settings.reviewer)
        outcome = asyncio.run(shown(store, to.teacher(), plan, to.limits, told))
        found = probe_reports(store.ledger, plan.teacher)
        numbers = {"run": outcome_numbers(outcome), "reports": [asdict(each) for each in found]}
        print(json.dumps(numbers, indent=2) if as_json else f"{outcome_text(outcome, to.limits)}\n\n{_text(found)}")
    raise_unless_done(outcome)


def _check_answers(ledger: Ledger, plan: ProbePlan) -> None:
    found = told_parameters(ledger, plan.teacher)
    if found[plan.parameters]:
        return
    others = ", ".join(f"{number} with {parameters}" for parameters, number in found.most_common(3)) or "none at all"
    raise ConfigError(
        f"{plan.teacher} has no stored pairs of today's prompts with {plan.parameters} to compare with; there are "
        f"{others}. Give the options with which they were generated, or generate some first."
    )


def _text(found: Sequence[ProbeReport]) -> str:
    """The reports for reading."""
    return "\n\n".join(map(_report_text, found)) or "Nothing was probed yet."


def _report_text(found: ProbeReport) -> str:
    lines = [f"{found.teacher} ({found.prompt_version}, {found.parameters}): {found.images} images probed", ""]
    lines += ["blank picture  answered  declined    likeness to the stored answer   of two faces' answers"]
    lines += [_blank_line(row) for row in found.blank]
    lines += ["", f"{'label':13}{'asked about':13}{'named of a blank picture':30}{'false hint: followed':28}"]
    lines[-1] += f"{'picture':>8}{'unclear':>8}{'declined':>9}"
    return "\n".join([*lines, *(_echo_line(row) for row in found.echo)])


def _blank_line(row: BlankRow) -> str:
    answered = row.ends.get("ok", 0)
    declined = sum(row.ends.values()) - answered
    return f"{row.attribute:13}{answered:>10}{declined:>10}{_mean(row.likeness):>33}{_mean(row.other_faces):>24}"


def _echo_line(row: EchoRow) -> str:
    about = row.attribute.value if row.attribute else "(all)"
    start = f"{row.label.replace('_', ' '):13}{about:13}{_share(row.blank):30}{_share(row.echo):28}"
    return start + f"{row.follows_picture:>8}{row.unclear:>8}{row.declined:>9}"


def _mean(found: Mean | None) -> str:
    if found is None:
        return "-"
    return f"{found.value:.2f}" + ("" if found.low is None else f" ({found.low:.2f} to {found.high:.2f})")


def _share(found: Share | None) -> str:
    if found is None:
        return "-"
    low, high = 100 * found.low, 100 * found.high
    return f"{found.count}/{found.of} {100 * found.value:.0f} % ({low:.0f} to {high:.0f})"
