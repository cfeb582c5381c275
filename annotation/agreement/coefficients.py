"""The coefficients of agreement, each from sums over items; so a resample is a weight for each item.

Percent agreement is the mean, over items, of the share of pairs of reviewers that agree. Then, with the agreement that
chance would bring taken off, (observed - chance) / (1 - chance):

- Cohen (1960), for two reviewers: chance from each one's own shares of the categories. For more than two, the mean over
  all pairs of reviewers, weighted by the items that they share.
- Fleiss (1971): chance from the shares in all ratings. Items may have unequal numbers of ratings: each item's shares
  count alike (Gwet, Handbook of Inter-Rater Reliability, 4th edition, 2014, chapter 2).
- Krippendorff's alpha (2011), nominal: the same with each rating counting alike, corrected for few ratings.
- Gwet's AC1 (2008): chance only from ratings that are hard to make, so it stays where nearly all is of one category. It
  depends on how many categories there can be, whether they are used or not.

Items with one rating count only in the shares of Fleiss and Gwet. The one surprising fact: where all ratings are of one
category, kappa and alpha are 0/0. NaN marks that here, and nowhere else.
"""

from enum import StrEnum

import numpy as np


class Measure(StrEnum):
    """What is measured, in the order in which it is shown."""

    PERCENT = "percent"
    COHEN = "cohen"
    FLEISS = "fleiss"
    ALPHA = "alpha"
    AC1 = "ac1"

    @property
    def words(self) -> str:
        """As a person writes it."""
        return {
            "percent": "percent agreement",
            "cohen": "Cohen's kappa",
            "fleiss": "Fleiss' kappa",
            "alpha": "Krippendorff's alpha",
            "ac1": "Gwet's AC1",
        }[self.value]


def item_sums(counts: np.ndarray) -> np.ndarray:
    """What the coefficients need of each item, to be added up over items.

    Args:
        counts: (items, K) how many reviewers gave each category.

    Returns:
        (items, 3 + 2K) float: share of agreeing pairs of its ratings; 1 if it has several ratings; agreeing pairs to a
        rating; the share of each category; its ratings by category if it has several.
    """
    size = counts.sum(axis=1, keepdims=True).astype(float)
    several = size >= 2
    agreeing = (counts * (counts - 1)).sum(axis=1, keepdims=True)
    to_a_rating = np.divide(agreeing, size - 1, out=np.zeros_like(size), where=several)
    share = np.divide(to_a_rating, size, out=np.zeros_like(size), where=several)
    shares = np.divide(counts, size, out=np.zeros(counts.shape), where=size > 0)
    return np.hstack([share, several, to_a_rating, shares, counts * several])


def from_sums(sums: np.ndarray) -> dict[Measure, np.ndarray]:
    """All but Cohen's kappa; NaN where a coefficient is not defined.

    Args:
        sums: (..., 3 + 2K) rows of `item_sums` added up.
    """
    size = (sums.shape[-1] - 3) // 2
    agreed, items, to_a_rating = (sums[..., column] for column in range(3))
    shares, ratings = sums[..., 3 : 3 + size], sums[..., 3 + size :]
    observed = _ratio(agreed, items)
    shares = _ratio(shares, shares.sum(axis=-1, keepdims=True))
    number = ratings.sum(axis=-1)
    by_chance = _ratio((ratings * (ratings - 1)).sum(axis=-1), number * (number - 1))
    return {
        Measure.PERCENT: observed,
        Measure.FLEISS: _beyond(observed, (shares**2).sum(axis=-1)),
        Measure.ALPHA: _beyond(_ratio(to_a_rating, number), by_chance),
        Measure.AC1: _beyond(observed, (shares * (1 - shares)).sum(axis=-1) / (size - 1)),
    }


def cohen(tables: np.ndarray) -> np.ndarray:
    """Cohen's kappa of two reviewers; NaN where both gave everything the same category, or share nothing.

    Args:
        tables: (K, K, ...) how many items the first gave the one category and the second the other.
    """
    number = tables.sum(axis=(0, 1))
    observed = _ratio(np.trace(tables), number)
    first, second = tables.sum(axis=1), tables.sum(axis=0)
    return _beyond(observed, _ratio((first * second).sum(axis=0), number**2))


def _beyond(observed: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Agreement with chance taken off."""
    return _ratio(observed - chance, 1 - chance)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Division; NaN by what is zero but for rounding."""
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=np.abs(below) > 1e-9)
