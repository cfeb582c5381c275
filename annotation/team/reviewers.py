"""How well and how fast each reviewer works, from his decisions, the traps he was shown and what others have said.

    for each in store.team.reviewers(): print(each.name, each.accept_rate, each.caught)

Times are of single decisions: those made for many faces at once say nothing of one. The one surprising fact: two
reviewers who both edit a pair differ unless their texts are the same, as they do for the pair's status.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from annotation.models import VERDICTS, Action, Decision, Pair, TrapAnswer, Verdict
from annotation.statistics.intervals import Share, wilson

FAST: Final = 700  # milliseconds: nobody reads a picture and an answer in less
ENOUGH_TRAPS: Final = 10  # before a catch rate is worth a word


@dataclass
class ReviewerQuality:
    """One reviewer; shares have 95 % intervals and are None of nothing."""

    name: str
    actions: dict[str, int]  # what stands, by action
    accept_rate: Share | None  # accepted as they were, of all verdicts
    seconds: tuple[float, float, float] | None = None  # quartiles of the time for a verdict; the middle is the median
    fast: Share | None = None  # accepts under FAST, of those whose time is known
    fast_pairs: list[int] = field(default_factory=list)  # those that stand
    caught: Share | None = None  # traps that were rejected, edited or flagged, of those that were not skipped
    differs: Share | None = None  # comparisons with another reviewer's verdict, neither having seen the other's
    overruled: Share | None = None  # settled otherwise, of his verdicts that a curator has settled
    days: dict[str, int] = field(default_factory=dict)  # decisions by day (UTC), undone ones too

    @property
    def decisions(self) -> int:
        """How many of his decisions stand."""
        return sum(self.actions.values())


def read_reviewers(session: Session) -> list[ReviewerQuality]:
    """Everybody who has decided about anything, who has decided most first."""
    actions = _actions(session)
    times, days = _times(session), _days(session)
    caught, differs, overruled = _caught(session), _differs(session), _overruled(session)
    found = []
    for name in actions.keys() | days.keys() | caught.keys():
        of = actions.get(name, {})
        taken, fast, pairs = times.get(name, (None, None, []))
        verdicts = sum(of.get(action.value, 0) for action in VERDICTS)
        found.append(
            ReviewerQuality(
                name,
                of,
                wilson(of.get(Action.ACCEPT.value, 0), verdicts),
                taken,
                fast,
                pairs,
                caught.get(name),
                differs.get(name),
                overruled.get(name),
                days.get(name, {}),
            )
        )
    return sorted(found, key=lambda each: (-each.decisions, each.name))


def _actions(session: Session) -> Mapping[str, dict[str, int]]:
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    by = (col(Verdict.reviewer), col(Verdict.action))
    for name, action, count in session.execute(sa.select(*by, sa.func.count()).group_by(*by).order_by(*by)):
        found[name][action.value] = count
    return found


Times = tuple[tuple[float, float, float] | None, Share | None, list[int]]


def _times(session: Session) -> Mapping[str, Times]:
    """Quartiles in seconds, the share of fast accepts, and the pairs of those."""
    action = sa.type_coerce(col(Decision.action), sa.String)
    query = sa.select(col(Decision.reviewer), action, col(Decision.milliseconds))
    query = query.where(action.in_(VERDICTS), col(Decision.milliseconds).is_not(None), col(Decision.lot).is_(None))
    taken: defaultdict[str, list[int]] = defaultdict(list)
    accepts: defaultdict[str, list[int]] = defaultdict(list)
    for name, done, milliseconds in session.execute(query):
        taken[name].append(milliseconds)
        if done == Action.ACCEPT:
            accepts[name].append(milliseconds)
    pairs = _fast_pairs(session)
    found: dict[str, Times] = {}
    for name, times in taken.items():
        low, median, high = (float(each) / 1000 for each in np.percentile(times, (25, 50, 75)))
        fast = wilson(sum(each < FAST for each in accepts[name]), len(accepts[name]))
        found[name] = ((low, median, high), fast, pairs.get(name, []))
    return found


def _fast_pairs(session: Session) -> Mapping[str, list[int]]:
    """Accepts that stand and were made too fast."""
    query = sa.select(col(Decision.reviewer), col(Decision.pair_id)).order_by(col(Decision.pair_id))
    query = query.join(Verdict, col(Verdict.decision_uuid) == col(Decision.uuid))
    query = query.where(
        col(Decision.action) == Action.ACCEPT, col(Decision.milliseconds) < FAST, col(Decision.lot).is_(None)
    )
    found: defaultdict[str, list[int]] = defaultdict(list)
    for name, pair_id in session.execute(query):
        found[name].append(pair_id)
    return found


def _caught(session: Session) -> Mapping[str, Share | None]:
    """Of the traps that somebody has decided about, the last word that stands."""
    counts = sa.and_(~col(TrapAnswer.undone), col(TrapAnswer.action).not_in((Action.UNDO, Action.SKIP)))
    last = sa.select(sa.func.max(col(TrapAnswer.id))).where(counts).group_by(col(TrapAnswer.trap_id))
    noticed = sa.func.count(sa.case((col(TrapAnswer.action) != Action.ACCEPT, 1)))
    query = sa.select(col(TrapAnswer.reviewer), noticed, sa.func.count()).where(col(TrapAnswer.id).in_(last))
    return {name: wilson(hits, of) for name, hits, of in session.execute(query.group_by(col(TrapAnswer.reviewer)))}


def _differs(session: Session) -> Mapping[str, Share | None]:
    """Each verdict against each other reviewer's about the same pair, where neither had seen the other's."""
    his, other = aliased(Verdict), aliased(Verdict)
    query = sa.select(col(his.reviewer), sa.func.count(sa.case((_differ(his, other), 1))), sa.func.count())
    query = query.join_from(Pair, his, col(his.pair_id) == col(Pair.id)).join(
        other, sa.and_(col(other.pair_id) == col(Pair.id), col(other.reviewer) != col(his.reviewer))
    )
    both = [condition for each in (his, other) for condition in (col(each.action).in_(VERDICTS), col(each.blind))]
    query = query.where(col(Pair.verdicts) > 1, *both).group_by(col(his.reviewer))
    return {name: wilson(hits, of) for name, hits, of in session.execute(query)}


def _overruled(session: Session) -> Mapping[str, Share | None]:
    his, last = aliased(Verdict), aliased(Verdict)
    query = sa.select(col(his.reviewer), sa.func.count(sa.case((_differ(his, last), 1))), sa.func.count())
    query = query.join(last, sa.and_(col(last.pair_id) == col(his.pair_id), col(last.reviewer) != col(his.reviewer)))
    query = query.where(col(last.settles), ~col(his.settles), col(his.action).in_(VERDICTS))
    return {name: wilson(hits, of) for name, hits, of in session.execute(query.group_by(col(his.reviewer)))}


def _differ(one: Any, other: Any) -> sa.ColumnElement[bool]:
    text = sa.func.coalesce(col(one.text), "") != sa.func.coalesce(col(other.text), "")
    return sa.or_(col(one.action) != col(other.action), text)


def _days(session: Session) -> Mapping[str, dict[str, int]]:
    day = sa.func.substr(sa.cast(sa.type_coerce(col(Decision.created_at), sa.DateTime), sa.String), 1, 10)
    query = sa.select(col(Decision.reviewer), day.label("day"), sa.func.count()).where(
        col(Decision.action) != Action.UNDO
    )
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for name, on, count in session.execute(query.group_by(col(Decision.reviewer), "day").order_by("day")):
        found[name][on] = count
    return found
