"""How far the work has come: what is open, what was accepted when, and how often by attribute and group of faces.

    store.team.progress().accepted

A group stands out where its pairs are rejected at least half as often again as those of all other groups together, and
the share of false alarms among all that are named is at most 5 %, as in `statistics.group_stats`. The one surprising
fact: a pair counts as accepted at the moment of its last verdict, not when it was first looked at.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session, col

from annotation.fairface import VALUES
from annotation.models import CURATED, FREE_QUESTION, GROUPS, OPEN, Action, Pair, Status, Verdict
from annotation.statistics.group_stats import MAX_Q, MIN_RATIO, MIN_SIZE
from annotation.statistics.intervals import Share, wilson
from annotation.statistics.rates import Clusters, Contrast, Tally, benjamini_hochberg, contrast, design_effect
from facellm.data import Attribute

ATTRIBUTE: Final = "attribute"
DECIDED: Final = (*CURATED, Status.REJECTED)


@dataclass(frozen=True)
class Rate:
    """How often the decided pairs of one group were accepted, as they were or edited."""

    name: str
    share: Share
    rejections: Contrast | None = None  # of the rest: how many times as often; None where it was not compared
    stands_out: bool = False


@dataclass(frozen=True)
class Progress:
    """The data set as it is."""

    statuses: dict[Status, int]
    verdicts: int  # that count
    wanted: int  # verdicts that open pairs still want
    overlapped: int  # pairs that more than one reviewer decides
    accepted: dict[datetime, int]  # curated pairs by the hour of their last verdict (UTC)
    rates: dict[str, list[Rate]]  # by attribute, race, gender and age; what is not known is left out

    @property
    def pairs(self) -> int:
        """All of them."""
        return sum(self.statuses.values())

    @property
    def curated(self) -> int:
        """What a snapshot would take."""
        return sum(self.statuses[status] for status in CURATED)

    @property
    def open(self) -> int:
        """Still handed out to reviewers."""
        return sum(number for status, number in self.statuses.items() if status.is_open)

    def accepted_by(self, unit: str) -> dict[str, int]:
        """Curated pairs by `hour` or by `day`, in this machine's time: `2026-11-25 14:00`, or without the hour."""
        form = "%Y-%m-%d %H:00" if unit == "hour" else "%Y-%m-%d"
        found: Counter[str] = Counter()
        for hour, number in sorted(self.accepted.items()):
            found[hour.astimezone().strftime(form)] += number
        return dict(found)


def read_progress(session: Session) -> Progress:
    """Everything, from the database as it is."""
    by_status = sa.select(col(Pair.status), sa.func.count()).group_by(col(Pair.status))
    statuses = dict.fromkeys(Status, 0) | {Status(status): number for status, number in session.execute(by_status)}
    missing = sa.func.sum(sa.case((col(Pair.status).in_(OPEN), col(Pair.overlap) - col(Pair.verdicts)), else_=0))
    overlapped = sa.func.count(sa.case((col(Pair.overlap) > 1, 1)))
    verdicts, wanted, more = session.execute(sa.select(sa.func.sum(col(Pair.verdicts)), missing, overlapped)).one()
    return Progress(statuses, verdicts or 0, wanted or 0, more, _accepted(session), _rates(session))


def _accepted(session: Session) -> dict[datetime, int]:
    """By the hour; the text of a time begins alike in all databases."""
    last = sa.func.max(sa.type_coerce(col(Verdict.created_at), sa.DateTime)).label("last")
    curated = sa.select(last).join(Pair, col(Pair.id) == col(Verdict.pair_id))
    curated = curated.where(col(Pair.status).in_(CURATED), col(Verdict.action).in_((Action.ACCEPT, Action.EDIT)))
    each = curated.group_by(col(Verdict.pair_id)).subquery()
    hour = sa.func.substr(sa.cast(each.c.last, sa.String), 1, 13).label("hour")
    rows = session.execute(sa.select(hour, sa.func.count()).group_by("hour").order_by("hour"))
    return {datetime.fromisoformat(f"{of}:00").replace(tzinfo=UTC): number for of, number in rows}


def _rates(session: Session) -> dict[str, list[Rate]]:
    found = {ATTRIBUTE: _compared(_by_attribute(session))}
    cells = _by_group(session)
    for place, name in enumerate(GROUPS):
        groups: dict[str, Clusters] = {}
        for values, cell in cells.items():
            groups[values[place]] = groups.get(values[place], Clusters()) + cell
        groups.pop("", None)
        found[name] = _compared(_ordered(groups, VALUES[name]))
    return found


def _ordered(groups: Mapping[str, Clusters], order: Sequence[str]) -> dict[str, Clusters]:
    names = [name for name in order if name in groups] + sorted(groups.keys() - set(order))
    return {name: groups[name] for name in names}


def _compared(groups: Mapping[str, Clusters]) -> list[Rate]:
    """Each group with its rejections against those of the rest."""
    effect = design_effect(list(groups.values()))
    total = sum(groups.values(), Clusters())
    rates = []
    for name, own in groups.items():
        rest = Tally(total.x - own.x, total.n - own.n)
        share = wilson(own.n - own.x, own.n, independent=max(1.0, own.n / effect))
        enough = own.n >= MIN_SIZE and rest.size >= MIN_SIZE
        if share is not None:
            compared = contrast(own.tally, rest, design_effect=effect) if enough else None
            rates.append(Rate(name, share, compared))
    compared_rates = [rate for rate in rates if rate.rejections is not None]
    q = benjamini_hochberg([rate.rejections.p for rate in compared_rates if rate.rejections is not None])
    loud = {rate.name for rate, value in zip(compared_rates, q, strict=True) if value <= MAX_Q and _is_much(rate)}
    return [Rate(rate.name, rate.share, rate.rejections, rate.name in loud) for rate in rates]


def _is_much(rate: Rate) -> bool:
    found = rate.rejections
    return found is not None and (found.ratio is None or found.ratio >= MIN_RATIO)


def _by_attribute(session: Session) -> dict[str, Clusters]:
    """The pairs of one attribute; those of one face are nearly always one."""
    face = _by_face(col(Pair.attribute), col(Pair.image_id)).subquery()
    found = {name or FREE_QUESTION: of for (name,), of in _sums(session, face, [face.c.attribute])}
    return _ordered(found, [*Attribute, FREE_QUESTION])


def _by_group(session: Session) -> dict[tuple[str, ...], Clusters]:
    """(race, gender, age) → sums over its faces."""
    labels = [col(getattr(Pair, name)) for name in GROUPS]
    face = _by_face(*labels, col(Pair.image_id)).subquery()
    return dict(_sums(session, face, [face.c[name] for name in GROUPS]))


def _by_face(*by: Any) -> sa.Select:
    """These columns, n decided pairs, x of them rejected."""
    rejected = sa.func.count(sa.case((col(Pair.status) == Status.REJECTED, 1)))
    query: sa.Select = sa.select(*by, sa.func.count().label("n"), rejected.label("x"))
    return query.where(col(Pair.status).in_(DECIDED)).group_by(*by)


def _sums(session: Session, face: sa.Subquery, by: Sequence[Any]) -> Iterable[tuple[Any, Clusters]]:
    n, x = face.c.n, face.c.x
    sums = [sa.func.sum(each) for each in (n, n * n, x, x * x, x * n)]
    for row in session.execute(sa.select(*by, sa.func.count(), *sums).group_by(*by)):
        yield tuple(row[: len(by)]), Clusters(*(int(number) for number in row[len(by) :]))
