"""How sure a coefficient is: 95 % intervals by the bootstrap, for many subsets of the ratings at once.

Faces are drawn with replacement, each with all its items, since verdicts about the eight answers of one face may be
alike. A resample is a number for each face, how often it was drawn, and a coefficient is a ratio of sums (see
coefficients.py), so thousands of resamples are a few sums over arrays. The intervals are bias-corrected and
accelerated (BCa; Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 14): coefficients near 1 are
skewed, and the plain percentiles miss the truth more often. The one surprising fact: all subsets see the same draws of
faces, so the size of a subset varies between resamples, as it would if the study were repeated.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from annotation.agreement.coefficients import Measure, cohen, from_sums, item_sums
from annotation.agreement.ratings import Ratings

CONFIDENCE: Final = 0.95
MOST_UNDEFINED: Final = 0.05  # of the resamples; above, there is no interval
_BLOCKS: Final = 200  # of faces that are left out in turn, for the acceleration
_AT_ONCE: Final = 20_000_000  # numbers in memory
_NORMAL: Final = NormalDist()


@dataclass(frozen=True)
class Interval:
    """Where the truth is with 95 % confidence; None where that cannot be told."""

    low: float | None
    high: float | None
    undefined: float  # share of the resamples in which the coefficient has no value


class Subset:
    """Some of the ratings, ready to be weighted face by face."""

    def __init__(self, ratings: Ratings) -> None:
        """Take what these ratings are made of; items without any are nothing to it."""
        rated, item = np.unique(ratings.item, return_inverse=True)
        size = len(ratings.categories)
        counts = np.bincount(item * size + ratings.category, minlength=len(rated) * size).reshape(-1, size)
        self.items = len(rated)
        self.reviewers = len(np.unique(ratings.reviewer))
        self.counts = dict(zip(ratings.categories, counts.sum(axis=0).tolist(), strict=True))  # ratings by category
        self.faces, face = np.unique(ratings.cluster[rated], return_inverse=True)
        self._sums = _added_up(item_sums(counts), face, len(self.faces))
        first, second = ratings.met()
        pair = ratings.reviewer[first] * len(ratings.reviewers) + ratings.reviewer[second]
        pairs, pair = np.unique(pair, return_inverse=True)
        key = pair * size**2 + ratings.category[first] * size + ratings.category[second]
        rows = np.argsort(key, kind="stable")
        self._keys, self._starts = np.unique(key[rows], return_index=True)
        self._rows = face[item[first[rows]]]
        self._shape = (len(pairs), size, size)

    @property
    def rows(self) -> int:
        """How many numbers a resample takes."""
        return max(len(self._rows), self._sums.size)

    def measure(self, weights: np.ndarray) -> dict[Measure, np.ndarray]:
        """Each coefficient, NaN where it is not defined: arrays (resamples,).

        Args:
            weights: (faces of all ratings, resamples) float: how often each face counts.
        """
        mine = weights[self.faces]
        # Not a product of matrices: BLAS's threads wait for each other, for a minute where the cores are taken.
        sums = np.einsum("fc,fr->cr", self._sums.astype(weights.dtype), mine).T
        found = from_sums(sums.astype(float))
        return {measure: self._cohen(mine) if measure is Measure.COHEN else found[measure] for measure in Measure}

    def kappas(self) -> np.ndarray:
        """(pairs of reviewers,) Cohen's kappa of each two that share items; NaN where it is not defined."""
        return cohen(self._tables(np.ones((len(self.faces), 1))))[:, 0]

    def _cohen(self, weights: np.ndarray) -> np.ndarray:
        """The mean of all pairs of reviewers whose kappa is defined, weighted by the items that they share."""
        tables = self._tables(weights)
        kappas, shared = cohen(tables), tables.sum(axis=(0, 1))
        defined = np.isfinite(kappas)
        total = (shared * defined).sum(axis=0)
        mean = np.where(defined, kappas * shared, 0).sum(axis=0)
        return np.divide(mean, total, out=np.full(total.shape, np.nan), where=total > 0)

    def _tables(self, weights: np.ndarray) -> np.ndarray:
        """(K, K, pairs of reviewers, resamples): how many items got which two categories of which two reviewers."""
        pairs, size, _ = self._shape
        tables = np.zeros((pairs * size**2, weights.shape[1]))
        if pairs:
            tables[self._keys] = np.add.reduceat(weights[self._rows], self._starts, axis=0)
        return np.moveaxis(tables.reshape(pairs, size, size, weights.shape[1]), 0, 2)


def _added_up(values: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
    """(size, columns): the rows of each index added up."""
    return np.stack([np.bincount(index, column, minlength=size) for column in values.T], axis=1)


def values(subsets: Sequence[Subset], faces: int) -> list[dict[Measure, float]]:
    """Each subset's coefficients, NaN where they are not defined."""
    once = np.ones((faces, 1))
    return [{measure: float(of[0]) for measure, of in subset.measure(once).items()} for subset in subsets]


def intervals(subsets: Sequence[Subset], faces: int, *, resamples: int, seed: int) -> list[dict[Measure, Interval]]:
    """Each subset's intervals; the same seed gives the same ones.

    Args:
        subsets: of the same ratings.
        faces: how many those ratings are about.
        resamples: how many to draw.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    widest = max([faces, *(subset.rows for subset in subsets)])
    at_once = int(np.clip(_AT_ONCE // widest, 8, 250))
    drawn = _measured(subsets, _draws(rng, faces, resamples, at_once))
    left_out = _measured(subsets, _without_blocks(rng, faces, at_once))
    points = values(subsets, faces)
    return [
        {measure: _bca(point[measure], draws[measure], without[measure]) for measure in Measure}
        for point, draws, without in zip(points, drawn, left_out, strict=True)
    ]


def _measured(subsets: Sequence[Subset], chunks: Iterator[np.ndarray]) -> list[dict[Measure, np.ndarray]]:
    """Of each subset, each coefficient in all resamples of all chunks."""
    found: list[list[Mapping[Measure, np.ndarray]]] = [[] for _ in subsets]
    for weights in chunks:
        for subset, of in zip(subsets, found, strict=True):
            of.append(subset.measure(weights))
    return [{measure: np.concatenate([each[measure] for each in of]) for measure in Measure} for of in found]


def _draws(rng: np.random.Generator, faces: int, resamples: int, at_once: int) -> Iterator[np.ndarray]:
    """Chunks (faces, resamples) of how often each face was drawn."""
    for begin in range(0, resamples, at_once):
        width = min(at_once, resamples - begin)
        drawn = rng.integers(0, faces, size=(faces, width)) * width + np.arange(width)
        yield np.bincount(drawn.ravel(), minlength=faces * width).reshape(faces, width).astype(np.float32)


def _without_blocks(rng: np.random.Generator, faces: int, at_once: int) -> Iterator[np.ndarray]:
    """The jackknife: chunks (faces, blocks) of 1, and 0 for the faces of a block."""
    block = rng.permutation(faces) % _BLOCKS
    for begin in range(0, min(faces, _BLOCKS), at_once):
        columns = np.arange(begin, min(begin + at_once, faces, _BLOCKS))
        yield (block[:, None] != columns).astype(np.float32)


def _bca(point: float, drawn: np.ndarray, left_out: np.ndarray) -> Interval:
    """The interval of one coefficient of one subset."""
    undefined = float(np.isnan(drawn).mean()) if len(drawn) else 1.0
    drawn, left_out = drawn[np.isfinite(drawn)], left_out[np.isfinite(left_out)]
    if np.isnan(point) or undefined > MOST_UNDEFINED or np.ptp(drawn) < 1e-6:
        return Interval(None, None, undefined)
    below = (np.count_nonzero(drawn < point - 1e-6) + np.count_nonzero(drawn <= point + 1e-6)) / 2 / len(drawn)
    bias = _NORMAL.inv_cdf(float(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn))))
    pull = left_out.mean() - left_out
    acceleration = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5) if pull.any() else 0.0
    ends = []
    for quantile in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2):
        shifted = bias + _NORMAL.inv_cdf(quantile)
        ends.append(_NORMAL.cdf(bias + shifted / (1 - acceleration * shifted)))
    low, high = np.quantile(drawn, ends)
    return Interval(float(low), float(high), undefined)
