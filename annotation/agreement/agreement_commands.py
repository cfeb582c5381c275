"""The command that compares reviewers: python -m annotation agreement --help.

The one surprising fact: a row of fewer than 20 faces is counted, not measured; see agreement.py.
"""

import json
import sys
from collections.abc import Iterable
from contextlib import closing
from typing import Annotated

import typer

from annotation.agreement.agreement import Agreement, Row, measure_agreement
from annotation.agreement.agreement_view import EXPLAINED, MOST_REVIEWERS, cells, columns, headline, overview, tables
from annotation.store import Store
from facellm.config import load_settings

app = typer.Typer()


@app.command("agreement")
def agreement_command(
    two: Annotated[bool, typer.Option("--two", help="Count accepting and editing as one verdict: kept.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """How far reviewers agree, with 95 % intervals: in all, by attribute, by group of faces, two by two."""
    with closing(Store.of(load_settings())) as store:
        agreement = measure_agreement(store.ratings(), two=two)
    if not agreement.total.pairs:
        print(headline(agreement), file=sys.stderr)
    if as_json:
        print(json.dumps(agreement.numbers(), indent=2))
    elif agreement.total.pairs:
        print("\n".join(_report(agreement)))


def _report(agreement: Agreement) -> Iterable[str]:
    """The same for reading."""
    parts = [("", overview(agreement)), *tables(agreement)]
    names = [title for title, _ in parts] + [name for _, rows in parts for name, _ in rows]
    width = 2 + max(len(name) for name in names)
    yield headline(agreement)
    for title, rows in parts:
        yield ""
        yield from _table(title, rows, width)
    more = len(agreement.reviewers) - MOST_REVIEWERS
    if more > 0:
        yield f"and {more} more pairs of reviewers: see --json"
    yield ""
    yield from agreement.notes
    yield EXPLAINED


def _table(title: str, rows: Iterable[tuple[str, Row]], width: int) -> Iterable[str]:
    yield f"{title:{width}}" + "".join(f"{head:>{_width(head)}}" for head in columns())
    for name, row in rows:
        texts = (f"{value} {interval}".rstrip() for value, interval in cells(row))
        yield f"{name:{width}}" + "".join(
            f"{text:>{_width(head)}}" for head, text in zip(columns(), texts, strict=True)
        )


def _width(head: str) -> int:
    """Of a column; the first holds counts, the others a coefficient with its interval."""
    return 9 if head == columns()[0] else max(20, len(head) + 2)
