"""Tables of ratings: published ones, and drawn ones whose agreement is known from theory."""

from collections.abc import Sequence

import numpy as np

from annotation.agreement.coefficients import Measure
from annotation.agreement.ratings import Ratings

VERDICTS = ("accept", "edit", "reject")


def ratings_of(
    table: np.ndarray, categories: Sequence[str], *, cluster: np.ndarray | None = None, **groups: Sequence[str]
) -> Ratings:
    """Ratings of a table (items, reviewers) of categories' indices; -1 is missing."""
    item, reviewer = np.nonzero(table >= 0)
    return Ratings(
        item,
        reviewer,
        table[item, reviewer],
        np.arange(len(table)) if cluster is None else cluster,
        tuple(f"reviewer {number + 1}" for number in range(table.shape[1])),
        tuple(categories),
        {name: np.array(values) for name, values in groups.items()},
    )


def of_cells(cells: Sequence[Sequence[int]]) -> np.ndarray:
    """The table (items, 2) of two reviewers, from how many items got which two categories."""
    rows = [[first, second] for first, row in enumerate(cells) for second, n in enumerate(row) for _ in range(n)]
    return np.array(rows)


def of_counts(counts: Sequence[Sequence[int]]) -> np.ndarray:
    """A table (items, reviewers) with these counts of categories for each item; who gave which does not matter."""
    width = max(sum(row) for row in counts)
    rows = [[category for category, n in enumerate(row) for _ in range(n)] for row in counts]
    return np.array([row + [-1] * (width - len(row)) for row in rows])


def drawn(
    rng: np.random.Generator, items: int, reviewers: int, shares: Sequence[float], error: float
) -> tuple[np.ndarray, dict[Measure, float]]:
    """A table of reviewers who each see the truth, but guess by the shares in `error` of the items; and what holds.

    Two agree where both see, and by chance else; as everybody's shares are the true ones, all kappas are the same.
    """
    p = np.array(shares)
    truth = rng.choice(len(p), size=(items, 1), p=p)
    guess = rng.choice(len(p), size=(items, reviewers), p=p)
    table = np.where(rng.random((items, reviewers)) < error, guess, truth)
    both_see, chance, gwet = (1 - error) ** 2, (p**2).sum(), (p * (1 - p)).sum() / (len(p) - 1)
    agreed = both_see + (1 - both_see) * chance
    kappas = dict.fromkeys((Measure.COHEN, Measure.FLEISS, Measure.ALPHA), both_see)
    return table, {Measure.PERCENT: agreed, Measure.AC1: (agreed - gwet) / (1 - gwet)} | kappas


_ = -1
# Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, section C: 4 observers, 12 units, 5 values, some
# missing; nominal alpha 0.743. Gwet uses the same table (Handbook, 2014, as cac.raw4raters in irrCAC for R and Python).
KRIPPENDORFF = (
    np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ]
    ).T
    - 1
)
# Five observers, 15 units, four values, many missing (Gwet 2014; raw_5observers of irrCAC).
OBSERVERS = np.array(
    [
        [1, 1, 2, _, 0, 0, 1, 1, 2, 2, _, 0, 1, 3, 1],
        [1, 1, 3, 0, 0, 0, 0, _, 2, 1, 1, 0, 2, 3, 1],
        [2, 0, 3, 0, 0, 0, 2, 2, 2, 1, 0, 0, 2, 2, 1],
        [_, 1, 3, _, _, _, _, 0, _, 1, 0, 0, 2, 2, _],
        [2, _, _, 0, 0, 0, 1, _, 2, _, _, _, _, 3, 1],
    ]
).T
# Fleiss, Psychological Bulletin 76, 1971, table 1: 30 patients, 6 psychiatrists each, 5 diagnoses; kappa 0.430.
FLEISS_1971 = of_counts(
    [
        *([0, 0, 0, 6, 0], [0, 3, 0, 0, 3], [0, 1, 4, 0, 1], [0, 0, 0, 0, 6], [0, 3, 0, 3, 0], [2, 0, 4, 0, 0]),
        *([0, 0, 4, 0, 2], [2, 0, 3, 1, 0], [2, 0, 0, 4, 0], [0, 0, 0, 0, 6], [1, 0, 0, 5, 0], [1, 1, 0, 4, 0]),
        *([0, 3, 3, 0, 0], [1, 0, 0, 5, 0], [0, 2, 0, 3, 1], [0, 0, 5, 0, 1], [3, 0, 0, 1, 2], [5, 1, 0, 0, 0]),
        *([0, 2, 0, 4, 0], [1, 0, 2, 0, 3], [0, 0, 0, 0, 6], [0, 1, 0, 5, 0], [0, 2, 0, 1, 3], [2, 0, 0, 4, 0]),
        *([1, 0, 0, 4, 1], [0, 5, 0, 1, 0], [4, 0, 0, 0, 2], [0, 2, 0, 4, 0], [1, 0, 5, 0, 0], [0, 0, 0, 0, 6]),
    ]
)
# Cohen, Educational and Psychological Measurement 20, 1960: two judges, three categories, 200 cases; kappa 0.492.
COHEN_1960 = of_cells([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
