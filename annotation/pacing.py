"""How fast a teacher may be asked: as many requests at once as was allowed, and no more a second than the server takes.

    pacer = Pacer(concurrency=32)
    pacer.delay(now), pacer.started(now), pacer.ended(started, now, limited=True)

The limit of a provider is mostly unknown and changes. Plain AIMD halves its speed at every 429, so a server that sends
a few of them at random is used at a fraction. Here a rate is set only when 429s become many: just below what was really
delivered (as BBR does for TCP). From there it is tried upwards in growing steps, each taken back at the first sign of
refusal, and downwards where refusals stay: if going slower does not make them fewer, they are not about our speed, and
from then on they are taken for usual. A clock is passed in, so that minutes are simulated in a test.
"""

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

WINDOW = 2.0  # seconds over which the delivered rate is measured
USUAL = 0.10  # without a rate, a share of 429s up to this is not taken for a limit
ALARM = 3.6  # so many 429s more than usual, in a short time, are a limit
BELOW = 0.97  # of the delivered rate: where to go back to
STEP_DOWN = 0.09  # of the rate
FIRST_STEP_UP = 0.04
LAST_STEP_UP = 0.5
UNKNOWN_STEP_UP = 1.0  # where a limit was met before anything was delivered
UP_SECONDS = 2.0  # how long a higher rate is watched
ENOUGH = 30  # requests that tell whether a lower rate helps
SHORTEST_REST = 3.0  # seconds at one rate before a higher one is tried
LONGEST_REST = 10.0
START = 4  # requests at once at the beginning; one more for each answer


class _Phase(Enum):
    FREE = auto()  # no rate is set
    REST = auto()  # a rate that seems to hold
    UP = auto()
    DOWN = auto()


@dataclass
class _Trial:
    """What has been seen since the phase began."""

    began: float = 0.0
    asked: int = 0
    limited: int = 0

    def exceeds(self, usual: float) -> bool:
        """Whether there are more 429s than such a share explains."""
        expected = usual * self.asked
        return self.limited > expected + 2 * math.sqrt(max(expected, 0.25))


class Pacer:
    """Decides when the next request may start; knows nothing of requests but their beginning and end.

    Args:
        concurrency: the most requests at once.
    """

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.rate: float | None = None  # requests a second; None while no limit has been met
        self.in_flight = 0
        self._allowed = float(min(START, concurrency))
        self._next_start = 0.0
        self._answers: deque[tuple[float, bool]] = deque()  # (when, limited), of the last WINDOW
        self._excess = 0.0  # 429s beyond the usual share, never below zero
        self._usual = 0.0  # the share of 429s that does not depend on the rate
        self._phase = _Phase.FREE
        self._trial = _Trial()
        self._before: tuple[float, _Trial] = (0.0, _Trial())  # the rate to go back to, and what was seen at it
        self._step_up = FIRST_STEP_UP
        self._rest = SHORTEST_REST
        self._held_up = False  # whether the rate has made anybody wait in this phase

    def delay(self, now: float) -> float | None:
        """Seconds until the next request may start; None: not before another one has ended."""
        if self.in_flight >= int(self._allowed):
            return None
        if self.rate is None:
            return 0.0
        wait = max(0.0, self._next_start - now)
        self._held_up = self._held_up or wait > 0
        return wait

    def started(self, now: float) -> None:
        """A request starts now.

        It is counted here and not at its end: a refusal comes back at once and an answer late, so that among the
        first to end there are more refusals than there are in truth.
        """
        self.in_flight += 1
        self._excess = max(0.0, self._excess - max(USUAL, 2 * self._usual))
        self._trial.asked += 1
        if self.rate is not None:
            self._next_start = max(now, self._next_start) + 1 / self.rate
            self._move_on(now)

    def ended(self, started: float, now: float, *, limited: bool) -> None:
        """A request has ended.

        Args:
            started: when it began.
            now: when it ended.
            limited: whether the server said that it was one too many.
        """
        self.in_flight -= 1
        self._answers.append((now, limited))
        while self._answers[0][0] < now - WINDOW:
            self._answers.popleft()
        if not limited:
            self._allowed = min(float(self.concurrency), self._allowed + 1)
        elif started >= self._trial.began:  # an earlier one says nothing about the present rate
            self._trial.limited += 1
            self._excess += 1
            self._heed(now)

    def _heed(self, now: float) -> None:
        """A 429: is it one too many?"""
        if self._excess >= ALARM:
            self._cut(now)
        elif self._phase is _Phase.UP and self._trial.exceeds(self._usual):
            self._step_up, self._rest = FIRST_STEP_UP, min(LONGEST_REST, 1.5 * self._rest)
            self._enter(_Phase.REST, self._before[0], now)
        elif self._phase is _Phase.REST and self.rate is not None and self._trial.exceeds(self._usual):
            self._before = self.rate, self._trial
            self._enter(_Phase.DOWN, self.rate * (1 - STEP_DOWN), now)

    def _move_on(self, now: float) -> None:
        """The present rate has held: try another one when its time has come."""
        passed = now - self._trial.began
        if self.rate is None:
            return
        if self._phase is _Phase.REST and passed > self._rest:
            if self._held_up:
                self._before = self.rate, self._trial
                self._enter(_Phase.UP, self.rate * (1 + self._step_up), now)
            else:
                self._enter(_Phase.FREE, None, now)  # it held nothing up, so it is not needed
        elif self._phase is _Phase.UP and passed > UP_SECONDS and not self._held_up:
            self._enter(_Phase.FREE, None, now)
        elif self._phase is _Phase.UP and passed > UP_SECONDS:
            self._step_up, self._rest = min(max(LAST_STEP_UP, self._step_up), 2 * self._step_up), SHORTEST_REST
            self._before = self.rate, self._trial
            self._enter(_Phase.UP, self.rate * (1 + self._step_up), now)
        elif self._phase is _Phase.DOWN and self._trial.asked >= ENOUGH:
            self._judge_slower(now)

    def _judge_slower(self, now: float) -> None:
        """Keep the lower rate if it made 429s fewer; else go back, and take their share for usual."""
        rate, before = self._before
        seen = self._trial
        if seen.limited > 2 and seen.limited / seen.asked > 0.5 * before.limited / before.asked:
            self._usual = (seen.limited + before.limited) / (seen.asked + before.asked)
            self._enter(_Phase.REST, rate, now)
        else:
            self._enter(_Phase.REST, self.rate, now)

    def _cut(self, now: float) -> None:
        """There is a limit, or it has become lower: begin from what is delivered."""
        passed = now - self._answers[0][0]
        delivered = sum(not limited for _, limited in self._answers) / max(passed, WINDOW / 2)
        known = passed > WINDOW / 4
        self._usual, self._rest = 0.0, SHORTEST_REST
        self._step_up = FIRST_STEP_UP if known else UNKNOWN_STEP_UP
        self._enter(_Phase.REST, max(BELOW * delivered, 0.2 if known else 2.0), now)

    def _enter(self, phase: _Phase, rate: float | None, now: float) -> None:
        self._phase, self.rate, self._trial = phase, rate, _Trial(now)
        self._excess, self._held_up = 0.0, False
        if rate is not None:
            self._next_start = now + 1 / rate
