"""What was known about a snapshot's pairs when it was taken, beside the pairs themselves: `facts.json` in its folder.

Reviewers, rejections and where images came from are not in a pair's own record, and the database goes on changing. So
they are counted in the same read that froze the pairs. The one surprising fact: snapshots of earlier versions have no
such file; their data card says so.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlmodel import Session, col, func

from annotation.agreement.agreement import measure_agreement
from annotation.agreement.agreement_view import cells, headline
from annotation.agreement.coefficients import Measure
from annotation.agreement.ratings import read_ratings
from annotation.models import FREE_QUESTION, VERDICTS, Pair, Verdict
from facellm.errors import DataError

FACTS_FILE: Final = "facts.json"


class AgreementFacts(BaseModel):
    """How far reviewers agreed, about all pairs of the data set that two or more judged on their own."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    headline: str
    measures: dict[str, tuple[str, str]]  # by name: the value and its 95 % interval, as a person writes them
    notes: tuple[str, ...]


class Facts(BaseModel):
    """Counts of the moment; the pool is all pairs that the snapshot's filter would take, were it not for the status."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sources: dict[str, int]  # images by where they came from: rendered, fairface, chat, imported, …
    statuses: dict[str, dict[str, int]]  # of the pool, by attribute and status
    reviewers: dict[str, dict[str, int]]  # standing verdicts about the pool, by reviewer and action
    seen_twice: int  # pairs of the snapshot with verdicts of two reviewers or more
    agreement: AgreementFacts | None  # None: no pair was judged by two


def count_facts(
    session: Session, pool: Sequence[sa.ColumnElement[bool]], sources: Mapping[str, int], seen_twice: int
) -> Facts:
    """Count what the pairs themselves do not tell.

    Args:
        session: the read that froze the pairs.
        pool: the conditions of the filter without the status.
        sources: the snapshot's images by origin.
        seen_twice: see `Facts`.
    """
    return Facts(
        sources=dict(sorted(sources.items())),
        statuses=_statuses(session, pool),
        reviewers=_reviewers(session, pool),
        seen_twice=seen_twice,
        agreement=_agreement(session),
    )


def _statuses(session: Session, pool: Sequence[sa.ColumnElement[bool]]) -> dict[str, dict[str, int]]:
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    query = sa.select(col(Pair.attribute), col(Pair.status), func.count()).where(*pool)
    for attribute, status, count in session.execute(query.group_by(col(Pair.attribute), col(Pair.status))):
        found[FREE_QUESTION if attribute is None else attribute.value][status.value] = count
    return dict(sorted(found.items()))


def _reviewers(session: Session, pool: Sequence[sa.ColumnElement[bool]]) -> dict[str, dict[str, int]]:
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    query = sa.select(col(Verdict.reviewer), col(Verdict.action), func.count())
    query = query.join(Pair, col(Pair.id) == col(Verdict.pair_id)).where(col(Verdict.action).in_(VERDICTS), *pool)
    for reviewer, action, count in session.execute(query.group_by(col(Verdict.reviewer), col(Verdict.action))):
        found[reviewer][action.value] = count
    return dict(sorted(found.items()))


def _agreement(session: Session) -> AgreementFacts | None:
    """In all only: the tables by attribute and group are what `python -m annotation agreement` is for."""
    found = measure_agreement(replace(read_ratings(session), groups={}))
    if not found.total.pairs:
        return None
    values = cells(found.total)[1:]  # without the number of pairs
    measures = {measure.words: cell for measure, cell in zip(Measure, values, strict=True)}
    return AgreementFacts(headline=headline(found), measures=measures, notes=found.notes)


def write_facts(folder: Path, facts: Facts) -> None:
    """Write them into a snapshot's folder."""
    (folder / FACTS_FILE).write_text(facts.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_facts(folder: Path) -> Facts | None:
    """Those of a snapshot; None where it was taken by an earlier version.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / FACTS_FILE
    if not path.exists():
        return None
    try:
        return Facts.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged. Restore it from a copy, or take a new snapshot.") from error
