"""What was asked of teachers and what it cost, by attribute and by teacher.

The one surprising fact: one request may ask for several attributes at once. Its tokens and its cost are then split
evenly among them; as a request it counts for each.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from annotation.models import FREE_QUESTION, Attempt, Flag, GenerationRun, Pair, Task, TaskState
from facellm.data import Attribute


@dataclass
class Bill:
    """Requests, and what they used."""

    requests: int = 0
    unpriced: int = 0  # of them: answered, but without a known price or usage
    input_tokens: float = 0.0
    cached_tokens: float = 0.0  # of the input
    output_tokens: float = 0.0
    cost_usd: float = 0.0

    def add(self, other: "Bill", share: float = 1.0) -> None:
        """Add another bill, or a share of its tokens and cost."""
        self.requests += other.requests
        self.unpriced += other.unpriced
        self.input_tokens += share * other.input_tokens
        self.cached_tokens += share * other.cached_tokens
        self.output_tokens += share * other.output_tokens
        self.cost_usd += share * other.cost_usd


@dataclass
class Costs:
    """The whole bill, and its parts."""

    total: Bill = field(default_factory=Bill)
    teachers: dict[str, Bill] = field(default_factory=dict)  # by the model that was asked for
    models: dict[str, Bill] = field(default_factory=dict)  # by the model that answered, as it called itself
    attributes: dict[str, Bill] = field(default_factory=dict)
    purposes: dict[str, Bill] = field(default_factory=dict)


@dataclass
class TaskCounts:
    """How many answers were asked for to become pairs, by what has come of them; judges and probes do not count."""

    states: dict[TaskState, int]
    attributes: dict[str, dict[TaskState, int]]
    teachers: dict[str, dict[TaskState, int]]


def read_costs(session: Session) -> Costs:
    """What all attempts have cost, lost and repeated ones too."""
    by = (col(Attempt.teacher), col(Attempt.returned_model), col(GenerationRun.purpose), col(Attempt.attributes))
    answered = sa.and_(col(Attempt.cost_usd).is_(None), col(Attempt.returned_model).is_not(None))
    used = (col(Attempt.input_tokens), col(Attempt.cached_tokens), col(Attempt.output_tokens), col(Attempt.cost_usd))
    sums = [sa.func.count(), sa.func.count(sa.case((answered, 1))), *(sa.func.sum(each) for each in used)]
    query = sa.select(*by, *sums).join(GenerationRun, col(GenerationRun.id) == col(Attempt.run_id)).group_by(*by)
    costs = Costs()
    for teacher, model, purpose, attributes, *numbers in _in_order(session.execute(query), len(by)):
        bill = Bill(*(number or 0 for number in numbers))
        costs.total.add(bill)
        costs.teachers.setdefault(teacher, Bill()).add(bill)
        costs.purposes.setdefault(purpose.value, Bill()).add(bill)
        if model is not None:
            costs.models.setdefault(model, Bill()).add(bill)
        asked = json.loads(attributes)
        for attribute in asked:
            costs.attributes.setdefault(attribute, Bill()).add(bill, 1 / len(asked))
    costs.attributes = {each: costs.attributes[each] for each in Attribute if each in costs.attributes}
    return costs


def read_task_counts(session: Session) -> TaskCounts:
    """How many tasks are in which state."""
    by = (col(Task.attribute), col(Task.teacher), col(Task.state))
    query = sa.select(*by, sa.func.count()).where(col(Task.subject) == "").group_by(*by)
    found = _in_order(session.execute(query), len(by))
    rows = [(attribute.value, teacher, state, number) for attribute, teacher, state, number in found]
    rows.sort(key=lambda row: list(Attribute).index(Attribute(row[0])))
    states = _summed(("", state, number) for _, _, state, number in rows)
    return TaskCounts(
        states=states.get("", {}),
        attributes=_summed((attribute, state, number) for attribute, _, state, number in rows),
        teachers=_summed((teacher, state, number) for _, teacher, state, number in rows),
    )


def read_flags(session: Session) -> dict[str, dict[str, int]]:
    """How many pairs each check has flagged, by attribute."""
    by = (col(Flag.check), col(Pair.attribute))
    query = sa.select(*by, sa.func.count(sa.distinct(col(Flag.pair_id)))).join(Pair, col(Pair.id) == col(Flag.pair_id))
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for check, attribute, number in _in_order(session.execute(query.group_by(*by)), len(by)):
        found[check][attribute or FREE_QUESTION] = number
    return dict(found)


def read_flagged(session: Session) -> dict[str, int]:
    """How many pairs have a flag, by attribute."""
    query = sa.select(col(Pair.attribute), sa.func.count(sa.distinct(col(Flag.pair_id))))
    query = query.join(Flag, col(Pair.id) == col(Flag.pair_id)).group_by(col(Pair.attribute))
    return {attribute or FREE_QUESTION: number for attribute, number in session.execute(query)}


def _in_order(rows: Iterable[Sequence[Any]], columns: int) -> list[Sequence[Any]]:
    """Rows by their first columns; sorted here, since each database has its own order of texts and of NULL."""
    return sorted(rows, key=lambda row: [(each is not None, each or "") for each in row[:columns]])


def _summed(rows: Iterable[tuple[str, TaskState, int]]) -> dict[str, dict[TaskState, int]]:
    """Name → state → number, the states in the order of their definition."""
    found: defaultdict[str, dict[TaskState, int]] = defaultdict(dict)
    for name, state, number in rows:
        found[name][state] = found[name].get(state, 0) + number
    return {name: {state: of[state] for state in TaskState if state in of} for name, of in found.items()}
