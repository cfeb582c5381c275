"""Who gave which verdict about which pair: the table that agreement is measured from, read or made.

    ratings = store.ratings()

Only pairs with the verdicts of at least two reviewers are read, and no settlement of a curator, who had seen the others
before. The one surprising fact: two edits are the same verdict, whatever their texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

KEPT: Final = "kept"  # accepted or edited
EDITED: Final = "edit"
REJECTED: Final = "reject"


@dataclass(frozen=True)
class Ratings:
    """Ratings of items by reviewers; the first three arrays have one entry for each rating.

    A reviewer rates an item once at most. Of an item nobody else need have rated there may be a single rating.
    """

    item: np.ndarray  # (ratings,) int: index of the item
    reviewer: np.ndarray  # (ratings,) int: index into `reviewers`
    category: np.ndarray  # (ratings,) int: index into `categories`
    cluster: np.ndarray  # (items,) int: items of one number are about the same face
    reviewers: tuple[str, ...]
    categories: tuple[str, ...]  # all that there can be, used or not
    groups: Mapping[str, np.ndarray]  # such as "attribute": (items,) str, "" where it is unknown

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self.cluster)

    def counts(self) -> np.ndarray:
        """(items, categories) int: how many reviewers gave that category."""
        size = len(self.categories)
        return np.bincount(self.item * size + self.category, minlength=self.items * size).reshape(-1, size)

    def only(self, ratings: np.ndarray) -> "Ratings":
        """These ratings only; the items stay, rated or not.

        Args:
            ratings: (ratings,) bool, or the indices of some.
        """
        return replace(self, item=self.item[ratings], reviewer=self.reviewer[ratings], category=self.category[ratings])

    def met(self) -> tuple[np.ndarray, np.ndarray]:
        """All pairs of ratings of the same item: two arrays of indices, the lower reviewer's in the first."""
        order = np.lexsort((self.reviewer, self.item))
        item = self.item[order]
        first, second, away = [order[:0]], [order[:0]], 1
        while len(found := np.flatnonzero(item[away:] == item[:-away])):
            first.append(order[found])
            second.append(order[found + away])
            away += 1
        return np.concatenate(first), np.concatenate(second)

    def kept_or_rejected(self) -> "Ratings":
        """The same with two categories: accepting and editing are one."""
        rejected = np.array([name == REJECTED for name in self.categories])
        return replace(self, category=rejected[self.category].astype(int), categories=(KEPT, REJECTED))
