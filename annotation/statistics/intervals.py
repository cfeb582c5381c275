"""How sure a share or a mean is: 95 % intervals.

The one surprising fact: Wilson's interval has a width where nothing or everything was counted, which the textbook's has
not: 0 of 20 may well be 15 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z = 1.96  # of the normal distribution: 95 %


@dataclass(frozen=True)
class Share:
    """So many of so many, with its interval."""

    count: int
    of: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Mean:
    """A mean with its interval."""

    of: int
    value: float
    low: float | None  # None: a single number has no spread
    high: float | None


def wilson(count: int, of: int, *, independent: float | None = None) -> Share | None:
    """Wilson's score interval of a share; None of nothing.

    Args:
        count: how many have it.
        of: out of how many.
        independent: how many of those are independent of each other, where not all are: the interval is then as wide
            as of so few.
    """
    if not of:
        return None
    return Share(count, of, count / of, *score_interval(count / of, of if independent is None else independent))


def score_interval(p: float, n: float) -> tuple[float, float]:
    """The ends of Wilson's interval of a share of n independent ones; n need not be a whole number."""
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def mean(numbers: Sequence[float]) -> Mean | None:
    """The mean of numbers from 0 to 1 with the normal interval; None of nothing."""
    n = len(numbers)
    if not n:
        return None
    value = sum(numbers) / n
    if n == 1:
        return Mean(1, value, None, None)
    half = Z * math.sqrt(sum((number - value) ** 2 for number in numbers) / (n - 1) / n)
    return Mean(n, value, max(0.0, value - half), min(1.0, value + half))
