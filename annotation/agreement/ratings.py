"""Who gave which verdict about which pair: the table that agreement is measured from, read or made.

    ratings = store.ratings()

Only pairs with the verdicts of at least two reviewers are read, and no settlement of a curator, who had seen the others
before. The one surprising fact: two edits are the same verdict, whatever their texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import sqlalchemy as sa
from sqlmodel import Session, col

from annotation.models import FREE_QUESTION, Action, Pair, Verdict
from annotation.new_pairs import GROUPS

CATEGORIES: Final = tuple(action.value for action in Action if action.is_verdict)
KEPT: Final = "kept"  # accepted or edited


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
        rejected = np.array([name == Action.REJECT.value for name in self.categories])
        return replace(self, category=rejected[self.category].astype(int), categories=(KEPT, Action.REJECT.value))


def read_ratings(session: Session) -> Ratings:
    """All verdicts about pairs that have those of at least two reviewers."""
    counted = sa.and_(col(Verdict.action).in_([Action(name) for name in CATEGORIES]), col(Verdict.settles).is_(False))
    shared = sa.select(col(Verdict.pair_id)).where(counted).group_by(col(Verdict.pair_id)).having(sa.func.count() > 1)
    # Read as text: making an enum of each of some 100,000 values would take longer than all the rest.
    action, attribute = (sa.type_coerce(column, sa.String) for column in (col(Verdict.action), col(Pair.attribute)))
    given = sa.select(col(Verdict.pair_id), col(Verdict.reviewer), action).where(counted)
    groups = (col(getattr(Pair, name)) for name in GROUPS)
    about = sa.select(col(Pair.id), col(Pair.image_id), sa.func.coalesce(attribute, FREE_QUESTION), *groups)
    pairs = session.execute(about.where(col(Pair.id).in_(shared)).order_by(col(Pair.id))).all()
    verdicts = session.execute(given.where(col(Verdict.pair_id).in_(shared))).all()
    ids, images, *values = zip(*pairs, strict=True) if pairs else ((),) * (3 + len(GROUPS))
    of_pairs, reviewers, actions = zip(*verdicts, strict=True) if verdicts else ((),) * 3
    names = sorted(set(reviewers))
    return Ratings(
        item=_places(of_pairs, ids),
        reviewer=_places(reviewers, names),
        category=_places(actions, CATEGORIES),
        cluster=_places(images, sorted(set(images))),
        reviewers=tuple(names),
        categories=CATEGORIES,
        groups={name: np.array(of, dtype=str) for name, of in zip(("attribute", *GROUPS), values, strict=True)},
    )


def _places(values: Sequence[object], among: Sequence[object]) -> np.ndarray:
    """(values,) int: the place of each among the others."""
    place = {value: number for number, value in enumerate(among)}
    return np.array([place[value] for value in values], dtype=int)
