"""How far reviewers agree, as HTML for a panel and as the words that the command prints, too.

    agreement_html(measure_agreement(store.ratings()))

Its styles are in agreement.css, all below the class `agreement`. The one surprising fact: on a narrow screen a row of a
table becomes a block, where each number carries the title of its column with it.
"""

import html
from collections.abc import Iterable
from typing import Final

from annotation.agreement.agreement import ALL, Agreement, Estimate, Row
from annotation.agreement.coefficients import Measure
from annotation.fairface import ethnicity

COARSE: Final = "kept or rejected"  # the name of the row where accepting and editing are one
MOST_REVIEWERS: Final = 20  # pairs of reviewers that are shown, those who share most; --json has all
EXPLAINED: Final = (
    "Percent agreement is the share of pairs of reviewers that say the same about a pair. The others take off the "
    "agreement that chance would bring: 1 is complete, 0 is no more than chance, below 0 is less. Cohen's kappa is the "
    "mean of all pairs of reviewers. Brackets hold 95 % intervals, from drawing the faces again and again."
)


def columns() -> list[str]:
    """The heads of a table's columns, after the name of the row."""
    return ["pairs", *(measure.words for measure in Measure)]


def cells(row: Row) -> list[tuple[str, str]]:
    """The same columns of a row: (value, interval), empty where there is none; a value that is missing is a dash."""
    return [(f"{row.pairs:,}", ""), *(_cell(measure, row.estimates[measure]) for measure in Measure)]


def _cell(measure: Measure, estimate: Estimate) -> tuple[str, str]:
    if estimate.value is None:
        return "–", ""
    scale, digits = (100, 1) if measure is Measure.PERCENT else (1, 2)
    value, unit = f"{scale * estimate.value:.{digits}f}", " %" if measure is Measure.PERCENT else ""
    if estimate.low is None or estimate.high is None:
        return value + unit, ""
    return value + unit, f"[{scale * estimate.low:.{digits}f}, {scale * estimate.high:.{digits}f}]"


def headline(agreement: Agreement) -> str:
    """What was compared, in a sentence."""
    total = agreement.total
    if not total.pairs:
        return "No pair has verdicts of two reviewers yet. Set the overlap of some pairs to 2 or more."
    said = sum(total.verdicts.values())
    shares = ", ".join(f"{name} {count / said:.0%}" for name, count in total.verdicts.items())
    return (
        f"{_count(total.pairs, 'pair')} about {_count(total.faces, 'face')} with verdicts of two or more of "
        f"{total.reviewers} reviewers: {shares}"
    )


def overview(agreement: Agreement) -> list[tuple[str, Row]]:
    """The rows about all pairs; the second one only where editing was a verdict of its own."""
    rows = [(ALL, agreement.total)]
    is_fine = agreement.total.verdicts != agreement.kept_or_rejected.verdicts
    return [*rows, (COARSE, agreement.kept_or_rejected)] if is_fine else rows


def tables(agreement: Agreement) -> list[tuple[str, list[tuple[str, Row]]]]:
    """The tables with their titles: by attribute and group, and by two reviewers."""
    found = [(group, [(ethnicity(row.name), row) for row in rows]) for group, rows in agreement.tables.items()]
    reviewers = [(row.name, row) for row in agreement.reviewers[:MOST_REVIEWERS]]
    return [*found, ("two reviewers", reviewers)] if len(agreement.reviewers) > 1 else found


def agreement_html(agreement: Agreement) -> str:
    """The whole panel."""
    head = f"<h3>Agreement</h3><p>{html.escape(headline(agreement))}</p>"
    if not agreement.total.pairs:
        return f'<div class="agreement">{head}</div>'
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in agreement.notes)
    said = f"<ul>{notes}</ul>" if notes else ""
    parts = [_part(title, rows, is_open=not place) for place, (title, rows) in enumerate(tables(agreement))]
    body = f"{head}{_table('', overview(agreement))}{said}{''.join(parts)}<p>{html.escape(EXPLAINED)}</p>"
    return f'<div class="agreement">{body}</div>'


def _part(title: str, rows: Iterable[tuple[str, Row]], *, is_open: bool) -> str:
    """A table that can be folded away."""
    mark = " open" if is_open else ""
    return f"<details{mark}><summary>By {html.escape(title)}</summary>{_table('', rows)}</details>"


def _table(title: str, rows: Iterable[tuple[str, Row]]) -> str:
    heads = columns()
    head = "".join(f"<th>{html.escape(name)}</th>" for name in [title, *heads])
    body = "".join(
        f"<tr><th>{html.escape(name)}</th>{''.join(map(_td, heads, cells(row)))}</tr>"  # a title for a narrow screen
        for name, row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _td(head: str, cell: tuple[str, str]) -> str:
    value, interval = cell
    small = f" <small>{interval}</small>" if interval else ""
    return f'<td data-title="{html.escape(head)}">{value}{small}</td>'


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
