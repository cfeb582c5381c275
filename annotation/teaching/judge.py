"""Pairs for a judge: which are still to be judged, and what is kept of a verdict.

    plan = JudgePlan(judge="other-model", parameters=parameters.text, share=0.1)
    asyncio.run(Generation(store, judge, plan, limits).run())

    python -m annotation judge --model other-model --share 0.1

Every verdict is in the ledger, as the answer of its attempt; one that objects is also a flag of its pair. The one
surprising fact: a judge sees the draft, also where an edit stands, because only so its verdicts can be compared with
what people decided about the draft; and so an edited pair gets no flag.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from annotation.decisions import labels_of
from annotation.models import Flag, Image, Pair, Purpose, Status
from annotation.teaching.ledger import Identity, Ledger, find_subjects, may_be_asked
from annotation.teaching.plan import Count, Unit, count_units, may_be_sent
from annotation.teaching.shares import drawn
from annotation.teaching.teacher import Ask
from annotation.teaching.verdicts import (
    JUDGE_SYSTEM,
    JUDGE_VERSION,
    VERDICT_FORM,
    find_quote,
    judge_instruction,
    read_verdict,
)
from facellm.data import Attribute

CHECK = "judge"  # the name of its flags
CHUNK = 500  # pairs in memory at a time


@dataclass(frozen=True)
class JudgedPair(Unit):
    """One pair to be judged."""

    pair_id: int
    question: str
    answer: str

    def ask(self, attributes: tuple[Attribute, ...]) -> Ask:
        """What the judge is told."""
        told = judge_instruction(self.question, self.answer, self.labels)
        return Ask(attributes, told, combined=False, system=JUDGE_SYSTEM, form=VERDICT_FORM)

    def keep(self, session: Session, attribute: Attribute, answer: str, run_id: int) -> int | None:  # noqa: ARG002
        """Flag the pair where the verdict objects to it; no pair comes of a verdict."""
        verdict = read_verdict(answer)
        status = session.exec(select(Pair.status).where(Pair.id == self.pair_id)).one()
        if verdict is None or verdict.severity is None or status is Status.EDITED:
            return None
        span = find_quote(self.answer, verdict.quote) or (None, None)
        against = ", against the labels" if verdict.contradicts_labels else ""
        flag = {
            "pair_id": self.pair_id,
            "check": CHECK,
            "severity": verdict.severity,
            "message": f"{verdict.reason} ({self.identity.teacher}: {verdict.score} of 5{against})",
            "span_start": span[0],
            "span_end": span[1],
        }
        session.add(Flag.model_validate(flag))
        return None


@dataclass(frozen=True)
class JudgePlan:
    """Which pairs are judged, and how.

    Pairs without an attribute are left out, as visitors' pictures are.

    Args:
        judge: the model.
        parameters: canonical JSON, see `teacher.Parameters`.
        status: only pairs of this status; None for all.
        teacher: only pairs of this one; None for all.
        share: of those pairs, from 0 to 1; None for all.
        limit: only so many; None for all.
        excluded_ages: pairs of images with one of these age labels are left out.
    """

    judge: str
    parameters: str
    status: Status | None = None
    teacher: str | None = None
    share: float | None = None
    limit: int | None = None
    excluded_ages: tuple[str, ...] = ()

    @property
    def purpose(self) -> Purpose:
        """Verdicts."""
        return Purpose.JUDGE

    def units(self, ledger: Ledger, run_id: int | None = None) -> Iterator[list[JudgedPair]]:
        """What is left to judge, see `plan.Work`."""
        with ledger.reading() as session:
            ids = [pair_id for pair_id, _ in self._chosen(session)]
        for start in range(0, len(ids), CHUNK):
            with ledger.reading() as session:
                units = list(self._open(session, ids[start : start + CHUNK], run_id))
            yield units

    def count(self, ledger: Ledger) -> Count:
        """How much is left to judge."""
        return count_units(self.units(ledger))

    def teachers(self, ledger: Ledger) -> Counter[str]:
        """Who wrote the pairs of the plan, judged or not: model → pairs."""
        with ledger.reading() as session:
            return Counter(teacher for _, teacher in self._chosen(session))

    def identity(self, pair_id: int) -> Identity:
        """Of the task that judges a pair."""
        return Identity(f"pair:{pair_id}", JUDGE_VERSION, self.judge, self.parameters)

    def _chosen(self, session: Session) -> list[tuple[int, str]]:
        """(id, teacher) of the pairs."""
        query = select(Pair.id, Pair.teacher).join(Image, col(Pair.image_id) == Image.id)
        query = query.where(col(Pair.attribute).is_not(None), *may_be_sent(self.excluded_ages))
        if self.status is not None:
            query = query.where(Pair.status == self.status)
        if self.teacher is not None:
            query = query.where(Pair.teacher == self.teacher)
        pairs = [(pair_id or 0, teacher) for pair_id, teacher in session.exec(query.order_by(col(Pair.id)))]
        return drawn(pairs, lambda pair: f"judge {pair[0]}", share=self.share, limit=self.limit)

    def _open(self, session: Session, pair_ids: Sequence[int], run_id: int | None) -> Iterator[JudgedPair]:
        query = select(Pair, Image.path).join(Image, col(Pair.image_id) == Image.id)
        rows = session.exec(query.where(col(Pair.id).in_(pair_ids)).order_by(col(Pair.id))).all()
        images = sorted({pair.image_id for pair, _ in rows})
        labels, tasks = labels_of(session, images), find_subjects(session, self.identity(0), images)
        for pair, path in rows:
            identity = self.identity(pair.id or 0)
            if pair.attribute is None or not may_be_asked(
                tasks.get((pair.image_id, pair.attribute, identity.subject)), run_id
            ):
                continue
            yield JudgedPair(
                image_id=pair.image_id,
                path=path,
                labels=labels[pair.image_id],
                attributes=(pair.attribute,),
                identity=identity,
                combined=False,
                pair_id=pair.id or 0,
                question=pair.question,
                answer=pair.answer,
            )
