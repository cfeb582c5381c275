"""The automatic checks of one answer: each is a small function from its facts to findings.

    check_pair(Facts(Attribute.SKIN, question, "I'm sorry, I can't.", labels))      [Finding("refusal", ...)]

Checks that compare an answer with all others are in `corpus_checks.py`. The one surprising fact: a refused answer gets
no other finding, because what it does not say cannot be wrong.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Final

from annotation.checks.contradictions import find_contradictions
from annotation.checks.findings import Facts, Finding
from annotation.checks.refusals import declined_part, is_refusal
from annotation.checks.topics import find_off_topic
from annotation.checks.wordings import find_cut_off, find_hedging, find_identities, find_leaks
from annotation.models import Severity


def find_refusals(facts: Facts) -> Iterator[Finding]:
    """An answer that declines to answer, or declines a part of it."""
    if span := is_refusal(facts.answer):
        yield Finding("refusal", Severity.ERROR, "Declines to answer.", *span)
    elif span := declined_part(facts.answer):
        yield Finding("refusal", Severity.WARNING, "Declines a part of the question.", *span)


PAIR_CHECKS: Final[dict[str, Callable[[Facts], Iterator[Finding]]]] = {
    "refusal": find_refusals,
    "contradiction": find_contradictions,
    "leak": find_leaks,
    "identity": find_identities,
    "off topic": find_off_topic,
    "cut off": find_cut_off,
    "hedging": find_hedging,
}


def check_pair(facts: Facts, checks: Collection[str] = tuple(PAIR_CHECKS)) -> list[Finding]:
    """The findings of these checks about one answer, in the order of PAIR_CHECKS."""
    refusals = list(find_refusals(facts))
    found = refusals if "refusal" in checks else []
    if any(finding.severity is Severity.ERROR for finding in refusals):
        return found
    others = (find for name, find in PAIR_CHECKS.items() if name in checks and find is not find_refusals)
    return found + [finding for find in others for finding in find(facts)]
