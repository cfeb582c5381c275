"""How fast a teacher may be asked: as many requests at once as was allowed, and no more a second than the server takes.

    pacer = Pacer(concurrency=32)
    pacer.delay(now), pacer.started(now), pacer.ended(started, now, limited=True)

The limit of a provider is mostly unknown and changes. Plain AIMD halves its speed at every 429, so a server that sends
a few of them at random is used at a fraction. Here a rate is set only when 429s become many: just below what was really
taken (much as BBR does for TCP). From there it is tried upwards in growing steps, each taken back at the first sign of
refusal, and downwards where refusals stay: if going slower means that less is taken, they are not about our speed, and
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
STEP_AFTER_CUT = 0.2  # a first try after a cut: the alarm may have been false
UP_SECONDS = 2.0  # how long a higher rate is watched
ENOUGH = 60  # requests that tell whether a lower rate helps
KNOWN_FOR = 45.0  # seconds after which it is found out anew which 429s are usual
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

    def taken(self, now: float) -> float:
        """Requests a second that were not refused."""
        return (self.asked - self.limited) / max(now - self.began, 1e-9)


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
        self._starts: deque[float] = deque()  # of the last WINDOW, and the same of the refusals
        self._refusals: deque[float] = deque()
        self._excess = 0.0  # 429s beyond the usual share, never below zero
        self._usual = 0.0  # the share of 429s that does not depend on the rate
        self._usual_since = 0.0
        self._phase = _Phase.FREE
        self._trial = _Trial()
        self._before = (0.0, _Trial(), 0.0)  # the rate to go back to, what was seen at it, and how much it took
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
        self._starts.append(now)
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
        if not limited:
            self._allowed = min(float(self.concurrency), self._allowed + 1)
            return
        self._refusals.append(now)
        if started >= self._trial.began:  # an earlier one says nothing about the present rate
            self._trial.limited += 1
            self._excess += 1
            self._heed(now)

    def _heed(self, now: float) -> None:
        """A 429: is it one too many?"""
        if self._phase is _Phase.UP:
            hoped = self._step_up * self._before[0] * UP_SECONDS / 2  # the least that is to be gained
            expected = self._usual * self._trial.asked
            if self._trial.limited > expected + 2 * math.sqrt(expected) + hoped + 1 or self._excess >= ALARM:
                self._take_back(now)
        elif self._excess >= ALARM:
            self._cut(now)

    def _move_on(self, now: float) -> None:
        """The present rate has been seen for long enough: draw the conclusion, and try another one."""
        rate, passed = self.rate or 0.0, now - self._trial.began
        if now - self._usual_since > KNOWN_FOR:
            self._usual = 0.0
        if self._phase is _Phase.REST and self._trial.exceeds(self._usual) and self._enough(rate):
            self._try(_Phase.DOWN, rate * (1 - STEP_DOWN), now)
        elif self._phase is _Phase.REST and passed > self._rest:
            if self._held_up:
                self._try(_Phase.UP, rate * (1 + self._step_up), now)
            else:
                self._enter(_Phase.FREE, None, now)  # it held nothing up, so it is not needed
        elif self._phase is _Phase.UP and passed > UP_SECONDS:
            self._judge_faster(now)
        elif self._phase is _Phase.DOWN and self._enough(rate):
            self._judge_slower(now)

    def _enough(self, rate: float) -> bool:
        """Whether the trial tells anything; slow servers cannot be asked as often."""
        return self._trial.asked >= max(ENOUGH / 3, min(ENOUGH, 4 * rate))

    def _try(self, phase: _Phase, rate: float, now: float) -> None:
        self._before = (self.rate or 0.0, self._trial, self._trial.taken(now))
        self._enter(phase, rate, now)

    def _judge_faster(self, now: float) -> None:
        """Keep a higher rate if more was taken, and try a larger step."""
        if not self._held_up:
            self._enter(_Phase.FREE, None, now)
        elif self._trial.taken(now) > (1 + self._step_up / 2) * self._before[2]:
            self._step_up, self._rest = min(max(LAST_STEP_UP, self._step_up), 2 * self._step_up), SHORTEST_REST
            self._try(_Phase.UP, (self.rate or 0.0) * (1 + self._step_up), now)
        else:
            self._take_back(now)

    def _take_back(self, now: float) -> None:
        """A higher rate was of no use."""
        self._step_up, self._rest = FIRST_STEP_UP, min(LONGEST_REST, 1.5 * self._rest)
        self._enter(_Phase.REST, self._before[0], now)

    def _judge_slower(self, now: float) -> None:
        """Keep a lower rate if no less was taken; else the 429s do not depend on the rate: take them for usual."""
        rate, before, taken = self._before
        no_less = self._trial.taken(now) > (1 - STEP_DOWN / 2 - 1 / self._trial.asked) * taken
        much_fewer = self._trial.limited / self._trial.asked < 0.25 * before.limited / before.asked
        if no_less or much_fewer:  # either alone may be spoilt by a machine that was busy meanwhile
            self._usual = 0.0
            self._enter(_Phase.REST, self.rate, now)
        else:
            self._usual_since = now
            self._usual = (self._trial.limited + before.limited) / (self._trial.asked + before.asked)
            self._enter(_Phase.REST, rate, now)

    def _cut(self, now: float) -> None:
        """There is a limit, or it has become lower: begin from what is delivered."""
        for times in (self._starts, self._refusals):
            while times and times[0] < now - WINDOW:
                times.popleft()
        passed = now - self._starts[0] if self._starts else 0.0
        taken = (len(self._starts) - len(self._refusals)) / max(passed, WINDOW / 2)
        known = passed > WINDOW / 4
        self._usual, self._rest = self._usual / 2, SHORTEST_REST / 2
        self._step_up = STEP_AFTER_CUT if known else UNKNOWN_STEP_UP
        self._enter(_Phase.REST, max(BELOW * taken, 0.2 if known else 2.0), now)

    def _enter(self, phase: _Phase, rate: float | None, now: float) -> None:
        self._phase, self.rate, self._trial = phase, rate, _Trial(now)
        self._excess, self._held_up = 0.0, False
        if rate is not None:
            self._next_start = now + 1 / rate
