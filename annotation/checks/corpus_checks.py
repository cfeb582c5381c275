"""The automatic checks that compare an answer with all others about the same attribute.

The one surprising fact: both leave short answers alone. Where a teacher answers in eight words, answers repeat each
other by chance, and a ninth word is no outlier.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from annotation.checks.findings import Finding
from annotation.checks.near_duplicates import near_duplicates
from annotation.models import Severity

FEWEST: Final = 30  # answers, before a length can be unusual
_FAR: Final = 3.5  # robust standard deviations (Iglewicz and Hoaglin, 1993)
_LEAST_SPREAD: Final = 0.25  # of the logarithm: a third longer than the rest is never unusual


def find_length_outliers(ids: Sequence[int], answers: Sequence[str]) -> dict[int, Finding]:
    """Answers that are far longer or shorter than the others: pair id → finding.

    Args:
        ids: of the pairs of one attribute.
        answers: theirs, in the same order.
    """
    if len(answers) < FEWEST:
        return {}
    words = np.array([len(answer.split()) for answer in answers])
    logs = np.log(np.maximum(words, 1))
    middle = np.median(logs)
    spread = max(1.4826 * float(np.median(np.abs(logs - middle))), _LEAST_SPREAD)
    usual = round(float(np.exp(middle)))
    found = {}
    for place in np.flatnonzero(np.abs(logs - middle) > _FAR * spread).tolist():
        how = "Longer" if logs[place] > middle else "Shorter"
        message = f"{how} than the others: {words[place]} words, where {usual} are usual."
        found[ids[place]] = Finding("length", Severity.WARNING, message)
    return found


def find_near_duplicates(ids: Sequence[int], answers: Sequence[str]) -> dict[int, Finding]:
    """Answers that nearly repeat one with a smaller id: pair id → finding.

    Args:
        ids: of the pairs of one attribute, in ascending order.
        answers: theirs, in the same order.
    """
    found = {}
    for place, (earlier, similarity) in near_duplicates(answers).items():
        message = f"Nearly the same as pair {ids[earlier]}: {similarity:.0%} of their phrases."
        found[ids[place]] = Finding("duplicate", Severity.WARNING, message)
    return found


CORPUS_CHECKS: Final[dict[str, Callable[[Sequence[int], Sequence[str]], dict[int, Finding]]]] = {
    "length": find_length_outliers,
    "duplicate": find_near_duplicates,
}
