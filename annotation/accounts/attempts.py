"""How often somebody may try to sign in: after some failures there are pauses, each twice as long as the one before.

They are counted for a name from one address, for an address, and for a name from anywhere. The one surprising fact: the
last has the shortest pauses, because whoever knows a colleague's name could otherwise keep her out.
"""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from annotation.accounts.accounts import folded_name

KEPT: Final = 10_000  # keys; beyond that the oldest are forgotten
FORGOTTEN: Final = 3600.0  # seconds without a failure after which one begins anew


@dataclass(frozen=True)
class Limit:
    """How many failures are free, and how long a pause can become, in seconds."""

    free: int
    longest: float


NAME_AND_ADDRESS: Final = Limit(5, 900.0)
ADDRESS: Final = Limit(20, 60.0)  # several people may share one, behind a proxy
NAME: Final = Limit(50, 30.0)


@dataclass
class _Failures:
    count: int
    last: float


class Attempts:
    """The failures of this process; a restart forgets them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[Hashable, _Failures] = {}
        self._lock = threading.Lock()

    def begin(self, name: str, address: str) -> float:
        """Count an attempt as failed until `succeeded` says otherwise; 0, or the seconds to wait and nothing counted.

        Counted before the password is looked at, so that many attempts at once are not each the first.
        """
        with self._lock:
            now = self._clock()
            wait = max(self._pause(key, limit, now) for key, limit in _keys(name, address))
            if wait <= 0:
                for key, _ in _keys(name, address):
                    old = self._failures.pop(key, None)
                    count = 0 if old is None or now - old.last > FORGOTTEN else old.count
                    self._failures[key] = _Failures(count + 1, now)  # at the end: the oldest come first
                while len(self._failures) > KEPT:
                    self._failures.pop(next(iter(self._failures)))
            return max(0.0, wait)

    def succeeded(self, name: str, address: str) -> None:
        """It was the right password: the failures before it no longer count, except against the name elsewhere."""
        with self._lock:
            for key, limit in _keys(name, address):
                if limit is NAME_AND_ADDRESS:
                    self._failures.pop(key, None)
                elif key in self._failures:
                    self._failures[key].count -= 1

    def _pause(self, key: Hashable, limit: Limit, now: float) -> float:
        failures = self._failures.get(key)
        if failures is None or failures.count < limit.free or now - failures.last > FORGOTTEN:
            return 0.0
        pause = min(limit.longest, 2.0 ** min(failures.count - limit.free, 30))
        return failures.last + pause - now


def _keys(name: str, address: str) -> list[tuple[Hashable, Limit]]:
    folded = folded_name(name)  # as accounts are looked up: "ann " is ann
    return [((folded, address), NAME_AND_ADDRESS), (("", address), ADDRESS), ((folded,), NAME)]
