"""How many faces, answers, pairs and hits there are for each combination of labels, counted by the database.

A hit is an answer that was refused, filtered, cut or invalid, or a pair that a check has flagged. The one surprising
fact: hits are summed by face first and then with their squares, since the answers about one face are much alike and
what is uncertain about a rate is the faces (see rates.py).
"""

from dataclasses import dataclass, field, replace
from typing import Final, Literal

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from annotation.models import Flag, Image, Label, Pair, Task, TaskState
from annotation.statistics.rates import Clusters

CROSSED: Final = ("race", "gender", "age")  # the labels whose combinations are groups, too
UNKNOWN: Final = "unknown"
MAX_VALUES: Final = 20  # of a label; one that has more is no grouping
ANY_CHECK: Final = "any check"
LOST: Final = (TaskState.REFUSED, TaskState.FILTERED, TaskState.CUT, TaskState.INVALID)
ANSWERED: Final = (TaskState.OK, *LOST)  # ends of a question; a fallback is asked again, and counts then

Values = tuple[str, ...]  # of labels, in the order of their names
Unit = Literal["answers", "pairs"]


@dataclass(frozen=True, order=True)
class Kind:
    """A kind of hit: the state of an answer, or the check that flags a pair."""

    unit: Unit
    name: str


@dataclass
class Group:
    """Faces that have the same labels."""

    values: Values
    images: int = 0
    sizes: dict[Unit, Clusters] = field(default_factory=dict)  # their answers and pairs, without hits
    hits: dict[Kind, Clusters] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """Whether its faces have all the labels."""
        return UNKNOWN not in self.values

    def of(self, kind: Kind) -> Clusters:
        """The hits of one kind, which may be none."""
        return self.hits.get(kind) or self.sizes.get(kind.unit) or Clusters()

    def add(self, other: "Group") -> None:
        """Take in the faces of another group."""
        kinds = self.hits.keys() | other.hits.keys()
        self.hits = {kind: self.of(kind) + other.of(kind) for kind in kinds}
        units = self.sizes.keys() | other.sizes.keys()
        self.sizes = {unit: self.sizes.get(unit, Clusters()) + other.sizes.get(unit, Clusters()) for unit in units}
        self.images += other.images


def grouping(session: Session) -> tuple[str, ...]:
    """The labels to group by: race, gender and age where there are such, else every label with few values."""
    query = select(Label.name, func.count(sa.distinct(col(Label.value)))).group_by(Label.name)
    there = {name for name, values in session.exec(query) if values <= MAX_VALUES}
    if {"race", "gender"} & there:
        return tuple(name for name in CROSSED if name in there)
    return tuple(sorted(there))


def read_groups(session: Session, names: tuple[str, ...]) -> list[Group]:
    """A group for each combination of these labels' values that occurs."""
    labels = _labels(names)
    values = [labels.c[f"value_{index}"] for index in range(len(names))]
    count = sa.select(*values, sa.func.count()).group_by(*values)
    groups = {tuple(of): Group(tuple(of), images) for *of, images in session.execute(count)}
    units: tuple[tuple[Unit, sa.Select, list[sa.Select]], ...] = (
        ("answers", _answers_by_face(), [_lost_by_face()]),
        ("pairs", _pairs_by_face(), [_flagged_by_face(each=True), _flagged_by_face(each=False)]),
    )
    for unit, by_face, hits in units:
        sizes = by_face.subquery()
        n = sizes.c.n
        sums = sa.select(*values, sa.func.count(), _sum(n), _sum(n * n))
        sums = sums.join_from(sizes, labels, labels.c.image_id == sizes.c.image_id).group_by(*values)
        for *of, faces, total, squares in session.execute(sums):
            groups[tuple(of)].sizes[unit] = Clusters(faces, total, squares)
        for found in (query.subquery() for query in hits):
            x, kind = found.c.x, found.c.kind
            sums = sa.select(*values, kind, _sum(x), _sum(x * x), _sum(x * n))
            sums = sums.join_from(found, sizes, sizes.c.image_id == found.c.image_id)
            sums = sums.join(labels, labels.c.image_id == found.c.image_id).group_by(*values, kind)
            for *of, name, total, squares, products in session.execute(sums):
                group = groups[tuple(of)]
                group.hits[Kind(unit, str(name))] = replace(group.sizes[unit], x=total, xx=squares, xn=products)
    return list(groups.values())


def _sum(numbers: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """Their sum as an integer: PostgreSQL makes a decimal of it."""
    return sa.cast(sa.func.sum(numbers), sa.BigInteger)


def _labels(names: tuple[str, ...]) -> sa.Subquery:
    """image_id, value_0, value_1, …: of each image these labels, the newest where several sources have one."""
    newest = select(func.max(Label.id)).where(col(Label.name).in_(names)).group_by(col(Label.image_id), Label.name)
    found = [func.max(sa.case((col(Label.name) == name, col(Label.value)))) for name in names]
    values = [func.coalesce(value, UNKNOWN).label(f"value_{index}") for index, value in enumerate(found)]
    of_image = sa.and_(col(Label.image_id) == col(Image.id), col(Label.id).in_(newest))
    query = sa.select(col(Image.id).label("image_id"), *values).outerjoin(Label, of_image)
    return query.group_by(col(Image.id)).subquery()


def _answers_by_face() -> sa.Select:
    """image_id, n."""
    query = sa.select(col(Task.image_id), sa.func.count().label("n"))
    return query.where(col(Task.subject) == "", col(Task.state).in_(ANSWERED)).group_by(col(Task.image_id))


def _lost_by_face() -> sa.Select:
    """image_id, kind, x."""
    query: sa.Select = sa.select(col(Task.image_id), col(Task.state).label("kind"), sa.func.count().label("x"))
    lost = query.where(col(Task.subject) == "", col(Task.state).in_(LOST))
    return lost.group_by(col(Task.image_id), col(Task.state))


def _pairs_by_face() -> sa.Select:
    """image_id, n."""
    return sa.select(col(Pair.image_id), sa.func.count().label("n")).group_by(col(Pair.image_id))


def _flagged_by_face(*, each: bool) -> sa.Select:
    """image_id, kind, x, for each check, or for any of them."""
    kind: sa.ColumnElement[str] = sa.type_coerce(col(Flag.check), sa.String) if each else sa.literal(ANY_CHECK)
    hit = sa.func.count(sa.distinct(col(Flag.pair_id))).label("x")
    query: sa.Select = sa.select(col(Pair.image_id), kind.label("kind"), hit)
    return query.join(Flag, col(Flag.pair_id) == col(Pair.id)).group_by(col(Pair.image_id), kind)
