"""Batches in the ledger: who has them in hand, and what became of their requests.

Each request is an attempt in state SENT from before its file is sent until its line is read; it is ended once, in the
transaction that also ends its tasks and adds its pairs, so a result may be read twice and counts once. A batch is in
the hand of one run at a time, `Batch.run_id`, and goes to another when that one has ended or died; its attempts, tasks
and costs stay those of the run that asked. The surprising fact: that is why a run may be done long after it has ended.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from sqlmodel import Session, col, func, select, update

from annotation.models import Attempt, AttemptState, Batch, GenerationRun, Purpose, RunState, Task, TaskState
from annotation.teaching.batch_files import Result, batch_file, uuid_of
from annotation.teaching.ledger import Identity, Ledger, end_attempt
from annotation.teaching.plan import Unit
from annotation.teaching.prices import Price
from annotation.teaching.prompts import COMBINED_VERSION
from annotation.teaching.recording import Sent, reply_fields, store_answers
from annotation.teaching.teacher import Ask, Next, Reply
from facellm.data import Attribute

WRITING = "writing"  # its file is not complete
PREPARING = "preparing"  # it is; the provider may have it already, if `remote_id` is not known
COLLECTED = "collected"
DISCARDED = "discarded"  # it was never sent
SPLIT = "split"  # into two smaller ones
CHUNK = 500  # rows of one transaction


@dataclass(frozen=True)
class Ended:
    """A request of a batch, and what came of it."""

    run_id: int
    unit: Unit
    reply: Reply
    number: int
    cost_usd: float


def take_over(ledger: Ledger, run: GenerationRun) -> int:
    """Take the batches in hand that runs with the same teacher have left; return how many that were."""
    theirs = [
        col(Batch.collected_at).is_(None),
        col(Batch.run_id) != run.id,
        col(GenerationRun.teacher) == run.teacher,
        col(GenerationRun.base_url) == run.base_url,
        col(GenerationRun.purpose) == Purpose.GENERATE,
    ]
    with ledger.reading() as session:
        query = select(Batch.id, GenerationRun).join(GenerationRun).where(*theirs)
        left = [(batch_id, owner.id) for batch_id, owner in session.exec(query) if not ledger.is_alive(owner)]
    taken = 0
    for batch_id, owner_id in left:
        with ledger.writing() as session:
            still = [col(Batch.id) == batch_id, col(Batch.run_id) == owner_id, col(Batch.collected_at).is_(None)]
            taken += session.exec(update(Batch).where(*still).values(run_id=run.id)).rowcount
    return taken


def in_hand(ledger: Ledger, run_id: int) -> list[Batch]:
    """The batches that a run has to see to, oldest first."""
    query = select(Batch).where(Batch.run_id == run_id, col(Batch.collected_at).is_(None)).order_by(col(Batch.id))
    with ledger.reading() as session:
        return list(session.exec(query))


def held_by_others(ledger: Ledger, run: GenerationRun) -> int:
    """How many batches with the same teacher are in the hand of another process that lives."""
    query = (
        select(GenerationRun)
        .join(Batch)
        .where(
            col(Batch.collected_at).is_(None),
            col(Batch.run_id) != run.id,
            GenerationRun.teacher == run.teacher,
            GenerationRun.base_url == run.base_url,
        )
    )
    with ledger.reading() as session:
        return sum(ledger.is_alive(owner) for owner in session.exec(query))


def batched_tasks(ledger: Ledger, teacher: str) -> int:
    """How many questions to a teacher wait in batches, in whosever hand: no run asks them meanwhile."""
    query = select(func.count()).select_from(Task).where(Task.state == TaskState.BATCHED, Task.teacher == teacher)
    with ledger.reading() as session:
        return session.exec(query).one()


def waiting_tasks(ledger: Ledger, run_id: int) -> int:
    """How many tasks wait in the batches that a run has in hand."""
    query = (
        select(func.count())
        .select_from(Task)
        .join(Attempt, col(Task.attempt_id) == col(Attempt.id))
        .join(Batch, col(Attempt.batch_id) == col(Batch.id))
        .where(Batch.run_id == run_id, col(Batch.collected_at).is_(None), Task.state == TaskState.BATCHED)
    )
    with ledger.reading() as session:
        return session.exec(query).one()


def set_batch(ledger: Ledger, batch: Batch, **values: object) -> None:
    """Change a batch, here and in the database."""
    with ledger.writing() as session:
        session.exec(update(Batch).where(col(Batch.id) == batch.id).values(**values))
    for name, value in values.items():
        setattr(batch, name, value)


def close_batch(ledger: Ledger, batch: Batch, state: str) -> None:
    """Nothing is left to do for a batch; runs that have waited for it and for nothing else are done."""
    set_batch(ledger, batch, state=state, collected_at=datetime.now(UTC))
    waits = select(Attempt.run_id).where(Attempt.state == AttemptState.SENT)
    holds = select(Batch.run_id).where(col(Batch.collected_at).is_(None))
    over = [col(GenerationRun.id).not_in(waits), col(GenerationRun.id).not_in(holds)]
    with ledger.writing() as session:
        query = update(GenerationRun).where(col(GenerationRun.state) == RunState.WAITING, *over)
        session.exec(query.values(state=RunState.DONE, message=""))


def store_results(
    session: Session, batch_id: int, results: Iterable[Result], price: Price | None, without_key: Callable[[str], str]
) -> tuple[list[Ended], int]:
    """End the requests that these lines answer, in a transaction.

    Returns:
        What became of them, without those that had been ended before; and how many lines belong to no request.
    """
    by_uuid = {result.custom_id: result for result in results}
    query = select(Attempt).where(Attempt.batch_id == batch_id, col(Attempt.uuid).in_(by_uuid))
    attempts = session.exec(query).all()
    ended = []
    for attempt in attempts:
        if attempt.state is AttemptState.SENT:
            sent = _sent(attempt)
            ended.append(_end(session, attempt, sent, by_uuid[attempt.uuid].reply(sent.ask, without_key), price))
    return ended, len(by_uuid) - len(attempts)


def end_unanswered(ledger: Ledger, batch: Batch, why: str, *, again: bool) -> Iterable[list[Ended]]:
    """End the requests for which no line came, some hundred at a time.

    Args:
        ledger: of the batch.
        batch: whose lines have all been read, or that was never sent.
        why: for the record.
        again: whether it may help to ask the same once more.
    """
    query = select(Attempt).where(Attempt.batch_id == batch.id, Attempt.state == AttemptState.SENT).limit(CHUNK)
    while True:
        with ledger.writing() as session:
            attempts = session.exec(query).all()
            replies = [Reply(AttemptState.ERROR, Next.RETRY if again else Next.DONE, error=why) for _ in attempts]
            ended = [
                _end(session, each, _sent(each), reply, None) for each, reply in zip(attempts, replies, strict=True)
            ]
        if not ended:
            return
        yield ended


def split(ledger: Ledger, batch: Batch, data_dir: Path) -> list[Batch]:
    """Make two batches of one that is too large to be sent and of more than one request; each has half its lines.

    Killed in between, it leaves batches without requests, which are discarded, and the whole one as it was.
    """
    path = batch_file(data_dir, batch.uuid)
    halves = [new_batch(batch.run_id) for _ in range(2)]
    with ledger.writing() as session:
        session.add_all(halves)
    uuids: list[list[str]] = [[], []]
    with path.open("rb") as whole:
        for half, name, most in zip(halves, uuids, (batch.requests // 2, batch.requests), strict=True):
            with batch_file(data_dir, half.uuid).open("wb") as file:
                while len(name) < most and (line := whole.readline()):
                    file.write(line)
                    name.append(uuid_of(line))
                half.bytes = file.tell()
    with ledger.writing() as session:
        for half, names in zip(halves, uuids, strict=True):
            for start in range(0, len(names), CHUNK):
                some = col(Attempt.uuid).in_(names[start : start + CHUNK])
                session.exec(update(Attempt).where(some).values(batch_id=half.id))
            half.state, half.requests = PREPARING, len(names)
            session.add(half)
        values = {"state": SPLIT, "collected_at": datetime.now(UTC)}
        session.exec(update(Batch).where(col(Batch.id) == batch.id).values(**values))
    path.unlink()
    return halves


def new_batch(run_id: int) -> Batch:
    """A batch whose file is about to be written."""
    return Batch.model_validate({"uuid": str(uuid4()), "run_id": run_id, "state": WRITING, "requests": 1, "bytes": 1})


def _sent(attempt: Attempt) -> Sent:
    """What was asked in an attempt, as far as its answer's way into the database goes."""
    attributes = tuple(Attribute(name) for name in json.loads(attempt.attributes))
    identity = Identity(attempt.subject, attempt.prompt_version, attempt.teacher, attempt.parameters)
    # By the kind of prompt and not by its version: it may have been sent by an earlier version of this program.
    combined = attempt.prompt_version.split("-")[0] == COMBINED_VERSION.split("-")[0]
    unit = Unit(attempt.image_id, "", {}, attributes, identity, combined)
    return Sent(attempt.run_id, unit, Ask(attributes, "", combined), attempt.number)


def _end(session: Session, attempt: Attempt, sent: Sent, reply: Reply, price: Price | None) -> Ended:
    cost = None
    if price is not None and reply.input_tokens is not None:
        cost = price.cost(reply.input_tokens, reply.cached_tokens or 0, reply.output_tokens or 0, batch=True)
    end_attempt(session, attempt, reply_fields(reply) | {"cost_usd": cost})
    store_answers(session, sent, reply, attempt.id or 0, again=False)
    return Ended(attempt.run_id, sent.unit, reply, attempt.number, cost or 0.0)
