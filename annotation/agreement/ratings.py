"""Who gave which verdict about which pair: the table that agreement is measured from, read or made.

    ratings = store.ratings()

Only verdicts are read that reviewers came to without having seen what others said; so what a curator has settled does
not count, nor does a second thought about a disputed pair.
The one surprising fact: two edits are the same verdict, whatever their texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import sqlalchemy as sa
from sqlmodel import Session, col

from annotation.models import FREE_QUESTION, GROUPS, VERDICTS, Action, Pair, Verdict

CATEGORIES: Final = tuple(action.value for action in VERDICTS)
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
    """The verdicts that reviewers came to on their own, about pairs that have those of two at least."""
    rows = session.execute(_blind_verdicts()).all()
    pairs, reviewers, actions = zip(*(row[:3] for row in rows), strict=True) if rows else ((),) * 3
    facts = {row[0]: row[3:] for row in rows}
    images, *values = zip(*facts.values(), strict=True) if rows else ((),) * (2 + len(GROUPS))
    names = sorted(set(reviewers))
    return Ratings(
        item=_places(pairs, list(facts)),
        reviewer=_places(reviewers, names),
        category=_places(actions, CATEGORIES),
        cluster=_places(images, sorted(set(images))),
        reviewers=tuple(names),
        categories=CATEGORIES,
        groups={name: np.array(of, dtype=str) for name, of in zip(("attribute", *GROUPS), values, strict=True)},
    )


def _blind_verdicts() -> sa.Select:
    """pair_id, reviewer, action, image_id, attribute, race, gender, age: a row for each verdict, pair by pair."""
    # Read as text: making an enum of each of some 100,000 values would take longer than all the rest.
    action, attribute = (sa.type_coerce(column, sa.String) for column in (col(Verdict.action), col(Pair.attribute)))
    pair = col(Verdict.pair_id)
    number = sa.func.count().over(partition_by=pair).label("number")
    counted = sa.and_(
        col(Verdict.action).in_([Action(name) for name in CATEGORIES]),
        col(Verdict.blind).is_(True),
        col(Verdict.settles).is_(False),
    )
    given = sa.select(pair, col(Verdict.reviewer), action.label("action"), number).where(counted).subquery().c
    about = (col(Pair.image_id), sa.func.coalesce(attribute, FREE_QUESTION), *(col(getattr(Pair, at)) for at in GROUPS))
    query = sa.select(given.pair_id, given.reviewer, given.action, *about)
    query = query.join(Pair, col(Pair.id) == given.pair_id)
    return query.where(given.number > 1).order_by(given.pair_id)


def _places(values: Sequence[object], among: Sequence[object]) -> np.ndarray:
    """(values,) int: the place of each among the others."""
    place = {value: number for number, value in enumerate(among)}
    return np.array([place[value] for value in values], dtype=int)
