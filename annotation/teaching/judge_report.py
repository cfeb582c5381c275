"""How far a judge agrees with people: its verdicts beside their decisions, wherever a pair has both.

    python -m annotation judge --report

A judge is for a pair or objects to it; people are for a draft that they accepted, and against one that they edited or
rejected. The one surprising fact: people who see a judge's flag before they decide agree with it more than they would
have; for an honest figure let it judge pairs that were decided before.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlmodel import Session, col, select

from annotation.models import Attempt, Pair, Status, Task, TaskState
from annotation.teaching.ledger import Ledger
from annotation.teaching.verdicts import BEST, Verdict, read_verdict

ENOUGH = 200  # pairs with a verdict and a decision; below, a judge is not calibrated
ROUNDS = 2000  # of the bootstrap
INTERVAL = (2.5, 97.5)  # percentiles
CHUNK = 500
DECIDED = (Status.ACCEPTED, Status.EDITED, Status.REJECTED)
_Cells = NDArray[np.int64]  # images × (both for, judge alone against, people alone against, both against)


@dataclass(frozen=True)
class Judge:
    """One judge: a model with what it was told."""

    model: str
    prompt_version: str
    parameters: str


@dataclass(frozen=True)
class Calibration:
    """What one judge has said, and how far people agree."""

    judge: Judge
    verdicts: int
    without: dict[str, int]  # how often no verdict came, by the state of the task
    scores: dict[int, dict[str, int]]  # score → status of the pair → pairs; pending and skipped ones are left out
    objections: int  # verdicts that object
    compared: int  # pairs with a verdict and a decision
    both_for: int
    judge_against: int  # alone
    people_against: int  # alone
    both_against: int
    agreement: float | None  # the share on which they agree; None where nothing can be compared
    kappa: float | None  # Cohen's; None where one side always says the same
    kappa_low: float | None  # the 95 % interval, from a bootstrap over images
    kappa_high: float | None

    @property
    def enough(self) -> bool:
        """Whether there are enough decisions to rely on the figures."""
        return self.compared >= ENOUGH


@dataclass(frozen=True)
class _Judged:
    image_id: int
    verdict: Verdict
    status: Status


def calibrations(ledger: Ledger) -> list[Calibration]:
    """Every judge that was asked, in the order of their names."""
    judged: dict[Judge, list[_Judged]] = {}
    without: dict[Judge, Counter[str]] = {}
    with ledger.reading() as session:
        after = 0
        while tasks := _tasks(session, after):
            after = tasks[-1][0].id or 0
            pairs = _pairs(session, tasks)
            for task, raw in tasks:
                judge = Judge(task.teacher, task.prompt_version, task.parameters)
                of, none = judged.setdefault(judge, []), without.setdefault(judge, Counter())
                verdict = read_verdict(raw) if task.state is TaskState.OK else None
                if verdict is not None:
                    of.append(_Judged(task.image_id, verdict, pairs[_pair_id(task)]))
                elif task.state is not TaskState.CLAIMED:
                    none[task.state.value] += 1
    order = sorted(judged, key=lambda judge: (judge.model, judge.prompt_version, judge.parameters))
    return [_calibration(judge, judged[judge], without[judge]) for judge in order]


def kappa(both_for: float, one: float, other: float, both_against: float) -> float | None:
    """Cohen's kappa of a table of two by two; None where it is not defined.

    Args:
        both_for: how often both said yes.
        one: how often only the second did.
        other: how often only the first did.
        both_against: how often neither did.
    """
    (value,) = _kappas(np.array([[both_for, one, other, both_against]], dtype=np.float64))
    return None if np.isnan(value) else float(value)


def _tasks(session: Session, after: int) -> Sequence[tuple[Task, str]]:
    query = select(Task, Attempt.raw).join(Attempt, col(Task.attempt_id) == Attempt.id)
    query = query.where(col(Task.subject).startswith("pair:"), col(Task.id) > after)
    return session.exec(query.order_by(col(Task.id)).limit(CHUNK)).all()


def _pairs(session: Session, tasks: Sequence[tuple[Task, str]]) -> Mapping[int, Status]:
    ids = {_pair_id(task) for task, _ in tasks}
    rows = session.exec(select(Pair.id, Pair.status).where(col(Pair.id).in_(ids)))
    return {pair_id or 0: Status(status) for pair_id, status in rows}


def _pair_id(task: Task) -> int:
    return int(task.subject.removeprefix("pair:"))


def _calibration(judge: Judge, judged: Sequence[_Judged], without: Counter[str]) -> Calibration:
    scores = {score: dict.fromkeys((status.value for status in DECIDED), 0) for score in range(1, BEST + 1)}
    cells: dict[int, list[int]] = {}
    for one in judged:
        if one.status in DECIDED:
            scores[one.verdict.score][one.status.value] += 1
            against = one.verdict.severity is not None, one.status is not Status.ACCEPTED
            cells.setdefault(one.image_id, [0, 0, 0, 0])[against[0] + 2 * against[1]] += 1
    table = np.array(list(cells.values()), dtype=np.int64).reshape(-1, 4)
    both_for, judge_against, people_against, both_against = (int(number) for number in table.sum(axis=0))
    compared = int(table.sum())
    low, high = _interval(table)
    return Calibration(
        judge=judge,
        verdicts=len(judged),
        without=dict(sorted(without.items())),
        scores=scores,
        objections=sum(one.verdict.severity is not None for one in judged),
        compared=compared,
        both_for=both_for,
        judge_against=judge_against,
        people_against=people_against,
        both_against=both_against,
        agreement=(both_for + both_against) / compared if compared else None,
        kappa=kappa(both_for, judge_against, people_against, both_against),
        kappa_low=low,
        kappa_high=high,
    )


def _interval(table: _Cells) -> tuple[float | None, float | None]:
    """The pairs of one image are not independent of each other, so images are drawn."""
    images = len(table)
    if images < 2:
        return None, None
    rng = np.random.default_rng(0)
    rounds = [rng.multinomial(images, np.full(images, 1 / images)) @ table for _ in range(ROUNDS)]
    found = _kappas(np.array(rounds, dtype=np.float64))
    found = found[~np.isnan(found)]
    if not len(found):
        return None, None
    low, high = np.percentile(found, INTERVAL)
    return float(low), float(high)


def _kappas(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cohen's kappa of each row; NaN where one side always says the same."""
    total = tables.sum(axis=1)
    both_for, judge, people, both_against = tables.T
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = (both_for + both_against) / total
        chance = (both_for + judge) * (both_for + people) + (both_against + judge) * (both_against + people)
        chance = chance / total**2
        return np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)
