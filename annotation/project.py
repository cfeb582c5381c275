"""What the curators of a data set agree on: the guidelines, how many reviewers a pair gets, how many traps there are.

    store.project.read().overlap
    store.project.set_overlap("carol", 2, 0.1)      # two reviewers for every tenth pair
    store.project.set_guidelines("carol", "# …")

The one surprising fact: a change of the overlap reaches pairs that are decided already only where that is asked for;
then they are pending again, with the verdicts that they have.
"""

import json
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from annotation.checks.flags import check_again
from annotation.database import reading, writing
from annotation.decisions import derive
from annotation.models import OPEN, SHUFFLE, Pair, ProjectValue
from facellm.errors import DataError

MOST_REVIEWERS = 10
CHUNK = 500  # pairs derived anew at a time


class Project(BaseModel):
    """The values as they are."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    guidelines: str = Field(default="", max_length=50_000)  # Markdown; empty: none were written
    overlap: int = Field(default=1, ge=1, le=MOST_REVIEWERS)
    overlap_share: float = Field(default=1.0, ge=0, le=1)  # of the pairs that get so many reviewers; the rest gets one
    trap_share: float = Field(default=0.02, ge=0, le=0.2)  # of what a reviewer is shown


def stirred(shuffle: Any) -> Any:
    """Another pseudo-random number below SHUFFLE, of a number or of a column.

    Were the shuffle itself compared with the share, the shuffled order would begin with all that several are to decide.
    """
    wide = shuffle if isinstance(shuffle, int) else sa.cast(shuffle, sa.BigInteger)
    return (wide * 1_103_515_245 + 12_345) % SHUFFLE


def read_project(session: Session) -> Project:
    """The values; what was never set has its default."""
    rows = session.exec(select(ProjectValue.key, ProjectValue.value)).all()
    return Project.model_validate({key: json.loads(value) for key, value in rows})


class ProjectStore:
    """The door to them: `store.project`."""

    def __init__(self, engine: Engine) -> None:
        """Use `store.project`."""
        self._engine = engine

    def read(self) -> Project:
        """The values; what was never set has its default."""
        with reading(self._engine) as session:
            return read_project(session)

    def set_guidelines(self, who: str, text: str) -> None:
        """Replace the guidelines.

        Raises:
            DataError: they are longer than 50,000 characters.
        """
        self._set(who, guidelines=text)

    def set_trap_share(self, who: str, share: float) -> None:
        """Set how many of the pairs that a reviewer is shown are known to be bad.

        Raises:
            DataError: the share is not within 0 and 0.2.
        """
        self._set(who, trap_share=share)

    def set_overlap(self, who: str, reviewers: int, share: float = 1.0, *, decided: bool = False) -> int:
        """Set by how many reviewers pairs are decided; return how many pairs that has changed.

        Args:
            who: sets it.
            reviewers: 1 to 10.
            share: of the pairs that get so many; the others get one.
            decided: also those that are decided already, unless a curator has settled them.

        Raises:
            DataError: a value is outside its range.
        """
        with writing(self._engine) as session:
            self._put(session, who, overlap=reviewers, overlap_share=share)
            wanted = sa.case((stirred(col(Pair.shuffle)) < share * SHUFFLE, reviewers), else_=1)
            which = sa.true() if decided else col(Pair.status).in_(OPEN)
            ids = session.exec(select(Pair.id).where(which, col(Pair.overlap) != wanted)).all()
            session.execute(sa.update(Pair).where(which, col(Pair.overlap) != wanted).values(overlap=wanted))
            for start in range(0, len(ids), CHUNK):
                chunk = select(Pair).where(col(Pair.id).in_(ids[start : start + CHUNK]), col(Pair.verdicts) > 0)
                changed = []
                for pair in session.exec(chunk.execution_options(populate_existing=True)).all():
                    stood = pair.stands
                    derive(session, pair, events=0)
                    changed += [pair.id or 0] if pair.stands != stood else []
                check_again(session, changed)  # flags are about the text that stands
                session.expunge_all()
            return len(ids)

    def _set(self, who: str, **values: Any) -> None:
        with writing(self._engine) as session:
            self._put(session, who, **values)

    @staticmethod
    def _put(session: Session, who: str, **values: Any) -> None:
        try:
            Project.model_validate(values)
        except ValidationError as error:
            wrong = error.errors()[0]
            raise DataError(
                f"{values[str(wrong['loc'][0])]!r} cannot be the project's {wrong['loc'][0]}: {wrong['msg']}."
            ) from error
        for key, value in values.items():
            row = ProjectValue.model_validate({"key": key, "value": json.dumps(value), "who": who})
            session.merge(row)
