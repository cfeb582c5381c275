"""Which model people prefer: Bradley-Terry strengths from blind votes, with bootstrap intervals.

    ranking = rank(votes)

A vote is a win for one model, or half a win for each where it is a tie or both are bad. Each model also plays one
virtual game, half won and half lost, spread evenly over all others; so no score is infinite, and models that were
never compared, not even through others, still have scores, which `Ranking.connected` warns about. The one surprising
fact: the virtual games are in the urn of the bootstrap, too. Otherwise a model that has won all its votes would win
them in every round, and its interval would have no width.

The order of the votes does not matter, nor does which model was a and which b. Votes count alike whoever gave them,
so one eager voter can bend a ranking. Source: R. A. Bradley and M. E. Terry, Biometrika 39 (1952); W.-L. Chiang et al.,
Chatbot Arena (2024), for the bootstrap.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facellm.votes import Outcome, Vote

ENOUGH_VOTES = 50  # in all; under it a ranking is mostly noise
AVERAGE = 1000.0  # the mean score
SCALE = 400 / math.log(10)  # points for each unit of log odds: 400 points are odds of ten to one
INTERVAL = (2.5, 97.5)  # percentiles
CELLS = 2_000_000  # how many numbers one array of the bootstrap may have

Model = tuple[str, str]  # name and source
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Standing:
    """One model's place; wins, ties, losses and both_bad add up to votes."""

    label: str  # the name; with its source where another model has the same name
    name: str
    source: str
    score: float  # 1000 is the average of all models, and 400 points more are ten times the odds
    low: float  # the 95 % interval
    high: float
    votes: int
    wins: int
    ties: int
    losses: int
    both_bad: int

    @property
    def both_bad_share(self) -> float:
        """The share of its votes in which neither answer was good."""
        return self.both_bad / self.votes


@dataclass(frozen=True)
class Ranking:
    """All models that were voted on, the strongest first."""

    standings: tuple[Standing, ...]
    shares: tuple[tuple[float | None, ...], ...]  # row's share of wins against column, ties half; None: no such vote
    votes: int
    both_bad: int
    connected: bool  # whether all models were compared, directly or through others

    @property
    def enough(self) -> bool:
        """Whether there are enough votes to show scores at all."""
        return self.votes >= ENOUGH_VOTES

    @property
    def both_bad_share(self) -> float:
        """The share of all votes in which neither answer was good; 0 without votes."""
        return self.both_bad / self.votes if self.votes else 0.0


def rank(votes: Iterable[Vote], *, rounds: int = 1000, seed: int = 0) -> Ranking:
    """Rank the models of these votes.

    Args:
        votes: in any order.
        rounds: of the bootstrap; the same votes, rounds and seed give the same numbers.
        seed: of its draws.
    """
    counts = Counter(_result(vote) for vote in votes)
    models = sorted({model for pair, _ in counts for model in pair})
    if not models:
        return Ranking((), (), votes=0, both_bad=0, connected=True)
    tables = {outcome: _table(counts, models, outcome) for outcome in Outcome}
    drawn = tables[Outcome.TIE] + tables[Outcome.BOTH_BAD]
    wins = tables[Outcome.A] + tables[Outcome.B].T
    half_wins = wins + (drawn + drawn.T) / 2
    scores = _scores(half_wins)
    low, high = np.percentile(_bootstrap(wins, np.triu(drawn + drawn.T), rounds, seed), INTERVAL, axis=0)
    order = sorted(range(len(models)), key=lambda i: (-round(float(scores[i]), 6), models[i]))
    both_bad = tables[Outcome.BOTH_BAD]
    standings = [_standing(models, i, (scores[i], low[i], high[i]), wins, tables[Outcome.TIE], both_bad) for i in order]
    return Ranking(
        standings=tuple(standings),
        shares=_shares(half_wins[np.ix_(order, order)]),
        votes=counts.total(),
        both_bad=int(both_bad.sum()),
        connected=_connected(half_wins),
    )


def _result(vote: Vote) -> tuple[tuple[Model, Model], Outcome]:
    """The pair in alphabetical order, and the outcome as if they had stood so."""
    a, b = (vote.a, vote.a_source), (vote.b, vote.b_source)
    if a < b:
        return (a, b), vote.outcome
    return (b, a), {Outcome.A: Outcome.B, Outcome.B: Outcome.A}.get(vote.outcome, vote.outcome)


def _table(counts: Counter[tuple[tuple[Model, Model], Outcome]], models: Sequence[Model], outcome: Outcome) -> Matrix:
    """How often the pair of row and column, row < column, had this outcome."""
    number = {model: i for i, model in enumerate(models)}
    table = np.zeros((len(models), len(models)))
    for ((a, b), kind), count in counts.items():
        if kind is outcome:
            table[number[a], number[b]] = count
    return table


def _standing(
    models: Sequence[Model], i: int, score: tuple[float, float, float], wins: Matrix, ties: Matrix, both_bad: Matrix
) -> Standing:
    name, source = models[i]
    unique = sum(other == name for other, _ in models) == 1
    won, lost = int(wins[i].sum()), int(wins[:, i].sum())
    tied, bad = (int(table[i].sum() + table[:, i].sum()) for table in (ties, both_bad))
    return Standing(
        label=name if unique else f"{name} ({source})",
        name=name,
        source=source,
        score=float(score[0]),
        low=float(score[1]),
        high=float(score[2]),
        votes=won + tied + lost + bad,
        wins=won,
        ties=tied,
        losses=lost,
        both_bad=bad,
    )


def _prior(size: int) -> Matrix:
    """The virtual wins of row against column: half a win and half a loss for each model in all."""
    return (1 - np.eye(size)) / (2 * (size - 1))


def _scores(half_wins: Matrix) -> Matrix:
    """Scores for one table of wins (models × models), or for many (rounds × models × models)."""
    return AVERAGE + SCALE * _strengths(half_wins + _prior(half_wins.shape[-1]))


def _strengths(wins: Matrix) -> Matrix:
    """The log strengths, zero on average, that make these wins (row against column, no pair without) likeliest.

    Newton's method. The logarithm of the likelihood is concave with one maximum, and a step that changes no difference
    of two strengths by more than 1 always climbs, so it is reached from anywhere.
    """
    games = wins + wins.swapaxes(-1, -2)
    size = wins.shape[-1]
    strengths = np.zeros(wins.shape[:-1])
    for _ in range(200):
        expected = 1 / (1 + np.exp(strengths[..., None, :] - strengths[..., :, None]))
        slope = (wins - games * expected).sum(-1)
        weights = games * expected * (1 - expected)
        curvature = np.eye(size) * weights.sum(-1)[..., None] - weights
        step = np.linalg.solve(curvature + 1 / size, slope[..., None])[..., 0]  # the addend keeps the average at zero
        widest = np.ptp(step, axis=-1, keepdims=True)
        strengths += step / np.maximum(widest, 1)
        if widest.max() < 1e-9:
            break
    return strengths - strengths.mean(-1, keepdims=True)


def _bootstrap(wins: Matrix, draws: Matrix, rounds: int, seed: int) -> Matrix:
    """Scores (rounds × models) from votes that are drawn anew, with the virtual games in the urn.

    Args:
        wins: of row against column.
        draws: between row and column, row < column.
        rounds: how often all votes are drawn.
        seed: of the draws.
    """
    size = len(wins)
    urn = np.concatenate([wins + _prior(size), draws]).ravel()
    votes = int(wins.sum() + draws.sum())
    rng = np.random.default_rng(seed)
    at_once = max(1, CELLS // urn.size)
    scores = []
    for start in range(0, rounds, at_once):
        drawn = rng.multinomial(votes, urn / urn.sum(), size=min(at_once, rounds - start))
        won, tied = drawn.reshape(-1, 2, size, size).swapaxes(0, 1)
        scores.append(_scores(won + (tied + tied.swapaxes(-1, -2)) / 2))
    return np.concatenate(scores)


def _shares(half_wins: Matrix) -> tuple[tuple[float | None, ...], ...]:
    games = half_wins + half_wins.T
    return tuple(
        tuple(float(won / all_) if all_ else None for won, all_ in zip(*row, strict=True))
        for row in zip(half_wins, games, strict=True)
    )


def _connected(half_wins: Matrix) -> bool:
    """Whether every model can be reached from the first, going from a model to those it was compared with."""
    linked = (half_wins + half_wins.T) > 0
    reached = np.zeros(len(linked), dtype=bool)
    reached[0] = True
    for _ in linked:
        reached |= linked[reached].any(axis=0)
    return bool(reached.all())
