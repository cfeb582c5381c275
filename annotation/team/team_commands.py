"""The commands about the team's work: progress, reviewers, audit, replay; python -m annotation --help.

The one surprising fact: `audit judge` is no command. A pair is judged by looking at its picture, in the Team tab.
"""

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Annotated, Any

import typer

from annotation.fairface import ethnicity
from annotation.pair_filter import PairFilter
from annotation.statistics.intervals import Share
from annotation.store import Store
from annotation.team.audits import AuditEstimate
from annotation.team.progress import Progress, Rate
from annotation.team.reviewers import FAST, ReviewerQuality
from facellm.config import load_settings

LATEST = 14  # days of the table
SHOWN = 20  # audits, or differences
FAST_SHOWN = 10  # pairs that were accepted too fast
app = typer.Typer()
audit_app = typer.Typer(no_args_is_help=True, help="A random sample of what was curated, judged once more.")
app.add_typer(audit_app, name="audit")
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


@app.command("progress")
def progress_command(as_json: AsJson = False) -> None:
    """How far the work has come: open, accepted over time, accept rates by attribute and group, remaining error."""
    with _store() as store:
        progress, audits = store.team.progress(), store.audits.estimate()
    if as_json:
        print(json.dumps(_progress_numbers(progress, audits), indent=2))
    else:
        print("\n".join(_progress_report(progress, audits)))


@app.command("reviewers")
def reviewers_command(as_json: AsJson = False) -> None:
    """How well and fast each reviewer works: decisions, times, known-bad pairs caught, differences, fast accepts."""
    with _store() as store:
        reviewers = store.team.reviewers()
    if as_json:
        numbers = [dataclasses.asdict(each) | {"decisions": each.decisions} for each in reviewers]
        print(json.dumps({"fast_milliseconds": FAST, "reviewers": numbers}, indent=2))
    else:
        print("\n".join(_reviewers_report(reviewers)))


@app.command("replay")
def replay_command(as_json: AsJson = False) -> None:
    """Replay all events, and compare every status, text and verdict with what is stored; 1 if any differs."""
    with _store() as store:
        replay = store.team.replay()
    if as_json:
        statuses = {status.value: number for status, number in replay.statuses.items()}
        print(json.dumps(dataclasses.asdict(replay) | {"statuses": statuses}, indent=2))
    else:
        found = ", ".join(f"{number:,} {status.value}" for status, number in replay.statuses.items() if number)
        print(f"{replay.events:,} events of {replay.pairs:,} pairs give {found or 'nothing'}.")
        print(f"{replay.differing:,} pairs are stored otherwise." if replay.differing else "All is stored like that.")
        for each in replay.differences[:SHOWN]:
            print(f"  pair {each.pair_id}: {each.what} is {each.stored}, replayed {each.replayed}")
    if replay.differing:
        sys.exit(1)


@audit_app.command("draw")
def draw_command(
    count: Annotated[int, typer.Argument(min=1, metavar="N", help="How many pairs.")],
    by_attribute: Annotated[
        bool, typer.Option("--by-attribute", help="As many of each attribute, whatever their share.")
    ] = False,
    of: Annotated[
        str, typer.Option("--filter", help="Only of such pairs: 'attribute=skin race=Black'; it speaks for those.")
    ] = "",
    who: Annotated[str | None, typer.Option("--as", help="Who draws; the setting reviewer unless given.")] = None,
) -> None:
    """Draw accepted and edited pairs at random, to be judged in the Team tab."""
    only = PairFilter.parse(of)
    with _store() as store:
        drawn = store.audits.draw(who or load_settings().reviewer, count, by_attribute=by_attribute, of=only)
    print(f"{drawn:,} pairs drawn. Judge them in the Team tab; the result: python -m annotation audit list")


@audit_app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """The audited pairs, and the share of wrong ones among all that is curated."""
    with _store() as store:
        audits, estimate, filtered = store.audits.all(), store.audits.estimate(), store.audits.filtered()
    if as_json:
        rows = [audit.model_dump(mode="json") | {"counts": counts} for audit, _, counts in audits]
        parts = [_audit_numbers(each) for each in filtered]
        print(json.dumps(_audit_numbers(estimate) | {"filtered": parts, "audits": rows}, indent=2))
        return
    print("\n".join(line for each in (estimate, *filtered) for line in _audit_report(each)))
    for audit, pair, counts in audits[: -SHOWN - 1 : -1]:
        said = {True: "right", False: "wrong", None: "not judged"}[audit.is_right]
        by = f" by {audit.auditor}" if audit.auditor else ""
        print(f"pair {pair.id}: {said}{by}{'' if counts else ', decided anew since'}")


def _progress_numbers(progress: Progress, audits: AuditEstimate) -> dict[str, Any]:
    """Everything that `progress --json` prints."""
    return {
        "pairs": progress.pairs,
        "open": progress.open,
        "curated": progress.curated,
        **{status.value: number for status, number in progress.statuses.items()},
        "verdicts": progress.verdicts,
        "verdicts_wanted": progress.wanted,
        "overlapped": progress.overlapped,
        "accepted_by_hour": {hour.isoformat(): number for hour, number in progress.accepted.items()},
        "rates": {name: [dataclasses.asdict(rate) for rate in rates] for name, rates in progress.rates.items()},
        "remaining_error": _audit_numbers(audits),
    }


def _audit_numbers(audits: AuditEstimate) -> dict[str, Any]:
    return dataclasses.asdict(audits) | {"sentence": audits.sentence}


def _progress_report(progress: Progress, audits: AuditEstimate) -> Iterable[str]:
    """The same for reading."""
    said = ", ".join(f"{number:,} {status.value}" for status, number in progress.statuses.items() if number)
    yield f"{progress.pairs:,} pairs, {progress.open:,} open: {said or 'none'}"
    yield f"{progress.verdicts:,} verdicts, {progress.wanted:,} to go; {progress.overlapped:,} pairs want several"
    days = list(progress.accepted_by("day").items())
    if days:
        yield ""
        yield from (f"{day}  {number:>8,} accepted" for day, number in days[-LATEST:])
    for name, rates in progress.rates.items():
        if rates:
            yield ""
            yield f"{name:22}{'decided':>9}{'accepted':>10}   95 % interval"
            yield from map(_rate_line, rates)
    yield ""
    yield from _audit_report(audits)


def _rate_line(rate: Rate) -> str:
    loud = "   stands out" if rate.stands_out else ""
    return f"{ethnicity(rate.name):22}{rate.share.of:>9,}{rate.share.value:>10.1%}   {_interval(rate.share, 1)}{loud}"


def _audit_report(audits: AuditEstimate) -> Iterable[str]:
    yield f"audit{audits.population and f' of {audits.population}'}: {audits.sentence}"
    for name, found in audits.attributes.items():
        yield f"  {name:20}{found.wrong:>6,} of {found.judged:,} wrong, {found.low:.1%} to {found.high:.1%}"


def _reviewers_report(reviewers: Sequence[ReviewerQuality]) -> Iterable[str]:
    """The same for reading."""
    if not reviewers:
        yield "Nobody has decided anything yet."
        return
    width = 2 + max(len(each.name) for each in reviewers)
    heads = ("decisions", "accepted", "median", "quartiles", "traps caught", "fast accepts", "differs", "overruled")
    yield " " * width + "".join(f"{head:>15}" for head in heads)
    for each in reviewers:
        yield f"{each.name:{width}}" + "".join(f"{cell:>15}" for cell in _cells(each))
    for each in reviewers:
        yield ""
        actions = ", ".join(f"{number:,} {action}" for action, number in each.actions.items())
        yield f"{each.name}: {actions or 'nothing stands'}"
        if each.caught:
            yield f"  caught {each.caught.value:.0%} of the known-bad pairs, 95 % interval {_interval(each.caught, 0)}"
        if each.fast_pairs:
            first = ", ".join(map(str, each.fast_pairs[:FAST_SHOWN]))
            more = ", …" if len(each.fast_pairs) > FAST_SHOWN else ""
            yield f"  accepted in under {FAST} ms: {len(each.fast_pairs):,} pairs: {first}{more}"


def _cells(each: ReviewerQuality) -> Iterable[str]:
    yield f"{each.decisions:,}"
    yield _percent(each.accept_rate)
    low, median, high = each.seconds or (None, None, None)
    yield "–" if median is None else f"{median:.1f} s"
    yield "–" if low is None or high is None else f"{low:.1f}-{high:.1f} s"
    yield "–" if each.caught is None else f"{each.caught.count:,} of {each.caught.of:,}"
    yield _percent(each.fast)
    yield _percent(each.differs)
    yield "–" if each.overruled is None else f"{each.overruled.count:,} of {each.overruled.of:,}"


def _percent(share: Share | None) -> str:
    return "–" if share is None else f"{share.value:.1%}"


def _interval(share: Share, digits: int) -> str:
    return f"{share.low:.{digits}%} to {share.high:.{digits}%}"


def _store() -> closing[Store]:
    return closing(Store.of(load_settings()))
