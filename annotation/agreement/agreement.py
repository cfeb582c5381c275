"""How far reviewers agree: in all, by attribute, by group of faces, and two by two, each with its interval.

    print(measure_agreement(store.ratings()).total.estimates[Measure.AC1])

Where a coefficient is not defined it has no value but a sentence that says why; it is never 0 there. The one surprising
fact: reviewers who accept nearly everything agree nearly always, and have a kappa near 0 all the same. That is no
mistake: it is pointed out wherever it happens.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from annotation.agreement.coefficients import Measure
from annotation.agreement.ratings import Ratings
from annotation.agreement.resampling import CONFIDENCE, MOST_UNDEFINED, Interval, Subset, intervals, values
from annotation.fairface import VALUES, ethnicity
from annotation.models import FREE_QUESTION, Action
from annotation.statistics.intervals import wilson
from facellm.data import Attribute

RESAMPLES: Final = 2000
SEED: Final = 5
MIN_FACES: Final = 20  # of a row that is measured
UNKNOWN: Final = "unknown"
ALL: Final = "all"
_ORDER: Final = {"attribute": (*(attribute.value for attribute in Attribute), FREE_QUESTION), **VALUES}
_CORRECTED: Final = (Measure.COHEN, Measure.FLEISS, Measure.ALPHA)  # those that 0/0 can befall

# A paradox of kappa is pointed out from here on.
_MUCH_AGREEMENT: Final = 0.8
_LITTLE_KAPPA: Final = 0.4
_FAR_APART: Final = 0.2  # AC1 above kappa

NOBODY: Final = "no pair has verdicts of two reviewers"
TOO_FEW: Final = f"not measured, fewer than {MIN_FACES} faces"
NO_INTERVAL: Final = f"no intervals, fewer than {MIN_FACES} faces"
NO_SPREAD: Final = "no intervals but that of percent agreement, all resamples of the faces come out alike"
RARE: Final = (
    f"no intervals of kappa and alpha, all verdicts are the same in more than {MOST_UNDEFINED:.0%} of the resamples"
)
PARADOX: Final = (
    "Much agreement and a low kappa, as nearly all verdicts are the same (the kappa paradox; report AC1 beside it)"
)
NO_MEETING: Final = "no Cohen's kappa, each two reviewers gave only one verdict to all that they share"


@dataclass(frozen=True)
class Estimate:
    """A coefficient with its interval; None where there is none, and why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Row:
    """How far reviewers agree about some pairs."""

    name: str
    pairs: int
    faces: int
    reviewers: int
    verdicts: dict[str, int]  # by category
    estimates: dict[Measure, Estimate]
    is_paradox: bool  # much agreement, and little kappa since nearly all verdicts are the same

    @property
    def why(self) -> list[str]:
        """The sentences that say what is missing and why."""
        return list(dict.fromkeys(estimate.why for estimate in self.estimates.values() if estimate.why))


@dataclass(frozen=True)
class Agreement:
    """All that `agreement --json` prints."""

    total: Row
    kept_or_rejected: Row  # the total with accepting and editing as one
    tables: dict[str, tuple[Row, ...]]  # "attribute", and of race, gender and age those that are known
    reviewers: tuple[Row, ...]  # two by two, those who share most first
    notes: tuple[str, ...]
    resamples: int
    confidence: float = CONFIDENCE

    def numbers(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return dataclasses.asdict(self)


def measure_agreement(
    ratings: Ratings, *, two: bool = False, resamples: int = RESAMPLES, seed: int = SEED
) -> Agreement:
    """All coefficients with their intervals.

    Args:
        ratings: of pairs with at least two.
        two: count accepting and editing as one verdict in the tables, too.
        resamples: for the intervals.
        seed: of the resamples; the same gives the same intervals.
    """
    coarse = ratings.kept_or_rejected()
    if two:
        ratings = coarse
    named = [(ALL, Subset(ratings)), (ALL, Subset(coarse))]
    tables = {group: _by_value(ratings, group) for group in ratings.groups}
    tables = {group: found for group, found in tables.items() if [name for name, _ in found] not in ([], [UNKNOWN])}
    together = _two_by_two(ratings)
    for found in (*tables.values(), together):
        named += found
    rows = iter(_rows(named, ratings, resamples, seed))
    total, other = next(rows), next(rows)
    measured = {group: tuple(next(rows) for _ in found) for group, found in tables.items()}
    reviewers = tuple(rows)
    lonely = int(np.isnan(named[0][1].kappas()).sum())
    notes = tuple(_notes(total, measured | {"reviewers": reviewers}, lonely, len(together)))
    return Agreement(total, other, measured, reviewers, notes, resamples)


def _by_value(ratings: Ratings, group: str) -> list[tuple[str, Subset]]:
    """A subset for each value that occurs, in the usual order."""
    there, index = np.unique(ratings.groups[group], return_inverse=True)
    rank = {value: place for place, value in enumerate(_ORDER.get(group, ()))}
    places = sorted(range(len(there)), key=lambda at: (there[at] == "", rank.get(str(there[at]), len(rank)), at))
    of = index[ratings.item]
    return [(str(there[at]) or UNKNOWN, Subset(ratings.only(of == at))) for at in places if (of == at).any()]


def _two_by_two(ratings: Ratings) -> list[tuple[str, Subset]]:
    """A subset for each two reviewers that share items: those items, and their ratings of them."""
    first, second = ratings.met()
    who = ratings.reviewer[first] * len(ratings.reviewers) + ratings.reviewer[second]
    order = np.argsort(who, kind="stable")
    codes, starts = np.unique(who[order], return_index=True)
    ends = np.append(starts, len(order))[1:]
    found = []
    for code, at in zip(codes, (order[begin:end] for begin, end in zip(starts, ends, strict=True)), strict=True):
        a, b = divmod(int(code), len(ratings.reviewers))
        name = f"{ratings.reviewers[a]} and {ratings.reviewers[b]}"
        found.append((name, Subset(ratings.only(np.concatenate([first[at], second[at]])))))
    return sorted(found, key=lambda each: (-each[1].items, each[0]))


def _rows(named: list[tuple[str, Subset]], ratings: Ratings, resamples: int, seed: int) -> list[Row]:
    """A row for each subset; a small one is resampled and measured only where it is all that there is."""
    faces = int(ratings.cluster.max(initial=-1)) + 1
    large = [subset for _, subset in named if len(subset.faces) >= MIN_FACES]
    sure = iter(intervals(large, faces, resamples=resamples, seed=seed) if large else [])
    rows = []
    for (name, subset), of in zip(named, values([subset for _, subset in named], faces), strict=True):
        if len(subset.faces) >= MIN_FACES:
            found = next(sure)
            estimates = {measure: _estimate(measure, of, found[measure], subset) for measure in Measure}
        else:
            estimates = {measure: _of_few(measure, of[measure], subset, name == ALL) for measure in Measure}
        about = (name, subset.items, len(subset.faces), subset.reviewers, subset.counts)
        rows.append(Row(*about, estimates, _is_paradox(estimates)))
    return rows


def _of_few(measure: Measure, value: float, subset: Subset, is_all: bool) -> Estimate:
    """Without an interval; of a part of the data without a value, too."""
    if not subset.items:
        return Estimate(None, why=NOBODY)
    if not is_all:
        return Estimate(None, why=TOO_FEW)
    return Estimate(None, why=_undefined(measure, subset)) if np.isnan(value) else Estimate(value, why=NO_INTERVAL)


def _estimate(measure: Measure, of: Mapping[Measure, float], found: Interval, subset: Subset) -> Estimate:
    """The value and its interval, or why there is none."""
    value = of[measure]
    if np.isnan(value):
        return Estimate(None, why=_undefined(measure, subset))
    if found.low is not None:
        return Estimate(value, found.low, found.high)
    if found.undefined > MOST_UNDEFINED:
        return Estimate(value, why=RARE)
    if measure is Measure.PERCENT and value in (0, 1):
        share = wilson(round(value * subset.items), subset.items, independent=len(subset.faces))
        return Estimate(value, share.low, share.high) if share else Estimate(value, why=NO_SPREAD)
    return Estimate(value, why=NO_SPREAD)


def _undefined(measure: Measure, subset: Subset) -> str:
    """Why a coefficient has no value although reviewers share items."""
    used = [name for name, count in subset.counts.items() if count]
    if not len(subset.kappas()):
        return NOBODY
    if len(used) > 1 or measure not in _CORRECTED:
        return NO_MEETING
    return (
        f"no kappa and no alpha, everybody said {used[0]} about everything: both compare with the agreement that "
        "chance would bring, which is then complete; AC1 has a value all the same"
    )


def _is_paradox(estimates: Mapping[Measure, Estimate]) -> bool:
    percent, kappa, ac1 = (estimates[each].value for each in (Measure.PERCENT, Measure.FLEISS, Measure.AC1))
    if percent is None or kappa is None or ac1 is None:
        return False
    return percent >= _MUCH_AGREEMENT and kappa < _LITTLE_KAPPA and ac1 - kappa >= _FAR_APART


def _notes(total: Row, tables: Mapping[str, tuple[Row, ...]], lonely: int, together: int) -> list[str]:
    """What a reader has to know about the numbers, each in a sentence."""
    notes = []
    if total.is_paradox:
        notes.append(_paradox(total))
    parts = [(_place(group, row.name), row) for group, rows in tables.items() for row in rows]
    others = [name for name, row in parts if row.is_paradox]
    if others:
        also = "The same goes for" if total.is_paradox else f"{PARADOX}:"
        notes.append(f"{also} {_listed(others)}.")
    if total.verdicts.get(Action.EDIT.value):
        notes.append("Two edits are the same verdict here, whatever their texts.")
    if lonely and together > lonely:
        notes.append(
            f"{lonely} of {together} pairs of reviewers have no Cohen's kappa, since they gave only one verdict to all "
            "that they share; the mean leaves them out."
        )
    missing: dict[str, list[str]] = {}
    for name, row in [(total.name, total), *parts]:
        for why in row.why:
            missing.setdefault(why, []).append(f"{name} ({row.faces})" if why == TOO_FEW else name)
    return notes + [_capital(why if names == [ALL] else f"{why}: {_listed(names)}") for why, names in missing.items()]


def _place(group: str, name: str) -> str:
    """The name of a row where its table is not seen."""
    return f"{group} {name}" if name == UNKNOWN else ethnicity(name)


def _paradox(row: Row) -> str:
    """The paradox of kappa (Feinstein and Cicchetti, Journal of Clinical Epidemiology 43, 1990) in one row."""
    most = max(row.verdicts, key=lambda name: row.verdicts[name])
    share = row.verdicts[most] / sum(row.verdicts.values())
    percent, kappa, ac1 = (row.estimates[each].value or 0.0 for each in (Measure.PERCENT, Measure.FLEISS, Measure.AC1))
    return (
        f"Reviewers agree in {percent:.0%}, yet kappa is only {kappa:.2f}: as {share:.0%} of the verdicts are {most}, "
        f"chance alone would make them agree often, and kappa and alpha take that off (the kappa paradox). Report "
        f"Gwet's AC1, {ac1:.2f}, beside it: how common a verdict is hardly moves it."
    )


def _capital(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}."


def _listed(names: list[str], most: int = 12) -> str:
    """Names in a row; of many the first."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
