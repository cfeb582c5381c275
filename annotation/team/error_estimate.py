"""How much of what was curated is still wrong, from a random sample that was looked at once more.

    estimate_errors(5_000, Judged(200, 3))      3 of 200: 1.5 %, so about 75 of 5,000, at most 215

The interval is exact: every number of wrong pairs is kept under which 3 or fewer of the 200, and 3 or more of them, are
both likelier than 2.5 %. It is what Clopper and Pearson's is for drawing without putting back, and as small. Wilson's
would be narrower, but where errors are few, as here, it misses the true share more often than it says; the promise of a
data card should be kept. The one surprising fact: of a sample that took as many of each attribute, whatever their
share, nothing exact is known; there it is Wilson's, for the independent pairs that the weighted ones are worth (Kish).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from annotation.statistics.intervals import score_interval
from annotation.statistics.rates import fisher_greater

TAIL: Final = 0.025  # on each side


@dataclass(frozen=True)
class Judged:
    """A random sample that was looked at again."""

    size: int = 0
    wrong: int = 0


@dataclass(frozen=True)
class Estimate:
    """What is left wrong among so many pairs, with 95 % intervals."""

    pairs: int  # that the sample stands for
    judged: int
    wrong: int  # of those that were judged
    share: float
    low: float
    high: float

    @property
    def left(self) -> tuple[int, int, int]:
        """How many of the pairs are wrong: (about, at least, at most)."""
        about, low, high = (round(share * self.pairs) for share in (self.share, self.low, self.high))
        return about, low, high


def estimate_errors(pairs: int, judged: Judged) -> Estimate | None:
    """Of a sample that was drawn from all alike; None of nothing.

    Args:
        pairs: of which it was drawn, those in it too.
        judged: the sample.
    """
    if not judged.size:
        return None
    pairs = max(pairs, judged.size)
    low, high = (bound / pairs for bound in wrong_bounds(pairs, judged))
    return Estimate(pairs, judged.size, judged.wrong, judged.wrong / judged.size, low, high)


def estimate_by_stratum(pairs: Mapping[str, int], judged: Mapping[str, Judged]) -> Estimate | None:
    """Of samples of several strata, each weighed by its pairs; strata without a sample are left out of `pairs`, too."""
    sizes = {name: max(pairs[name], of.size) for name, of in judged.items() if of.size and pairs.get(name)}
    total = sum(sizes.values())
    if not total:
        return None
    weights = {name: size / total for name, size in sizes.items()}
    share = sum(weight * judged[name].wrong / judged[name].size for name, weight in weights.items())
    worth = 1 / sum(weight**2 / judged[name].size for name, weight in weights.items())
    size, wrong = (sum(getattr(judged[name], field) for name in sizes) for field in ("size", "wrong"))
    return Estimate(total, size, wrong, share, *score_interval(share, worth))


def wrong_bounds(pairs: int, judged: Judged) -> tuple[int, int]:
    """The fewest and the most wrong ones among all pairs that the sample allows."""
    size, wrong = judged.size, judged.wrong
    right = size - wrong
    most = _smallest(wrong, pairs - right, lambda bad: fisher_greater(right, size, pairs - bad, pairs) <= TAIL)
    fewest = _smallest(wrong, pairs - right, lambda bad: fisher_greater(wrong, size, bad, pairs) > TAIL)
    if most == pairs - right and fisher_greater(right, size, pairs - most, pairs) > TAIL:
        return fewest, most
    return fewest, most - 1


def _smallest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The smallest number from low to high for which it holds, as for all above it; high where it holds for none."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
