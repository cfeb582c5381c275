"""The engine: everything that a plan has left is asked of a teacher, each thing once, as fast as it may be.

    outcome = asyncio.run(Generation(store, teacher, plan, limits).run())

    python -m annotation generate --model my-model --base-url http://127.0.0.1:8000/v1

A worker takes a unit, waits for its turn, claims its tasks, asks, and stores the reply before it goes on; so nothing
that was paid for is ever held in memory for longer than one write. The surprising fact: it may be killed at any moment
and run in several processes at once, because the claim and the result of a task are transactions of their own.
"""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from sqlmodel import Session

from annotation.models import AttemptState, RunState, TaskState
from annotation.store import Store
from annotation.teaching.ledger import Ledger, claim, count_finished
from annotation.teaching.pacing import Pacer
from annotation.teaching.plan import Unit, Work
from annotation.teaching.prices import Price
from annotation.teaching.recording import Sent, record
from annotation.teaching.teacher import Ask, Next, Reply, Teacher
from annotation.teaching.writer import Writer
from facellm.data import Attribute
from facellm.errors import ImageError

MOST_TRIES = 8  # of one request, where the server or the network fails
MOST_LIMITED = 40  # of one request, where it was too early each time
MOST_EMPTY = 2  # of one request, where the answer is empty
LONGEST_WAIT = 60.0  # seconds between two tries, unless the server asks for more
FIRST_ERRORS = 12  # in a row, before anything was answered: the address is wrong, it seems
TOO_LONG = 900.0  # seconds; a server that asks for more patience ends the run
BEAT = 1.0  # seconds between two signs of life


@dataclass(frozen=True)
class Limits:
    """How much of everything a run may take.

    Args:
        concurrency: the most requests at once.
        max_cost: USD; None: no limit.
        price: None where none is known; costs are then not counted.
        expected_cost: USD of one request, as estimated; it counts for what is in flight until answers have come.
    """

    concurrency: int = 32
    max_cost: float | None = None
    price: Price | None = None
    expected_cost: float = 0.0


@dataclass
class Progress:
    """How far a run has come; for those who watch."""

    total: int = 0
    finished: int = 0
    asked: int = 0  # requests that were sent
    limited: int = 0  # of those, too early for the server
    cost_usd: float = 0.0
    seconds: float = 0.0
    in_flight: int = 0
    ends: Counter[TaskState] | None = None  # what became of tasks

    @property
    def eta_s(self) -> float | None:
        """Seconds that are left, by the speed so far; None before anything has ended."""
        return self.seconds / self.finished * (self.total - self.finished) if self.finished else None


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    uuid: str
    state: RunState
    message: str
    progress: Progress


class Generation:
    """One run.

    Args:
        store: where images are and pairs go.
        teacher: who is asked.
        plan: what is asked: pairs to generate, to judge, or to probe.
        limits: how fast, and for how much.
        options: what the command was told, for the record.
        watch: called about twice a second.
    """

    def __init__(
        self,
        store: Store,
        teacher: Teacher,
        plan: Work,
        limits: Limits,
        *,
        options: dict[str, object] | None = None,
        watch: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._store, self._teacher, self._plan, self._limits = store, teacher, plan, limits
        self._ledger: Ledger = store.ledger
        self._options = options or {}
        self._watch = watch
        self._pacer = Pacer(limits.concurrency)
        self.progress = Progress(ends=Counter())
        self._stop: tuple[RunState, str] | None = None
        self._errors_in_a_row = 0
        self._has_answered = False
        self._answers_with_cost = 0
        self._claimed_this_pass = 0

    async def run(self) -> Outcome:
        """Do all that is left of the plan; returns when it is done, or when everything in flight has ended."""
        self._stopping = asyncio.Event()
        self._turn = asyncio.Condition()
        self._ledger.bury_dead_runs()
        run = self._ledger.start_run(
            self._plan.purpose, self._teacher.model, self._teacher.server.base_url, self._options
        )
        self._run_id = run.id or 0
        state, message, drained = RunState.FAILED, "It ended by an error of the program.", False
        try:
            self.progress.total = self._plan.count(self._ledger).total
            self._ledger.set_total(self._run_id, self.progress.total)
            await self._ask_everything()
            state, message = self._stop or (RunState.DONE, "")
            drained = True
            if self._stop is None:
                self._count_what_others_did()
        except asyncio.CancelledError:
            state, message = RunState.STOPPED, "Left at once."
            raise
        finally:
            self._ledger.end_run(self._run_id, state, message, drained=drained)
        return Outcome(run.uuid, state, message, self.progress)

    def stop(self, message: str = "Stopped.", state: RunState = RunState.STOPPED) -> None:
        """Start nothing new; what is in flight is waited for and stored. Call it on the run's event loop."""
        if self._stop is None:
            self._stop = (state, message)
            self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether nothing new is started."""
        return self._stop is not None

    async def _ask_everything(self) -> None:
        async with Writer(self._ledger) as self._write, self._teacher.server.async_client() as self._client:
            beat = asyncio.create_task(self._beat())
            try:
                while self._stop is None:
                    self._claimed_this_pass = 0
                    self._units: deque[Unit] = deque()
                    self._chunks = self._plan.units(self._ledger, self._run_id)
                    self._feeding = asyncio.Lock()
                    workers = [asyncio.create_task(self._work()) for _ in range(self._limits.concurrency)]
                    await _all_or_none(workers)
                    # Another process may have died meanwhile and left something to do.
                    await self._write.elsewhere(self._ledger.bury_dead_runs)
                    if not self._claimed_this_pass:
                        break
            finally:
                beat.cancel()
                self._show()

    async def _work(self) -> None:
        while self._stop is None and (unit := await self._next_unit()) is not None:
            await self._do(unit)

    async def _next_unit(self) -> Unit | None:
        async with self._feeding:
            while not self._units:
                chunk = await self._write.elsewhere(partial(next, self._chunks, None))
                if chunk is None:
                    return None
                self._units.extend(_rotated(chunk, self._run_id))
        return self._units.popleft()

    async def _do(self, unit: Unit) -> None:
        """Ask one unit until it has an end; what was asked together in vain is asked alone."""
        if not await self._may_start():
            return
        taken = tuple(await self._write(partial(self._claim, unit)))
        if not taken:
            self._pacer_ended(time.monotonic(), limited=False)
            return
        reply = await self._ask_until_it_ends(unit, unit.ask(taken))
        if reply is not None and unit.falls_back:
            for attribute, answer in reply.answers.items():
                if isinstance(answer, TaskState):
                    await self._do(unit.alone(attribute))

    def _claim(self, unit: Unit, session: Session) -> list[Attribute]:
        taken = claim(session, self._run_id, unit.identity, unit.image_id, unit.attributes)
        self._claimed_this_pass += len(taken)
        by_others = len(unit.attributes) - len(taken)
        if by_others:  # another process was quicker
            count_finished(session, self._run_id, by_others)
            self.progress.finished += by_others
        return taken

    async def _ask_until_it_ends(self, unit: Unit, ask: Ask) -> Reply | None:
        """Send a request, again where that may help, and store each reply; the first turn has been waited for.

        Returns None where the run was stopped between two tries.
        """
        tries: Counter[Next | AttemptState] = Counter()
        number = 0
        while True:
            number += 1
            reply = await self._ask_once(unit, ask)
            tries[reply.state if reply.state is AttemptState.INVALID else reply.next] += 1
            again = self._again(reply, tries, ask)
            sent = Sent(self._run_id, unit, ask, number)
            await self._write(partial(record, sent=sent, reply=reply, price=self._limits.price, again=again))
            self._count(reply, unit, again)
            if not again:
                return reply
            if not await self._pause(reply, number) or not await self._may_start():
                return None

    async def _ask_once(self, unit: Unit, ask: Ask) -> Reply:
        began = time.monotonic()
        limited = False
        try:
            url = await asyncio.to_thread(unit.picture, self._store.data_dir)  # a large one is made smaller first
            self.progress.asked += 1
            reply = await self._teacher.ask(self._client, ask, url)
            limited = reply.next is Next.LIMITED
        except ImageError as error:
            return Reply(AttemptState.ERROR, error=str(error))
        finally:
            self._pacer_ended(began, limited=limited)
        self._heed(reply)
        return reply

    def _again(self, reply: Reply, tries: Counter[Next | AttemptState], ask: Ask) -> bool:
        """Whether the same is to be asked once more: by this run, or by the next one where this one stops."""
        if reply.next is Next.STOP:
            return True
        if reply.next is Next.RETRY:
            return tries[Next.RETRY] < MOST_TRIES
        if reply.next is Next.LIMITED:
            return tries[Next.LIMITED] < MOST_LIMITED
        return reply.state is AttemptState.INVALID and not ask.combined and tries[AttemptState.INVALID] < MOST_EMPTY

    def _heed(self, reply: Reply) -> None:
        """Stop the run where going on is of no use."""
        if reply.next is Next.LIMITED:
            self.progress.limited += 1
        if reply.retry_after_s is not None and reply.retry_after_s > TOO_LONG and reply.next is not Next.DONE:
            minutes = reply.retry_after_s / 60
            self.stop(f"The teacher asks to wait {minutes:.0f} minutes: {reply.error} Go on later.", RunState.STOPPED)
        if self._hides_its_cost(reply):
            said = "The teacher does not say how many tokens an answer took, so the cost limit cannot be kept."
            self.stop(f"{said} Do without it, and use --limit.", RunState.FAILED)
        if reply.next is Next.STOP:
            self.stop(self._refusal(reply), RunState.FAILED)
        if reply.state is not AttemptState.ERROR:
            self._errors_in_a_row, self._has_answered = 0, True
        elif reply.http_status != 429:  # who says that we are too fast is there
            self._errors_in_a_row += 1
        enough = max(20, 4 * self._limits.concurrency) if self._has_answered else FIRST_ERRORS
        if self._errors_in_a_row >= enough:
            said = f"{self._errors_in_a_row} requests in a row failed; the last one: {reply.error}"
            where = self._teacher.server.base_url
            self.stop(f"{self._teacher.model} at {where} does not answer: {said}", RunState.FAILED)

    def _refusal(self, reply: Reply) -> str:
        """Why nothing of this run can succeed, and what may help."""
        said = reply.error if reply.error.endswith((".", "!", "?")) else f"{reply.error}."
        helps = ""
        if reply.http_status == 401:
            helps = " Name the variable with the right key by --key-variable."
        elif reply.http_status == 404:
            helps = f" Check the model's name and {self._teacher.server.base_url}, which mostly ends in /v1."
        return f"{self._teacher.model} refuses all work ({reply.http_status}): {said}{helps}"

    def _hides_its_cost(self, reply: Reply) -> bool:
        """Whether an answer that is to be paid for came without its tokens, where they have to be counted."""
        price, limit = self._limits.price, self._limits.max_cost
        counts = limit is not None and price is not None and price.input + price.output > 0
        return counts and bool(reply.answers) and reply.http_status == 200 and reply.input_tokens is None

    def _count(self, reply: Reply, unit: Unit, again: bool) -> None:
        price, progress = self._limits.price, self.progress
        if price is not None and reply.input_tokens is not None:
            progress.cost_usd += price.cost(reply.input_tokens, reply.cached_tokens or 0, reply.output_tokens or 0)
            self._answers_with_cost += 1
        if again or progress.ends is None:
            return
        for answer in reply.answers.values():
            end = answer if isinstance(answer, TaskState) else TaskState.OK
            if unit.falls_back and end is not TaskState.OK:
                continue  # it is asked alone, and counted then
            progress.ends[end] += 1
            progress.finished += 1
        if not reply.answers:
            progress.ends[TaskState.FAILED] += len(unit.attributes)
            progress.finished += len(unit.attributes)

    def _count_what_others_did(self) -> None:
        """Nothing is left: what was to be done when the run began, and it has not done, other processes have."""
        own = sum(self.progress.ends.values()) if self.progress.ends else 0
        self.progress.total = self.progress.finished = max(self.progress.total, own)
        self._ledger.all_finished(self._run_id, self.progress.total)

    async def _may_start(self) -> bool:
        """Wait until one more request may go out; False when the run is to stop."""
        async with self._turn:
            while self._stop is None:
                if self._spent_with_flight():
                    self.stop(f"The cost limit of {self._limits.max_cost} USD is reached.")
                    break
                now = time.monotonic()
                delay = self._pacer.delay(now)
                if delay == 0.0:
                    self._pacer.started(now)
                    return True
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._turn.wait(), min(delay or BEAT, BEAT))
        return False

    def _spent_with_flight(self) -> bool:
        """Whether what is spent, and what is in flight at the mean cost so far, comes to the limit."""
        if self._limits.max_cost is None:
            return False
        spent, answers = self.progress.cost_usd, self._answers_with_cost
        mean = spent / answers if answers else self._limits.expected_cost
        return self.progress.cost_usd + mean * self._pacer.in_flight >= self._limits.max_cost

    def _pacer_ended(self, began: float, *, limited: bool) -> None:
        self._pacer.ended(began, time.monotonic(), limited=limited)
        asyncio.get_running_loop().create_task(self._wake())

    async def _wake(self) -> None:
        async with self._turn:
            self._turn.notify()

    async def _pause(self, reply: Reply, number: int) -> bool:
        """Wait before the same is asked again; False when the run is to stop."""
        wait = reply.retry_after_s
        if wait is None:
            wait = min(LONGEST_WAIT, 0.5 * 2 ** (number - 1)) * random.uniform(0.75, 1.25)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), wait)
        return self._stop is None

    async def _beat(self) -> None:
        """Show signs of life and progress; heed a wish to stop."""
        began = last = time.monotonic()
        while True:
            await asyncio.sleep(BEAT / 2)
            self.progress.seconds = time.monotonic() - began
            self._show()
            if time.monotonic() - last >= BEAT:
                last = time.monotonic()
                if await self._write.elsewhere(partial(self._ledger.beat, self._run_id)):
                    self.stop()

    def _show(self) -> None:
        self.progress.in_flight = self._pacer.in_flight
        self._watch(self.progress)


def _rotated(units: Sequence[Unit], by: int) -> Iterator[Unit]:
    """From a place that differs between runs: two processes at the same images get into each other's way less."""
    start = random.Random(by).randrange(len(units)) if units else 0
    yield from units[start:]
    yield from units[:start]


async def _all_or_none(workers: list[asyncio.Task[None]]) -> None:
    """Wait for all; where one fails by an error of the program, end the others first."""
    try:
        await asyncio.gather(*workers)
    except BaseException:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        raise
