"""The ledger of a teacher's work: runs, the tasks that they claim, and every attempt with what it cost.

    run = store.ledger.start_run(...)
    with store.ledger.writing() as session: claim(session, ...), add_attempt(session, ...), end_tasks(session, ...)

A task is claimed in the transaction before its request goes out, and its result, its pair and the ledger row are one
transaction after it; so whatever is killed when, no pair is missing or double, and only what was in flight is asked
again. The surprising fact: whether a run lives is asked of its process, so that after a `kill -9` the next run need not
wait for a lease; a lease is needed only where the processes are on several machines.
"""

import json
import socket
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psutil
import sqlalchemy as sa
from sqlalchemy import Engine
from sqlmodel import Session, col, func, select, update

from annotation.database import insert_new, reading, writing
from annotation.models import (
    Acknowledgement,
    Attempt,
    AttemptState,
    GenerationRun,
    Purpose,
    RunState,
    Task,
    TaskState,
)
from facellm.data import Attribute

LEASE = timedelta(minutes=3)  # without a sign of life for so long, a run of another machine is taken for dead
SAME_START = 2.0  # seconds by which the start of one process may be told differently


@dataclass(frozen=True)
class Identity:
    """What the tasks of one run have in common."""

    subject: str
    prompt_version: str
    teacher: str
    parameters: str


class Ledger:
    """Runs, tasks and attempts of one database."""

    def __init__(self, engine: Engine) -> None:
        """Use `store.ledger`."""
        self._engine = engine

    def reading(self) -> AbstractContextManager[Session]:
        """A session for the functions below that only look."""
        return reading(self._engine)

    def writing(self) -> AbstractContextManager[Session]:
        """A transaction for the functions below; it holds the write lock."""
        return writing(self._engine)

    # Runs

    def start_run(self, purpose: Purpose, teacher: str, base_url: str, options: dict[str, object]) -> GenerationRun:
        """A new run of this process."""
        process = psutil.Process()
        row = {
            "uuid": str(uuid4()),
            "host": socket.gethostname(),
            "pid": process.pid,
            "process_started": process.create_time(),
            "purpose": purpose,
            "teacher": teacher,
            "base_url": base_url,
            "options": json.dumps(options, sort_keys=True),
        }
        run = GenerationRun.model_validate(row)
        with writing(self._engine) as session:
            session.add(run)
        return run

    def beat(self, run_id: int) -> bool:
        """Show that the run is alive; return whether somebody wants it to stop."""
        with writing(self._engine) as session:
            session.exec(_of_run(run_id).values(heartbeat_at=datetime.now(UTC)))
            return session.exec(select(GenerationRun.stop_requested).where(GenerationRun.id == run_id)).one()

    def set_total(self, run_id: int, total: int) -> None:
        """How many tasks the run has to do."""
        with writing(self._engine) as session:
            session.exec(_of_run(run_id).values(total=total))

    def all_finished(self, run_id: int, total: int) -> None:
        """So many tasks were to be done, and all have been, by whomever."""
        with writing(self._engine) as session:
            session.exec(_of_run(run_id).values(total=total, finished=total))

    def end_run(self, run_id: int, state: RunState, message: str = "", *, drained: bool = True) -> None:
        """The run ends, and gives back what it had claimed.

        Args:
            run_id: of the run.
            state: how it ended.
            message: why.
            drained: whether it has waited for what was in flight; else the ledger keeps that as lost.
        """
        with writing(self._engine) as session:
            if not drained:
                _write_lost(session, [run_id])
            _give_back(session, [run_id])
            now = datetime.now(UTC)
            session.exec(_of_run(run_id).values(state=state, message=message, ended_at=now, heartbeat_at=now))

    def runs(self, limit: int = 20) -> list[GenerationRun]:
        """The latest runs, newest first."""
        with reading(self._engine) as session:
            return list(session.exec(select(GenerationRun).order_by(col(GenerationRun.id).desc()).limit(limit)))

    def run(self, uuid: str) -> GenerationRun | None:
        """The run of this UUID."""
        with reading(self._engine) as session:
            return session.exec(select(GenerationRun).where(GenerationRun.uuid == uuid)).first()

    def request_stop(self, uuid: str) -> None:
        """Ask a run to stop; it ends what is in flight first."""
        with writing(self._engine) as session:
            session.exec(update(GenerationRun).where(col(GenerationRun.uuid) == uuid).values(stop_requested=True))

    def is_alive(self, run: GenerationRun) -> bool:
        """Whether the process of a run still works on it."""
        return run.state is RunState.RUNNING and _process_lives(run)

    def bury_dead_runs(self) -> int:
        """Take the tasks of runs whose process is gone for free again; return how many runs that were."""
        with reading(self._engine) as session:
            running = session.exec(select(GenerationRun).where(GenerationRun.state == RunState.RUNNING)).all()
        dead = [run.id or 0 for run in running if not _process_lives(run)]
        if dead:
            with writing(self._engine) as session:
                _write_lost(session, dead)
                _give_back(session, dead)
                values = {"state": RunState.FAILED, "message": "Its process ended.", "ended_at": datetime.now(UTC)}
                still = col(GenerationRun.state) == RunState.RUNNING
                session.exec(update(GenerationRun).where(col(GenerationRun.id).in_(dead), still).values(**values))
        return len(dead)

    def task_counts(self, run_id: int) -> dict[TaskState, int]:
        """How many tasks of a run are in which state."""
        query = select(Task.state, func.count()).where(Task.run_id == run_id).group_by(col(Task.state))
        with reading(self._engine) as session:
            return {TaskState(state): number for state, number in session.exec(query)}

    def spent(self, run_id: int) -> tuple[float, int, int]:
        """(USD, attempts with usage, all attempts) of a run, from its rows."""
        query = select(
            func.coalesce(func.sum(Attempt.cost_usd), 0.0),
            func.count(col(Attempt.input_tokens)),
            func.count(),
        ).where(Attempt.run_id == run_id)
        with reading(self._engine) as session:
            cost, with_usage, attempts = session.exec(query).one()
            return cost or 0.0, with_usage, attempts

    # What somebody has read before using it

    def acknowledged(self, subject: str) -> bool:
        """Whether anybody has acknowledged this."""
        with reading(self._engine) as session:
            return (
                session.exec(select(Acknowledgement.id).where(Acknowledgement.subject == subject)).first() is not None
            )

    def acknowledge(self, subject: str, who: str) -> None:
        """Remember that somebody has."""
        row = Acknowledgement.model_validate({"subject": subject, "who": who})
        with writing(self._engine) as session:
            insert_new(session, Acknowledgement, row.model_dump(exclude={"id"}))


def claim(
    session: Session,
    run_id: int,
    identity: Identity,
    image_id: int,
    attributes: Iterable[Attribute],
    again: Collection[Attribute] = (),
) -> list[Attribute]:
    """Take those of these tasks that are free: never asked, or failed in another run.

    Call it in a transaction that holds the write lock; `Ledger.bury_dead_runs` frees what the dead have left.

    Args:
        session: of that transaction.
        run_id: who takes them.
        identity: of the tasks.
        image_id: of the tasks.
        attributes: the tasks.
        again: those that are taken even if they failed in this very run; they are then no longer finished.
    """
    taken = []
    for attribute in attributes:
        key = {"image_id": image_id, "attribute": attribute, **identity.__dict__}
        row = Task.model_validate(key | {"state": TaskState.CLAIMED, "run_id": run_id}).model_dump(exclude={"id"})
        if insert_new(session, Task, row) is not None or _take_failed(session, run_id, key, own=False):
            taken.append(attribute)
        elif attribute in again and _take_failed(session, run_id, key, own=True):
            count_finished(session, run_id, -1)
            taken.append(attribute)
    return taken


def find_tasks(
    session: Session, identity: Identity, image_ids: Sequence[int]
) -> dict[tuple[int, Attribute], tuple[TaskState, int]]:
    """(image, attribute) → (state, run) of the tasks that there are."""
    query = select(Task.image_id, Task.attribute, Task.state, Task.run_id).where(
        col(Task.image_id).in_(image_ids),
        Task.subject == identity.subject,
        Task.prompt_version == identity.prompt_version,
        Task.teacher == identity.teacher,
        Task.parameters == identity.parameters,
    )
    rows = session.exec(query)
    return {(image, Attribute(attribute)): (TaskState(state), run) for image, attribute, state, run in rows}


def find_subjects(
    session: Session, identity: Identity, image_ids: Sequence[int]
) -> dict[tuple[int, Attribute, str], tuple[TaskState, int]]:
    """(image, attribute, subject) → (state, run) of the tasks that there are, whatever the identity's own subject."""
    query = select(Task).where(
        col(Task.image_id).in_(image_ids),
        Task.prompt_version == identity.prompt_version,
        Task.teacher == identity.teacher,
        Task.parameters == identity.parameters,
    )
    return {(task.image_id, task.attribute, task.subject): (task.state, task.run_id) for task in session.exec(query)}


def may_be_asked(found: tuple[TaskState, int] | None, run_id: int | None) -> bool:
    """Whether a run may ask a task that was found, or not, in some state of some run."""
    return found is None or (found[0] is TaskState.FAILED and found[1] != run_id)


def add_attempt(session: Session, attempt: Attempt) -> int:
    """Add a ledger row and its cost to its run; return its id."""
    session.add(attempt)
    session.flush()
    _add_cost(session, attempt)
    return attempt.id or 0


def end_attempt(session: Session, attempt: Attempt, found: dict[str, object]) -> None:
    """What became of an attempt that was sent in a batch; its cost goes to the run that sent it.

    Args:
        session: of the transaction in which the attempt was read, still as sent.
        attempt: the row.
        found: its fields from now on.
    """
    for name, value in found.items():
        setattr(attempt, name, value)
    session.add(attempt)
    _add_cost(session, attempt)


def _add_cost(session: Session, attempt: Attempt) -> None:
    if attempt.cost_usd:
        spent = col(GenerationRun.cost_usd) + attempt.cost_usd
        session.exec(_of_run(attempt.run_id).values(cost_usd=spent))


def end_tasks(
    session: Session,
    run_id: int,
    identity: Identity,
    image_id: int,
    states: dict[Attribute, TaskState],
    attempt_id: int | None,
    pair_ids: dict[Attribute, int],
) -> None:
    """Set what became of tasks of this run, and count those that are over for it."""
    for attribute, state in states.items():
        values = {"state": state, "attempt_id": attempt_id, "pair_id": pair_ids.get(attribute)}
        session.exec(
            update(Task)
            .where(*_is_task(identity, image_id, attribute), col(Task.run_id) == run_id)
            .values(**values, updated_at=datetime.now(UTC))
        )
    not_yet = (TaskState.CLAIMED, TaskState.BATCHED, TaskState.FALLBACK)
    over = sum(state not in not_yet for state in states.values())
    if over:
        count_finished(session, run_id, over)


def count_finished(session: Session, run_id: int, number: int) -> None:
    """Count tasks that turned out to be done by somebody else."""
    session.exec(_of_run(run_id).values(finished=col(GenerationRun.finished) + number))


def _is_task(identity: Identity, image_id: int, attribute: Attribute) -> list[sa.ColumnElement[bool]]:
    return [
        col(Task.image_id) == image_id,
        col(Task.attribute) == attribute,
        col(Task.subject) == identity.subject,
        col(Task.prompt_version) == identity.prompt_version,
        col(Task.teacher) == identity.teacher,
        col(Task.parameters) == identity.parameters,
    ]


def _take_failed(session: Session, run_id: int, key: dict[str, object], *, own: bool) -> bool:
    """Take a task that failed in this run, or in another one."""
    is_it = [getattr(Task, name) == value for name, value in key.items()]
    values = {"state": TaskState.CLAIMED, "run_id": run_id, "updated_at": datetime.now(UTC)}
    by = col(Task.run_id) == run_id if own else col(Task.run_id) != run_id
    free = [col(Task.state) == TaskState.FAILED, by]
    return session.exec(update(Task).where(*is_it, *free).values(**values)).rowcount == 1


def _give_back(session: Session, run_ids: Sequence[int]) -> None:
    """What was claimed and never answered is free again; the attempts that failed stay in the ledger."""
    claimed = [col(Task.run_id).in_(run_ids), col(Task.state) == TaskState.CLAIMED]
    session.exec(sa.delete(Task).where(*claimed, col(Task.attempt_id).is_(None)))
    session.exec(update(Task).where(*claimed).values(state=TaskState.FAILED))


def _write_lost(session: Session, run_ids: Sequence[int]) -> None:
    """A ledger row for each task that was in flight when its process died: the provider may have billed it."""
    query = select(Task).where(col(Task.run_id).in_(run_ids), Task.state == TaskState.CLAIMED)
    for task in session.exec(query).all():
        row = {
            "uuid": str(uuid4()),
            "run_id": task.run_id,
            "image_id": task.image_id,
            "attributes": json.dumps([task.attribute]),
            "subject": task.subject,
            "prompt_version": task.prompt_version,
            "prompt_sha256": "",
            "teacher": task.teacher,
            "parameters": task.parameters,
            "state": AttemptState.LOST,
            "error": "The process ended before the answer came.",
        }
        attempt = Attempt.model_validate(row)
        session.add(attempt)
        session.flush()
        task.attempt_id = attempt.id


def _process_lives(run: GenerationRun) -> bool:
    if run.host != socket.gethostname():
        return datetime.now(UTC) - run.heartbeat_at < LEASE
    try:
        process = psutil.Process(run.pid)
        same = abs(process.create_time() - run.process_started) < SAME_START
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # it is somebody else's, and is there
        return datetime.now(UTC) - run.heartbeat_at < LEASE


def _of_run(run_id: int) -> sa.Update:
    return update(GenerationRun).where(col(GenerationRun.id) == run_id)
