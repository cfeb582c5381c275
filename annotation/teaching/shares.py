"""A share of things drawn at random, the same ones each time.

The one surprising fact: what is drawn follows from each thing's own name, so a run that is started again asks about the
same things, and a larger share holds the smaller one.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

Thing = TypeVar("Thing")


def drawn(
    things: Sequence[Thing], name: Callable[[Thing], str], *, share: float | None = None, limit: int | None = None
) -> list[Thing]:
    """Some of these things, in their own order.

    Args:
        things: to draw from.
        name: of a thing; no two have the same.
        share: from 0 to 1, rounded up to a whole number of things; None for all.
        limit: at most so many.
    """
    most = len(things) if share is None else math.ceil(share * len(things) - 1e-9)
    most = min(most, len(things) if limit is None else limit)
    order = sorted(range(len(things)), key=lambda i: hashlib.sha256(name(things[i]).encode()).digest())
    return [things[i] for i in sorted(order[:most])]
