"""Writes what a plan has left as files of requests, and claims it: the part of a batch run before anything is sent.

    requests.begin_round(); batch, worst_cost = requests.write_file(lambda: True)

A task is claimed for a batch in the transaction that adds its attempt, before its line is written; whatever is killed
when, a file is either complete or known not to be, and only a complete one is ever sent. The surprising fact: at most
some lines are in memory at once, so that a plan of any size takes the same memory.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from uuid import uuid4

from sqlmodel import Session, col, select

from annotation.models import Attempt, AttemptState, Batch, Image, Task, TaskState
from annotation.store import Store
from annotation.teaching.batch_files import FileLimits, batch_file, encoded, request_line
from annotation.teaching.batch_ledger import PREPARING, Ended, new_batch, set_batch
from annotation.teaching.estimate import MESSAGE_TOKENS
from annotation.teaching.ledger import add_attempt, claim, end_tasks
from annotation.teaching.plan import Plan, Unit
from annotation.teaching.prices import Price
from annotation.teaching.prompts import COMBINED_VERSION
from annotation.teaching.recording import Sent, attempt_row, record
from annotation.teaching.teacher import Ask, Next, Reply, Teacher
from annotation.teaching.teacher_image import teacher_url
from annotation.teaching.tokens import image_tokens, text_tokens
from facellm.data import Attribute
from facellm.errors import ImageError

SOME_REQUESTS = 64  # in one transaction, and in memory
SOME_BYTES = 8_000_000
_HEAD_BYTES = len(request_line(str(uuid4()), b""))
Key = tuple[int, str, Attribute]  # image, prompt version, attribute: a task, within one plan


@dataclass(frozen=True)
class _Draft:
    """A request that may become a line."""

    unit: Unit
    ask: Ask
    uuid: str
    body: bytes
    worst_cost: float
    error: str = ""  # why it cannot be one

    @property
    def size(self) -> int:
        return _HEAD_BYTES + len(self.body)


@dataclass
class Round:
    """One walk over the plan.

    Args:
        open: tasks that it will ask.
        again: of those, the ones that have ended in vain since the program started.
        own: of those, the ones that this very run asked.
    """

    open: int = 0
    again: int = 0
    own: int = 0
    drafts: Iterator[_Draft] = field(default_factory=lambda: iter(()))


class RequestFiles:
    """What one run asks; used by one thread at a time.

    Args:
        store: where images and ledger are.
        teacher: who is asked.
        plan: what is asked.
        run_id: who asks.
        limits: of one file.
        price: to know the most that requests may cost; None where nobody asks.
        only_batched: leave out what was never in a batch.
    """

    def __init__(
        self,
        store: Store,
        teacher: Teacher,
        plan: Plan,
        run_id: int,
        limits: FileLimits,
        price: Price | None,
        *,
        only_batched: bool,
    ) -> None:
        self._store, self._teacher, self._plan, self._run_id = store, teacher, plan, run_id
        self._limits, self._price, self._only_batched = limits, price, only_batched
        self.most_requests = limits.most_requests
        self.allowance = float("inf")  # USD that the next file may cost at most
        self.over_allowance = False
        self.exhausted = True  # whether the walk has come to its end
        self.news = True  # whether there may be something to ask since the last walk began
        self.retaken = 0  # tasks that had ended in vain and are asked once more
        self.ended: list[Ended] = []  # requests that came to an end here: their pictures could not be sent
        self._again: dict[Key, tuple[int, int]] = {}  # what may be asked again → (number of the last request, its run)
        self._given_up: set[Key] = set()  # what failed in this run and would fail again
        self._drafts: Iterator[_Draft] = iter(())
        self._next: _Draft | None = None

    def note(self, ended: Ended) -> None:
        """Remember what is to be asked again in the next round."""
        unit, reply = ended.unit, ended.reply
        keys: list[Key] = [(unit.image_id, unit.identity.prompt_version, each) for each in unit.attributes]
        if reply.state is not AttemptState.ERROR:
            self.news = self.news or (unit.combined and any(isinstance(a, TaskState) for a in reply.answers.values()))
        elif reply.next in (Next.RETRY, Next.LIMITED):
            self.news = True
            self._again |= dict.fromkeys(keys, (ended.number, ended.run_id))
        else:
            self._given_up |= set(keys)

    def begin_round(self) -> Round:
        """Start a walk over what is left now."""
        found = Round()
        for unit in self._units():
            for each in unit.attributes:
                last = self._again.get((unit.image_id, unit.identity.prompt_version, each))
                found.open += 1
                found.again += last is not None
                found.own += last is not None and last[1] == self._run_id
        self._drafts, self._next = self._made_drafts(), None
        self.exhausted = self.news = self.over_allowance = False
        return found

    def write_file(self, may_go_on: Callable[[], bool]) -> tuple[Batch, float] | None:
        """Fill the next file.

        Args:
            may_go_on: asked between two pieces of work; when it says no, the file stays marked as not complete.

        Returns:
            Its batch and the most that it may cost in USD, or None where nothing is left to ask.

        Raises:
            OSError: the disk takes no more; the batch is left for the caller to discard.
        """
        batch: Batch | None = None
        number = size = 0
        worst = 0.0
        while may_go_on():
            some = self._some(self.most_requests - number, self._limits.most_bytes - size, self.allowance - worst)
            if not some:
                break
            with self._store.ledger.writing() as session:
                batch, lines, cost = self._claim(session, some, batch)
            if batch is None or not lines:
                continue
            path = batch_file(self._store.data_dir, batch.uuid)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            number, size, worst = number + len(lines), size + sum(map(len, lines)), worst + cost
        if batch is not None and may_go_on():
            set_batch(self._store.ledger, batch, state=PREPARING, requests=number, bytes=size)
        return None if batch is None else (batch, worst)

    def _units(self) -> Iterator[Unit]:
        """What is left and may be asked by this run."""
        for chunk in self._plan.units(self._store.ledger):
            batched = self._batched(chunk) if self._only_batched else None
            for unit in chunk:
                version = unit.identity.prompt_version
                wanted = tuple(
                    each
                    for each in unit.attributes
                    if (unit.image_id, version, each) not in self._given_up
                    and (batched is None or self._was_batched(unit, each, batched))
                )
                if wanted:
                    yield replace(unit, attributes=wanted)

    def _was_batched(self, unit: Unit, attribute: Attribute, batched: set[tuple[Key, TaskState]]) -> bool:
        itself = (unit.image_id, unit.identity.prompt_version, attribute)
        together = (unit.image_id, COMBINED_VERSION, attribute)
        return (itself, TaskState.FAILED) in batched or (together, TaskState.FALLBACK) in batched

    def _batched(self, units: list[Unit]) -> set[tuple[Key, TaskState]]:
        """The tasks of these images that a batch has left without an answer."""
        query = (
            select(Task.image_id, Task.prompt_version, Task.attribute, Task.state)
            .join(Attempt, col(Task.attempt_id) == col(Attempt.id))
            .where(
                col(Task.image_id).in_({unit.image_id for unit in units}),
                col(Task.state).in_((TaskState.FAILED, TaskState.FALLBACK)),
                col(Attempt.batch_id).is_not(None),
                Task.subject == "",
                Task.teacher == self._plan.teacher,
                Task.parameters == self._plan.parameters,
            )
        )
        with self._store.ledger.reading() as session:
            rows = session.exec(query).all()
        return {((image, version, Attribute(name)), TaskState(state)) for image, version, name, state in rows}

    def _made_drafts(self) -> Iterator[_Draft]:
        url: tuple[int, str] = (0, "")  # of the last image: its requests follow each other
        for unit in self._units():
            try:
                if url[0] != unit.image_id:
                    url = unit.image_id, teacher_url(self._store.data_dir / unit.path)
                yield self._draft(unit, url[1])
            except ImageError as error:
                yield _Draft(unit, unit.ask(unit.attributes), str(uuid4()), b"", 0.0, str(error))

    def _draft(self, unit: Unit, url: str) -> _Draft:
        ask = unit.ask(unit.attributes)
        draft = _Draft(unit, ask, str(uuid4()), encoded(self._teacher.body(ask, url)), self._worst_cost(unit, ask))
        if draft.size > self._limits.most_bytes:
            said = (
                f"The request has {draft.size:,} bytes, and a file {self._limits.most_bytes:,}. Use a smaller picture."
            )
            return replace(draft, body=b"", error=said)
        return draft

    def _worst_cost(self, unit: Unit, ask: Ask) -> float:
        """USD, if the answer is as long as it may be; the schema is counted as text."""
        if self._price is None:
            return 0.0
        parameters = self._teacher.parameters
        with self._store.ledger.reading() as session:
            width, height = session.exec(select(Image.width, Image.height).where(Image.id == unit.image_id)).one()
        text = text_tokens(ask.system) + text_tokens(ask.instruction) + 30 * len(ask.attributes) * ask.combined
        picture = image_tokens(self._teacher.model, width, height, parameters.detail)
        output = parameters.max_completion_tokens * len(ask.attributes)
        return self._price.cost(MESSAGE_TOKENS + text + picture, 0, output, batch=True)

    def _some(self, requests: int, size: int, allowance: float) -> list[_Draft]:
        """The next drafts, as far as there is room for them."""
        some: list[_Draft] = []
        room = min(size, SOME_BYTES)
        while len(some) < min(requests, SOME_REQUESTS):
            draft = self._next or next(self._drafts, None)
            self._next = draft
            if draft is None:
                self.exhausted = True
                break
            allowance -= draft.worst_cost
            if allowance < 0:
                self.over_allowance = self.exhausted = True
                break
            if draft.size > room and (some or draft.size > size):
                break
            room -= draft.size
            some.append(draft)
            self._next = None
        return some

    def _claim(
        self, session: Session, drafts: list[_Draft], batch: Batch | None
    ) -> tuple[Batch | None, list[bytes], float]:
        """Claim what is still free of these, and give it an attempt each, in a transaction."""
        lines, cost = [], 0.0
        for draft in drafts:
            unit, draft_ask = draft.unit, draft.ask
            taken = tuple(claim(session, self._run_id, unit.identity, unit.image_id, unit.attributes, unit.attributes))
            if not taken:
                continue
            numbers = [self._forget(unit, each) for each in taken]
            sent = Sent(self._run_id, replace(unit, attributes=taken), draft_ask, 1 + max(numbers))
            if taken != unit.attributes:  # another process has the others; a smaller question goes out
                draft = self._smaller(draft, taken)
                sent = replace(sent, ask=draft.ask)
            if draft.error:
                reply = Reply(AttemptState.ERROR, error=draft.error)
                record(session, sent, reply, None, again=False)
                self.ended.append(Ended(self._run_id, sent.unit, reply, sent.number, 0.0))
                continue
            if batch is None:
                batch = new_batch(self._run_id)
                session.add(batch)
                session.flush()
            row = attempt_row(sent, Reply(AttemptState.SENT), None)
            row.uuid, row.batch_id = draft.uuid, batch.id
            attempt_id = add_attempt(session, row)
            states = dict.fromkeys(taken, TaskState.BATCHED)
            end_tasks(session, self._run_id, unit.identity, unit.image_id, states, attempt_id, {})
            lines.append(request_line(draft.uuid, draft.body))
            cost += draft.worst_cost
        return batch, lines, cost

    def _forget(self, unit: Unit, attribute: Attribute) -> int:
        """The number of the last request for a task that is asked once more; 0 where there was none."""
        number, run_id = self._again.pop((unit.image_id, unit.identity.prompt_version, attribute), (0, 0))
        self.retaken += run_id > 0
        return number

    def _smaller(self, draft: _Draft, attributes: tuple[Attribute, ...]) -> _Draft:
        unit = replace(draft.unit, attributes=attributes)
        return (
            draft
            if draft.error
            else replace(self._draft(unit, teacher_url(self._store.data_dir / unit.path)), uuid=draft.uuid)
        )
