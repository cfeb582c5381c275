"""The pacer against simulated servers: virtual time, so minutes pass in milliseconds."""

import heapq
import random
from collections.abc import Callable

import pytest

from annotation.teaching.pacing import Pacer

LATENCY = 0.5


def simulate(
    refuses: Callable[[float], bool], seconds: float, concurrency: int = 32
) -> tuple[Pacer, list[tuple[float, bool]]]:
    """(when asked, refused) of every request of a client with endless work; a refusal comes after 10 ms."""
    pacer, now, asked = Pacer(concurrency), 0.0, []
    running: list[tuple[float, float, bool]] = []
    while now < seconds:
        delay = pacer.delay(now)
        ends = running[0][0] if running else float("inf")
        if delay is not None and now + delay <= ends:
            now += delay
            refused = refuses(now)
            asked.append((now, refused))
            pacer.started(now)
            took = 0.01 if refused else LATENCY * random.Random(len(asked)).uniform(0.8, 1.2)
            heapq.heappush(running, (now + took, now, refused))
        else:
            now, started, refused = heapq.heappop(running)
            pacer.ended(started, now, limited=refused)
    return pacer, asked


class Bucket:
    """A server that takes `rate` requests a second."""

    def __init__(self, rate: Callable[[float], float], burst: float) -> None:
        self.rate, self.burst, self.level, self.last = rate, burst, burst, 0.0

    def __call__(self, now: float) -> bool:
        self.level = min(self.burst, self.level + (now - self.last) * self.rate(now))
        self.last = now
        if self.level < 1:
            return True
        self.level -= 1
        return False


def used(asked: list[tuple[float, bool]], start: float, end: float) -> tuple[float, float]:
    """(accepted a second, share refused) between two times."""
    seen = [refused for when, refused in asked if start <= when < end]
    return seen.count(False) / (end - start), seen.count(True) / len(seen)


@pytest.mark.parametrize("burst", [1, 20])
@pytest.mark.parametrize(("cap", "most_refused"), [(5, 0.07), (20, 0.03), (50, 0.03)])
def test_an_unannounced_cap_is_found_and_used(cap: int, most_refused: float, burst: int) -> None:
    _, asked = simulate(Bucket(lambda _: cap, burst), 120)
    accepted, refused = used(asked, 20, 120)
    assert accepted >= 0.85 * cap
    assert refused <= most_refused


def test_a_cap_that_doubles_is_used_within_20_seconds() -> None:
    _, asked = simulate(Bucket(lambda now: 20 if now < 60 else 40, 20), 120)
    assert used(asked, 80, 120)[0] >= 0.85 * 40


def test_a_cap_that_halves_is_kept_soon() -> None:
    _, asked = simulate(Bucket(lambda now: 40 if now < 60 else 20, 20), 140)
    accepted, refused = used(asked, 75, 140)
    assert accepted >= 0.85 * 20
    assert refused <= 0.03


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_refusals_at_random_do_not_slow_it_down(share: float) -> None:
    rng = random.Random(1)
    _, asked = simulate(lambda _: rng.random() < share, 60)
    assert used(asked, 5, 60)[0] >= 0.85 * (1 - share) * 32 / LATENCY


def test_without_refusals_all_places_are_used() -> None:
    pacer, asked = simulate(lambda _: False, 30)
    assert pacer.rate is None
    assert used(asked, 5, 30)[0] >= 0.95 * 32 / LATENCY


def test_it_starts_gently() -> None:
    pacer = Pacer(32)
    for _ in range(4):
        assert pacer.delay(0.0) == 0.0
        pacer.started(0.0)
    assert pacer.delay(0.0) is None
