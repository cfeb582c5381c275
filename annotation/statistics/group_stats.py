"""How groups of faces fare: images, answers, refusals and flags by race, gender and age, and who stands out.

    for notable in store.group_stats().notable: print(notable.sentence)

A group is named where something hits it at least half as often again as all other groups together, and where the share
of false alarms among all that are named is at most 5 %. Images without such labels, as rendered faces, are grouped by
each label that they have. The one surprising fact: faces without a label are shown as "unknown", but are neither a
group nor part of the rest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

from sqlmodel import Session

from annotation.fairface import VALUES, ethnicity
from annotation.models import TaskState
from annotation.statistics.group_counts import ANY_CHECK, CROSSED, Group, Kind, Values, grouping, read_groups
from annotation.statistics.rates import Contrast, Tally, benjamini_hochberg, contrast, design_effect

MIN_SIZE: Final = 20  # answers or pairs of a group that is compared
MIN_RATIO: Final = 1.5
MAX_Q: Final = 0.05
REFUSED: Final = Kind("answers", TaskState.REFUSED.value)
LOST_WORDS: Final = {
    REFUSED: "Refusals",
    Kind("answers", TaskState.FILTERED.value): "Content filter",
    Kind("answers", TaskState.CUT.value): "Answers cut off",
    Kind("answers", TaskState.INVALID.value): "Unusable answers",
}


@dataclass(frozen=True)
class Table:
    """Groups by one label, or by several at once."""

    names: tuple[str, ...]
    groups: tuple[Group, ...]

    @property
    def title(self) -> str:
        """Such as `race × gender × age`."""
        return " × ".join(name.replace("_", " ") for name in self.names)

    @property
    def kinds(self) -> list[Kind]:
        """What has hit anybody, without what sums up others."""
        return sorted({kind for group in self.groups for kind in group.hits if kind.name != ANY_CHECK})


@dataclass(frozen=True)
class Notable:
    """A group that something hits far more often than the rest."""

    kind: Kind
    names: tuple[str, ...]
    values: Values
    group: Tally
    rest: Tally
    contrast: Contrast
    q: float
    within: str | None = None  # the larger group, hit much like this one, that says it all

    @property
    def place(self) -> tuple[Kind, tuple[str, ...], Values]:
        """Which comparison this is."""
        return self.kind, self.names, self.values

    @property
    def who(self) -> str:
        """The group in words, such as `Middle Eastern female faces labelled 10-19`."""
        return group_words(self.names, self.values)

    @property
    def sentence(self) -> str:
        """What a person reads."""
        what = kind_words(self.kind)
        count = f"{self.group.hits:,} of {self.group.size:,} {self.kind.unit}"
        if self.contrast.ratio is None:
            return f"{what}: only {self.who} are hit ({count}; none of {self.rest.size:,} of the rest)."
        return (
            f"{what}: {self.who} are hit {self.contrast.ratio:.1f} times as often as the rest "
            f"({count}; 95 % interval {self.contrast.low:.1f} to {self.contrast.high:.1f})."
        )


@dataclass(frozen=True)
class GroupStats:
    """All tables, and who stands out, the surest first."""

    tables: tuple[Table, ...] = ()
    notable: tuple[Notable, ...] = ()
    comparisons: int = 0  # how many were made


def kind_words(kind: Kind) -> str:
    """A kind of hit, as a sentence or a table names it."""
    return LOST_WORDS.get(kind, f"Check “{kind.name}”")


def group_words(names: Sequence[str], values: Values) -> str:
    """A group of faces as a phrase; labels are what annotators perceived, hence `labelled`."""
    of = dict(zip(names, values, strict=True))
    if not set(of) <= set(CROSSED):
        return "faces with " + " and ".join(f"{name.replace('_', ' ')} {value}" for name, value in of.items())
    words = [ethnicity(of["race"])] if "race" in of else []
    words += [of["gender"].lower()] if "gender" in of else []
    return " ".join([*words, "faces", *([f"labelled {of['age']}"] if "age" in of else [])])


def read_group_stats(session: Session) -> GroupStats:
    """Everything by group, from the database as it is."""
    names = grouping(session)
    if not names:
        return GroupStats()
    cells = read_groups(session, names)
    depth = len(names) if set(names) <= set(CROSSED) else 1
    tables = [_table(cells, names, some) for size in range(1, depth + 1) for some in combinations(names, size)]
    candidates = [found for table in tables for kind in table.kinds for found in _compare(table, kind)]
    return GroupStats(tuple(tables), tuple(_notable(candidates)), len(candidates))


def _table(cells: list[Group], names: tuple[str, ...], wanted: tuple[str, ...]) -> Table:
    """The cells summed up by some of their labels."""
    places = [names.index(name) for name in wanted]
    groups: dict[Values, Group] = {}
    for cell in cells:
        values = tuple(cell.values[place] for place in places)
        groups.setdefault(values, Group(values)).add(cell)
    order = sorted(groups, key=lambda values: [_rank(name, value) for name, value in zip(wanted, values, strict=True)])
    return Table(wanted, tuple(groups[values] for values in order))


def _rank(name: str, value: str) -> tuple[int, str]:
    """FairFace's own order, then the alphabet."""
    known = VALUES.get(name, ())
    return known.index(value) if value in known else len(known), value


def _compare(table: Table, kind: Kind) -> Iterator[Notable]:
    """Every group that is large enough against the rest; which groups those are does not depend on who is hit."""
    groups = [group for group in table.groups if group.is_known]
    found = [group.of(kind) for group in groups]
    effect = design_effect(found)
    hits, size = sum(each.x for each in found), sum(each.n for each in found)
    for group, own in zip(groups, found, strict=True):
        rest = Tally(hits - own.x, size - own.n)
        if own.n >= MIN_SIZE and rest.size >= MIN_SIZE:
            compared = contrast(own.tally, rest, design_effect=effect)
            yield Notable(kind, table.names, group.values, own.tally, rest, compared, q=1.0)


def _notable(candidates: Sequence[Notable]) -> list[Notable]:
    """Who stands out.

    What a larger group says already is no discovery of its own. Otherwise a group that is hit in each of its parts
    would make room for false alarms elsewhere, since the more is found, the more of them are allowed.
    """
    p = [each.contrast.p for each in candidates]
    found = _discoveries(candidates, p)
    inside = {each.place: larger for each in found if (larger := _within(each, found))}
    distinct = _discoveries(candidates, [1.0 if each.place in inside else each.contrast.p for each in candidates])
    parts = [replace(each, within=inside[each.place]) for each in found if each.place in inside]
    return sorted([*distinct, *parts], key=lambda each: (each.within or "", each.contrast.p, each.names, each.values))


def _discoveries(candidates: Sequence[Notable], p: Sequence[float]) -> list[Notable]:
    return [
        replace(each, q=q)
        for each, q in zip(candidates, benjamini_hochberg(p), strict=True)
        if q <= MAX_Q and (each.contrast.ratio is None or each.contrast.ratio >= MIN_RATIO)
    ]


def _within(notable: Notable, found: Sequence[Notable]) -> str | None:
    """The smallest larger group that this one belongs to, unless this one is hit far more often still."""
    labels = _labels(notable)
    around = [each for each in found if _labels(each) < labels and notable.group.rate < MIN_RATIO * each.group.rate]
    return max(around, key=lambda each: len(each.names)).who if around else None


def _labels(notable: Notable) -> set[tuple[str, str]]:
    return set(zip(notable.names, notable.values, strict=True))
