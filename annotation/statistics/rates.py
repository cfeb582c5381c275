"""Comparing how often something happens in a group and in the rest, without scipy.

    contrast(Tally(18, 40), Tally(145, 1000), design_effect=1.4)

Fisher's exact test (one-sided), the rate ratio with Katz's log interval, Benjamini and Hochberg's correction for many
comparisons. The one surprising fact: the eight answers about one face are not eight independent ones. Who is refused
once is mostly refused again, and a test that takes each answer for itself sees differences where there are none; so
counts are first divided by the design effect, as Rao and Scott (Biometrics 48, 1992) do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

Z_95 = 1.959964


@dataclass(frozen=True)
class Tally:
    """So many hits in so many answers."""

    hits: float
    size: float

    @property
    def rate(self) -> float:
        """Hits per answer; 0 where there is no answer."""
        return self.hits / self.size if self.size else 0.0

    def shrunk(self, by: float) -> "Tally":
        """The independent answers that these are worth."""
        return Tally(self.hits / by, self.size / by)


@dataclass(frozen=True)
class Clusters:
    """Sums over the faces of one group, with x hits in n answers of each: enough for the variance between faces."""

    faces: int = 0
    n: int = 0
    nn: int = 0  # sum of n²
    x: int = 0
    xx: int = 0
    xn: int = 0

    def __add__(self, other: "Clusters") -> "Clusters":
        return Clusters(
            self.faces + other.faces,
            self.n + other.n,
            self.nn + other.nn,
            self.x + other.x,
            self.xx + other.xx,
            self.xn + other.xn,
        )

    @property
    def tally(self) -> Tally:
        """All hits in all answers."""
        return Tally(self.x, self.n)


@dataclass(frozen=True)
class Contrast:
    """How much more often a group is hit than the rest."""

    ratio: float | None  # of the rates; None where the rest is never hit
    low: float  # 95 % interval of the ratio
    high: float | None  # None: no bound, where the rest is never hit
    p: float  # of Fisher's test that the group is not hit more often


def contrast(group: Tally, rest: Tally, *, design_effect: float = 1.0) -> Contrast:
    """Compare a group with the rest, both of which have answers.

    Args:
        group: its hits and answers, as counted.
        rest: those of everybody else.
        design_effect: how many answers are worth one independent answer, at least 1.
    """
    one, other = group.shrunk(design_effect), rest.shrunk(design_effect)
    low, high = _interval(one, other)
    hits, size = round(one.hits), round(one.size)
    p = fisher_greater(hits, size, hits + round(other.hits), size + round(other.size))
    if not rest.hits:
        return Contrast(None, low, None, p)
    return Contrast(group.rate / rest.rate, low, high, p)


def fisher_greater(hits: int, size: int, all_hits: int, all_sizes: int) -> float:
    """The chance that a random group of this size has so many of all hits, or more."""
    log = _log_factorials(1 << all_sizes.bit_length())
    k = np.arange(hits, min(size, all_hits) + 1)
    k = k[all_sizes - all_hits - size + k >= 0]

    def choose(n: np.ndarray | int, r: np.ndarray | int) -> np.ndarray:
        return np.asarray(log[n] - log[r] - log[np.asarray(n) - r])

    terms = choose(all_hits, k) + choose(all_sizes - all_hits, size - k) - choose(all_sizes, size)
    return float(min(1.0, np.exp(terms).sum()))


@cache
def _log_factorials(count: int) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])


def _interval(one: Tally, other: Tally) -> tuple[float, float]:
    """Katz's interval of the rate ratio; half a hit is added on both sides where one has none."""
    if not one.hits or not other.hits:
        one, other = (Tally(each.hits + 0.5, each.size + 0.5) for each in (one, other))
    ratio = one.rate / other.rate
    error = math.sqrt(max(0.0, 1 / one.hits - 1 / one.size + 1 / other.hits - 1 / other.size))
    return ratio * math.exp(-Z_95 * error), ratio * math.exp(Z_95 * error)


def design_effect(groups: Sequence[Clusters]) -> float:
    """How many times larger the variance of the groups' rates is than of independent answers; at least 1.

    One number for all groups, since a small group's own would be a guess.
    """
    found = expected = 0.0
    for group in groups:
        if group.faces < 2:
            continue
        rate = group.tally.rate
        squares = group.xx - 2 * rate * group.xn + rate * rate * group.nn
        found += squares * group.faces / (group.faces - 1)
        expected += rate * (1 - rate) * group.n
    return max(1.0, found / expected) if expected else 1.0


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """The q value of each p value: the share of false alarms among all that are at most as large."""
    order = sorted(range(len(p)), key=lambda index: p[index], reverse=True)
    q, smallest = [0.0] * len(p), 1.0
    for rank, index in zip(range(len(p), 0, -1), order, strict=True):
        smallest = min(smallest, p[index] * len(p) / rank)
        q[index] = smallest
    return q
