"""What the Dataset tab shows of the numbers that `stats` gives: tables as HTML, and the bars of the plot.

The one surprising fact: a plot of many groups shows the highest only, of groups with enough answers for a rate; the
command has them all.
"""

import html
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from annotation.fairface import ethnicity
from annotation.models import Status
from annotation.statistics.group_stats import LOST_WORDS, MIN_RATIO, MIN_SIZE
from annotation.statistics.stats import LOST

MOST_BARS: Final = 10
MOST_SENTENCES: Final = 8
ATTRIBUTE: Final = "attribute"
PAIRS, IMAGES, FLAGGED, COST = "pairs", "images", "flagged", "cost"
STATUSES: Final = tuple(status.value for status in (Status.ACCEPTED, Status.EDITED, Status.REJECTED, Status.SKIPPED))
COLOURS: Final = {  # of the statuses; they tell apart on light and on dark
    "pending": "#94a3b8",
    "accepted": "#16a34a",
    "edited": "#6366f1",
    "rejected": "#dc2626",
    "skipped": "#d97706",
}
_SHORT: Final = {"Male": "M", "Female": "F", "more than 70": "70+"}
_LOST_NAMES: Final = {kind.name: words.lower() for kind, words in LOST_WORDS.items()}


@dataclass(frozen=True)
class Bars:
    """One plot."""

    data: pd.DataFrame  # the columns name, value and, where there are statuses, status
    title: str
    is_share: bool  # the values are shares of 1
    left_out: int  # groups that are not shown

    @property
    def top(self) -> float:
        """The end of the axis, which begins at 0: the length of bars is what is compared."""
        heights = self.data.groupby("name")["value"].sum()
        return 1.05 * float(heights.max()) if len(heights) and heights.max() > 0 else 1.0


def groupings(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What bars can stand for: (label, value) of each choice."""
    return [("attribute", ATTRIBUTE), *((title, title) for title in numbers["groups"])]


def measures(numbers: Mapping[str, Any], by: str) -> list[tuple[str, str]]:
    """What bars can measure, where they stand for that: (label, value) of each choice."""
    found = [("pairs", PAIRS)] if by == ATTRIBUTE else [("images", IMAGES), ("pairs", PAIRS)]
    if numbers["tasks"]["states"]:
        found += [(f"{_LOST_NAMES[name]}, %", name) for name in LOST if numbers["tasks"]["states"].get(name)]
    if numbers["flagged"]:
        found += [
            ("flagged by any check, %", FLAGGED),
            *((f"check: {check}, %", f"check {check}") for check in numbers["flags"]),
        ]
    if by == ATTRIBUTE and numbers["cost"]["cost_usd"]:
        found.append(("cost, USD", COST))
    return found


def bars(numbers: Mapping[str, Any], by: str, measure: str) -> Bars:
    """The bars of one plot; both arguments are choices of `groupings` and `measures`."""
    title = next(label for label, value in measures(numbers, by) if value == measure)
    if by == ATTRIBUTE:
        return _attribute_bars(numbers, measure, title)
    rows = {_group_name(row, by): row for row in numbers["groups"][by]}
    if measure in (PAIRS, IMAGES):
        return _highest({name: row[measure] for name, row in rows.items()}, title, by, is_share=False)
    size = "answers" if measure in LOST else "pairs"
    hits: Callable[[Mapping[str, Any]], int] = lambda row: (  # noqa: E731
        row["flags"].get(measure.removeprefix("check "), 0) if measure.startswith("check ") else row[measure]
    )
    rates = {name: hits(row) / row[size] for name, row in rows.items() if row[size] >= MIN_SIZE}
    return _highest(rates, title, by, is_share=True)


def _attribute_bars(numbers: Mapping[str, Any], measure: str, title: str) -> Bars:
    pairs = {name: sum(of.values()) for name, of in numbers["attributes"].items()}
    names = [name for name, count in pairs.items() if count or name in numbers["tasks"]["attributes"]]
    if measure == PAIRS:
        rows = [
            (name, numbers["attributes"][name][status], status)
            for status in COLOURS
            for name in names
            if numbers[status]
        ]
        return Bars(pd.DataFrame(rows, columns=["name", "value", "status"]), title, False, 0)
    if measure == COST:
        found = {name: numbers["cost"]["attributes"].get(name, {}).get("cost_usd", 0) for name in names}
        return Bars(_frame(found), title, False, 0)
    if measure in LOST:
        states = {name: numbers["tasks"]["attributes"].get(name, {}) for name in names}
        sizes = {name: sum(of.get(state, 0) for state in ("ok", *LOST)) for name, of in states.items()}
        hits = {name: of.get(measure, 0) for name, of in states.items()}
    else:
        sizes = pairs
        check = measure.removeprefix("check ")
        hits = numbers["flagged_by_attribute"] if measure == FLAGGED else numbers["flags_by_attribute"][check]
    return Bars(_frame({name: hits.get(name, 0) / sizes[name] for name in names if sizes[name]}), title, True, 0)


def _highest(values: Mapping[str, float], title: str, by: str, *, is_share: bool) -> Bars:
    """All groups of one label in their order; of many the highest."""
    if "×" not in by and len(values) <= MOST_BARS:
        return Bars(_frame(values), title, is_share, 0)
    shown = sorted(values, key=lambda name: values[name], reverse=True)[:MOST_BARS]
    return Bars(_frame({name: values[name] for name in shown}), title, is_share, len(values) - len(shown))


def _frame(values: Mapping[str, float]) -> pd.DataFrame:
    return pd.DataFrame(list(values.items()), columns=["name", "value"])


def _group_name(row: Mapping[str, Any], by: str) -> str:
    """The values of a row's labels, in short where there are several: Middle Eastern F 70+."""
    values = [str(value) for value in list(row.values())[: by.count("×") + 1]]
    if len(values) == 1:
        return ethnicity(values[0])
    return " ".join(_SHORT.get(value, ethnicity(value)) for value in values)


def summary_html(numbers: Mapping[str, Any]) -> str:
    """What is in the data set: one line, and a table by attribute."""
    if not numbers["images"]:
        return "<h3>No pictures yet</h3><p>Bring in pictures with one of the commands below.</p>"
    facts = [(numbers[status], status) for status in (*STATUSES, "pending", "flagged", "refused") if numbers[status]]
    said = [f"<b>{count:,}</b> {name}" for count, name in facts]
    said += [f"<b>{_dollars(numbers['cost']['cost_usd'])}</b> spent"] if numbers["cost"]["requests"] else []
    head = f"<h3>{_count(numbers['images'], 'image')} · {_count(numbers['pairs'], 'pair')}</h3>"
    return f"{head}<p>{' · '.join(said)}</p>{_attribute_table(numbers)}{_teachers_html(numbers)}"


def _attribute_table(numbers: Mapping[str, Any]) -> str:
    """Columns and rows that are all zero are left out."""
    cost = {name: bill["cost_usd"] for name, bill in numbers["cost"]["attributes"].items()}
    tasks = numbers["tasks"]["attributes"]
    columns: dict[str, Mapping[str, Any]] = {
        "pairs": {name: sum(of.values()) for name, of in numbers["attributes"].items()},
        **{
            status: {name: of[status] for name, of in numbers["attributes"].items()}
            for status in ("pending", *STATUSES)
        },
        "flagged": numbers["flagged_by_attribute"],
        **{name: {attribute: of.get(name, 0) for attribute, of in tasks.items()} for name in (*LOST, "failed")},
        "cost": cost,
    }
    shown = {name: of for name, of in columns.items() if name == "pairs" or any(of.values())}
    rows = [name for name in numbers["attributes"] if any(of.get(name) for of in shown.values())]
    if not rows:
        return ""

    def cell(column: str, value: float) -> str:
        return f"<td>{(_dollars(value) if column == 'cost' else f'{value:,}') if value else '<i>–</i>'}</td>"

    head = "".join(f"<th>{name}</th>" for name in ["", *shown])
    body = "".join(
        f"<tr><th>{html.escape(row)}</th>{''.join(cell(name, of.get(row, 0)) for name, of in shown.items())}</tr>"
        for row in rows
    )
    return f'<div class="data-table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _teachers_html(numbers: Mapping[str, Any]) -> str:
    """What each teacher has cost."""
    lines = []
    for name, bill in numbers["cost"]["teachers"].items():
        tokens = f"{bill['input_tokens']:,.0f} tokens in, {bill['output_tokens']:,.0f} out"
        unpriced = f"; no price known for {bill['unpriced']:,}" if bill["unpriced"] else ""
        facts = f"{_dollars(bill['cost_usd'])} for {_count(bill['requests'], 'request')} ({tokens}{unpriced})"
        lines.append(f"<li><b>{html.escape(name)}</b> {facts}</li>")
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def notable_html(numbers: Mapping[str, Any]) -> str:
    """The groups that stand out, each in a sentence."""
    title = "<h3>Groups of faces that stand out</h3>"
    if not numbers["comparisons"]:
        return f"{title}<p>Nothing to compare yet: no answer was refused, and no check has flagged a pair.</p>"
    said = [each["sentence"] for each in numbers["notable"] if each["within"] is None]
    how = (
        f"Each group was compared with the rest, {numbers['comparisons']:,} times in all. Named is who is hit "
        f"{MIN_RATIO:g} times as often or more, with at most 5 % false alarms. The answers about one face are alike, "
        "and are not taken for independent."
    )
    if not said:
        return f"{title}<p>None. {how}</p>"
    more = len(said) - MOST_SENTENCES
    rest = f"<p>And {more} more: <code>python -m annotation stats --json</code></p>" if more > 0 else ""
    return f"{title}<ul>{_items(said[:MOST_SENTENCES])}</ul>{rest}<p>{how}</p>"


def _items(sentences: Iterable[str]) -> str:
    """List items whose part before the colon stands out."""
    parts = [sentence.partition(": ") for sentence in sentences]
    return "".join(f"<li><b>{html.escape(what)}</b>: {html.escape(rest)}</li>" for what, _, rest in parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _dollars(value: float) -> str:
    return f"${value:,.2f}" if value >= 0.01 or not value else f"${value:.4f}"
