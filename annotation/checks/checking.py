"""Runs the automatic checks over all pairs and keeps what they find as flags.

    python -m annotation check [--checks refusal,leak]

Pairs are read, checked and written in chunks, so memory does not grow with their number. The one surprising fact:
nothing is locked while a chunk is checked; a pair that somebody decides about meanwhile is simply checked again.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from annotation.checks.corpus_checks import CORPUS_CHECKS
from annotation.checks.findings import Finding
from annotation.checks.flags import Checkable
from annotation.checks.quality import PAIR_CHECKS, check_pair
from annotation.checks.refusals import is_refusal
from annotation.models import Severity
from annotation.store import Store
from facellm.data import Attribute
from facellm.errors import ConfigError

CHECKS: Final = (*PAIR_CHECKS, *CORPUS_CHECKS)
CHUNK: Final = 500  # pairs a transaction


@dataclass(frozen=True)
class CheckReport:
    """What a run of the checks found."""

    pairs: int  # that were looked at
    flagged: int  # that have a finding of these checks
    checks: dict[str, int]  # check → how many pairs it flagged, zeros too
    severities: dict[str, dict[str, int]]  # check → severity → how many findings
    seconds: float


def chosen_checks(names: Iterable[str]) -> tuple[str, ...]:
    """The checks of these names, in the order of CHECKS; all of them where there is no name.

    Raises:
        ConfigError: there is no such check.
    """
    wanted = {name.strip() for name in names if name.strip()}
    unknown = sorted(wanted - set(CHECKS))
    if unknown:
        raise ConfigError(f"There is no check “{unknown[0]}”. Expected some of: {', '.join(CHECKS)}.")
    return tuple(name for name in CHECKS if not wanted or name in wanted)


def run_checks(
    store: Store, checks: Collection[str] = CHECKS, on_progress: Callable[[int], None] = lambda _done: None
) -> CheckReport:
    """Check all pairs; flags of these checks are then exactly what they find now, others stay.

    Args:
        store: whose pairs.
        checks: names out of CHECKS.
        on_progress: called with the number of pairs done after each chunk.
    """
    start = time.monotonic()
    compared = _compared(store, checks)
    pairs_of: Counter[str] = Counter()
    severities: defaultdict[str, Counter[str]] = defaultdict(Counter)
    done = flagged = after = 0
    while chunk := store.checkable(after=after, limit=CHUNK):
        after = chunk[-1].pair_id
        for findings in _check_chunk(store, chunk, checks, compared).values():
            flagged += bool(findings)
            pairs_of.update({finding.check for finding in findings})
            for finding in findings:
                severities[finding.check][finding.severity.value] += 1
        done += len(chunk)
        on_progress(done)
    return CheckReport(
        pairs=done,
        flagged=flagged,
        checks={name: pairs_of[name] for name in CHECKS if name in checks},
        severities={
            name: {severity.value: severities[name][severity.value] for severity in Severity}
            for name in CHECKS
            if name in checks
        },
        seconds=round(time.monotonic() - start, 1),
    )


def _compared(store: Store, checks: Collection[str]) -> dict[int, list[Finding]]:
    """What the checks over all answers found, by pair; one attribute's answers are in memory at a time."""
    found: defaultdict[int, list[Finding]] = defaultdict(list)
    compare = [CORPUS_CHECKS[name] for name in CORPUS_CHECKS if name in checks]
    for attribute in (*Attribute, None) if compare else ():
        ids, answers = store.standing_texts(attribute)
        for find in compare:
            for pair_id, finding in find(ids, answers).items():
                found[pair_id].append(finding)
    return found


def _check_chunk(
    store: Store, chunk: list[Checkable], checks: Collection[str], compared: dict[int, list[Finding]]
) -> dict[int, list[Finding]]:
    """Check and write these pairs, those again that were decided about meanwhile: pair id → findings."""
    found: dict[int, list[Finding]] = {}
    while chunk:
        for pair in chunk:
            found[pair.pair_id] = check_pair(pair.facts, checks)
            if pair.pair_id in compared and not is_refusal(pair.facts.answer):
                found[pair.pair_id] += compared[pair.pair_id]
        stale = store.replace_flags(checks, found, {pair.pair_id: pair.revision for pair in chunk})
        chunk = store.checkable(ids=stale) if stale else []
    return found
