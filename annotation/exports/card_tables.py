"""The tables of a data card, in Markdown."""

from collections.abc import Iterable
from itertools import groupby

from annotation.exports.facts import Facts
from annotation.exports.splits import Splits
from annotation.exports.tally import Tally
from annotation.fairface import VALUES
from annotation.models import FREE_QUESTION, GROUPS, Action, Status
from facellm.data import Attribute
from facellm.markdown import table

UNKNOWN = "unknown"
_ATTRIBUTES = (*(attribute.value for attribute in Attribute), FREE_QUESTION)
_LABELS = 12  # values of a label that are listed


def percent(part: float, whole: float) -> str:
    """A share, such as `12.5 %`; a dash of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def in_order(name: str, values: Iterable[str]) -> list[str]:
    """Values of race, gender or age as FairFace orders them, others after, unknown last."""
    known = VALUES.get(name, ())
    return sorted(values, key=lambda value: (value == "", known.index(value) if value in known else len(known), value))


def attribute_table(tally: Tally, facts: Facts | None) -> str:
    """Pairs by attribute; how many of all that were decided were edited or rejected."""
    there = [name for name in _ATTRIBUTES if tally.attributes[name]]
    if facts is None:
        return table(("attribute", "pairs"), ((name, tally.attributes[name]) for name in there))
    rows = []
    for name in (name for name in _ATTRIBUTES if tally.attributes[name] or name in facts.statuses):
        of = facts.statuses.get(name, {})
        decided = sum(of.get(status, 0) for status in (Status.ACCEPTED, Status.EDITED, Status.REJECTED))
        shares = (percent(of.get(status, 0), decided) for status in (Status.EDITED, Status.REJECTED))
        rows.append((name, tally.attributes[name], sum(of.values()), decided, *shares))
    note = "\nDrafts and decisions are those of all pairs that the filter would take whatever their status.\n"
    return table(("attribute", "pairs", "drafts", "decided", "edited", "rejected"), rows) + note


def group_table(tally: Tally) -> str:
    """Pictures (and pairs) by race × gender, and by age."""
    if not tally.is_grouped:
        return "Race, gender and age of no picture are known.\n"
    images, pairs = tally.by("race", "gender"), tally.by("race", "gender", pairs=True)
    genders = in_order("gender", {gender for _, gender in images})
    heads = ("pictures (pairs)", *(gender or UNKNOWN for gender in genders))
    rows = [
        (race or UNKNOWN, *(f"{images[race, gender]:,} ({pairs[race, gender]:,})" for gender in genders))
        for race in in_order("race", {race for race, _ in images})
    ]
    ages, age_pairs = tally.by("age"), tally.by("age", pairs=True)
    by_age = [(age or UNKNOWN, ages[age,], age_pairs[age,]) for age in in_order("age", {age for (age,) in ages})]
    return table(heads, rows) + "\n" + table(("age", "pictures", "pairs"), by_age)


def label_lines(tally: Tally) -> str:
    """Pictures by what else is known about them, the most frequent values first."""
    lines = []
    others = sorted(item for item in tally.labels.items() if item[0][0] not in GROUPS)
    for name, items in groupby(others, key=lambda item: item[0][0]):
        values = sorted(((count, value) for (_, value), count in items), key=lambda item: (-item[0], item[1]))
        shown = ", ".join(f"{value} {count:,}" for count, value in values[:_LABELS])
        more = f" and {len(values) - _LABELS:,} more values" if len(values) > _LABELS else ""
        lines.append(f"- {name}: {shown}{more}\n")
    return "".join(lines)


def split_table(tally: Tally, splits: Splits | None) -> str:
    """Pictures, pairs and shares of each part, and how far the shares of groups are from what was asked."""
    if splits is None:
        return ""
    rows = []
    for name, share in splits.shares:
        images = tally.by(part=name).total()
        pairs = tally.by(pairs=True, part=name).total()
        rows.append((name, f"{100 * share:g} %", percent(images, tally.image_count), images, pairs))
    text = (
        f"By picture: all pairs about one face are in one part. A hash of the picture and the seed {splits.seed} "
        "decides, so a picture keeps its part when others are added, and the shares of groups are met on average.\n\n"
    )
    text += table(("part", "asked", "is", "pictures", "pairs"), rows)
    for names in (("race",), ("gender",), ("age",), ("race", "gender")):
        text += _deviation(tally, splits, names)
    return text


def _deviation(tally: Tally, splits: Splits, names: tuple[str, ...]) -> str:
    """Of all groups and parts, the share that is furthest from what was asked."""
    whole = {group: count for group, count in tally.by(*names).items() if any(group)}
    if not whole:
        return ""
    found = [
        (abs(tally.by(*names, part=part)[group] / count - share), part, group, count)
        for part, share in splits.shares
        for group, count in whole.items()
    ]
    off, part, group, count = max(found)
    who = ", ".join(value or UNKNOWN for value in group)
    return (
        f"\nBy {' × '.join(names)}, the furthest off is {part} of {who} ({count:,} pictures): {100 * off:.1f} points.\n"
    )


def reviewer_table(facts: Facts | None) -> str:
    """Who has decided how often."""
    if facts is None:
        return "Not recorded: the snapshot was taken by an earlier version.\n"
    if not facts.reviewers:
        return "Nobody has decided about a pair.\n"
    actions = (Action.ACCEPT, Action.EDIT, Action.REJECT)
    rows = [
        (name, sum(of.get(action, 0) for action in actions), *(of.get(action, 0) for action in actions))
        for name, of in sorted(facts.reviewers.items())
    ]
    return table(("reviewer", "verdicts", "accepted", "edited", "rejected"), rows)


def agreement_table(facts: Facts | None) -> str:
    """How far reviewers agreed; empty where nobody can tell, which is one of the known gaps."""
    if facts is None or facts.agreement is None:
        return ""
    found = facts.agreement
    rows = [(name, value, interval) for name, (value, interval) in found.measures.items()]
    notes = "".join(f"\n{note}\n" for note in found.notes)
    return f"{found.headline}.\n\n" + table(("measure", "value", "95 % interval"), rows) + notes
