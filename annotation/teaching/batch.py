"""A plan through a provider's Batch API: half the price, an answer within a day.

    outcome = asyncio.run(BatchRun(store, teacher, plan, limits, submit=True).run())

    python -m annotation generate --model my-model --batch      sends what is missing, waits, collects
    python -m annotation generate --model my-model --resume     collects what was sent, sends what it lacked again

A batch carries its own UUID in the provider's metadata. So whatever is killed when, the next run finds out whether a
file has been sent, and none is sent twice. The surprising fact: a provider takes a file and may refuse it minutes later
because too much is queued; it then waits for the others to end, and one that waits for nobody is cut in half.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, Final, TypeVar

import openai
from pydantic import ValidationError

from annotation.models import Batch, Purpose, RunState, TaskState
from annotation.store import Store
from annotation.teaching import batch_ledger
from annotation.teaching.batch_files import FileLimits, Result, batch_file, read_result
from annotation.teaching.batch_ledger import COLLECTED, DISCARDED, PREPARING, WRITING, Ended
from annotation.teaching.batch_provider import FAILED, BatchProvider, Remote, is_full
from annotation.teaching.batch_requests import RequestFiles
from annotation.teaching.generate import Limits, Outcome, Progress
from annotation.teaching.plan import Plan
from annotation.teaching.teacher import CLIENT_ERRORS, Next, Teacher
from facellm.errors import FaceLLMError, ModelError

MOST_ROUNDS: Final = 3  # how often the same is asked in one run
LINES: Final = 200  # of results in one transaction
BEAT: Final = 5.0  # seconds between two signs of life
VALIDATING, COMPLETED, EXPIRED, CANCELLED = "validating", "completed", "expired", "cancelled"  # the provider's words
Value = TypeVar("Value")


class BatchRun:
    """One run of `--batch` or `--resume`.

    Args:
        store: where images are and pairs go.
        teacher: who is asked.
        plan: what is asked.
        limits: the price, and the most that may be spent.
        submit: whether to send all that is missing; else only what batches have left without an answer.
        poll_s: seconds between two looks at the batches.
        options: what the command was told, for the record.
        file_limits: of the provider.
        say: called with a sentence when something has happened.
    """

    def __init__(
        self,
        store: Store,
        teacher: Teacher,
        plan: Plan,
        limits: Limits,
        *,
        submit: bool,
        poll_s: float = 60.0,
        options: dict[str, Any] | None = None,
        file_limits: FileLimits = FileLimits(),  # noqa: B008 - frozen
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store, self._ledger, self._data_dir = store, store.ledger, store.data_dir
        self._teacher, self._server, self._plan = teacher, teacher.server, plan
        self._limits, self._options, self._submitting, self._poll_s = limits, options or {}, submit, poll_s
        self._file_limits, self._say = file_limits, say
        self.progress = Progress(ends=Counter())
        self._rounds = 0
        self._stop = ""  # why nothing more is done now
        self._failure = ""  # why nothing more is sent
        self._unreadable = 0
        self._uploaded: dict[int, str] = {}  # batch → the provider's file
        self._unsure: set[int] = set()  # batches that the provider may have without our knowing its id
        self._full_at: int | None = None  # how many other batches were out when the queue was full
        self._later = False  # whether sending failed in a way that may pass
        self._worst: dict[int, float] = {}  # batch → USD that it may cost at most
        self._last_said = ""

    async def run(self) -> Outcome:
        """Send, wait and collect until everything has an end, or until stopped."""
        began = time.monotonic()
        self._stopping = asyncio.Event()
        self._ledger.bury_dead_runs()
        self._run = self._ledger.start_run(Purpose.GENERATE, self._teacher.model, self._server.base_url, self._options)
        self._run_id = self._run.id or 0
        self._files = RequestFiles(
            *(self._store, self._teacher, self._plan, self._run_id, self._file_limits),
            self._limits.price if self._limits.max_cost is not None else None,
            only_batched=not self._submitting,
        )
        state, message = RunState.FAILED, "It ended by an error of the program."
        beat = asyncio.create_task(self._beat())
        try:
            async with self._server.async_client() as client:
                self._provider = BatchProvider(client)
                await self._check()
                await self._work()
            state, message = self._end()
        except FaceLLMError as error:
            state, message = RunState.FAILED, str(error)
        except asyncio.CancelledError:
            state, message = RunState.WAITING, "Left at once."
            raise
        finally:
            beat.cancel()
            self.progress.seconds = time.monotonic() - began
            self._ledger.end_run(self._run_id, state, message)
        return Outcome(self._run.uuid, state, message, self.progress)

    def stop(self, message: str = "Stopped.") -> None:
        """Leave after the step that is under way; batches go on at the provider. Call it on the run's event loop."""
        self._stop = self._stop or message
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether it is about to leave."""
        return bool(self._stop)

    async def _check(self) -> None:
        """Before anything is claimed: whether there is a Batch API, and it takes the key."""
        try:
            with self._server.explained("its Batch API"):
                await self._provider.check()
        except ValidationError:
            said = "has no Batch API: it answered with something else than a list of batches. Leave --batch out."
            raise ModelError(f"{self._server.base_url} {said}") from None

    async def _work(self) -> None:
        await self._take_over()
        if self._submitting:
            await self._begin_round()
        while not self._stop:
            await self._take_over()
            for batch in await self._in_hand():
                if batch.remote_id and not self._stop:
                    await self._patiently(self._look_at(batch))
            await self._send_what_fits()
            if self._stop:
                return
            batches = await self._in_hand()
            if self._failure and not any(batch.remote_id for batch in batches):
                return
            if batches:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), self._poll_s)
            elif self._may_ask_again():
                await self._begin_round()
            else:
                return

    # Sending

    async def _send_what_fits(self) -> None:
        """Send the files that lie here, then new ones, until all is sent or the provider's queue is full."""
        batches = await self._in_hand()
        out = sum(batch.remote_id is not None for batch in batches)
        if self._full_at is not None and out and out >= self._full_at:
            return  # none has ended since
        self._full_at, self._later = None, False
        for batch in batches:
            if batch.state == WRITING:
                await self._discard(batch, "never sent: its file was not complete")
            elif batch.remote_id is None and not self._blocked:
                self._later = not await self._patiently(self._send(batch))
        while not self._blocked and not self._files.exhausted:
            await self._send_new_file()

    @property
    def _blocked(self) -> bool:
        return bool(self._stop or self._failure or self._later) or self._full_at is not None

    async def _send_new_file(self) -> None:
        if self._limits.max_cost is not None:
            self._files.allowance = self._limits.max_cost - self.progress.cost_usd - sum(self._worst.values())
        try:
            written = await _aside(self._files.write_file, lambda: not self._stop)
        except OSError as error:
            self._fail(f"The file of a batch cannot be written ({error.strerror}). Make room in the data directory.")
            written = None
        self._count_again()
        for ended in self._files.ended:
            self._count(ended)
        self._files.ended.clear()
        if written is None:
            if self._failure:
                await self._discard_incomplete()
            return
        batch, worst = written
        if batch.state != PREPARING:
            await self._discard_incomplete()
            return
        self._worst[batch.id or 0] = worst
        self._files.news |= self._files.over_allowance  # it will have cost less, and then there is room for more
        self._later = not await self._patiently(self._send(batch))

    async def _discard_incomplete(self) -> None:
        for batch in await self._in_hand():
            if batch.state == WRITING:
                await self._discard(batch, "never sent: stopped while its file was written")

    async def _send(self, batch: Batch) -> None:
        """Bring one complete file to the provider, unless it is there."""
        batch_id, path = batch.id or 0, batch_file(self._data_dir, batch.uuid)
        if batch_id in self._unsure and await self._found(batch):
            return
        try:
            if batch_id not in self._uploaded:
                if not path.exists() or path.stat().st_size != batch.bytes:
                    await self._discard(batch, "never sent: its file is gone")
                    return
                self._uploaded[batch_id] = await self._provider.upload(path, self._server.timeout_s)
            self._unsure.add(batch_id)  # until its id is stored, only the provider knows whether it has the batch
            remote = await self._provider.create(self._uploaded[batch_id], batch.uuid)
        except openai.APIStatusError as error:
            reply = self._teacher.failure(error)
            if is_full(error):
                self._unsure.discard(batch_id)
                await self._wait_for_room(batch, reply.error)
            elif reply.next in (Next.STOP, Next.DONE):
                self._fail(f"{self._server.base_url} does not take the batch ({reply.http_status}): {reply.error}")
                await self._discard(batch, f"never sent: {reply.error}", again=False)
            else:
                raise
        else:
            await self._sent(batch, remote)

    async def _found(self, batch: Batch) -> bool:
        """Look whether the provider has a batch already, and then take it for sent."""
        remote = await self._provider.find(batch.uuid, batch.created_at)
        if remote is None:
            return False
        if remote.input_file_id:
            self._uploaded[batch.id or 0] = remote.input_file_id
        if remote.found_no_room:
            return False
        await self._sent(batch, remote)
        return True

    async def _sent(self, batch: Batch, remote: Remote) -> None:
        await _aside(batch_ledger.set_batch, self._ledger, batch, remote_id=remote.id, state=remote.status)
        self._unsure.discard(batch.id or 0)
        self.progress.asked += batch.requests
        self._say(f"{remote.id}: {batch.requests} requests sent, {batch.bytes / 1e6:.1f} MB.")

    async def _wait_for_room(self, batch: Batch, said: str) -> None:
        """The provider's queue is full: wait for other batches, or cut this one in half if there are none."""
        out = sum(each.remote_id is not None and each.id != batch.id for each in await self._in_hand())
        await _aside(batch_ledger.set_batch, self._ledger, batch, remote_id=None, state=PREPARING)
        self._full_at = out
        path = batch_file(self._data_dir, batch.uuid)
        if out or batch.requests == 1 or not path.exists():
            self._say(f"The provider's queue is full; {batch.requests} requests wait for room. It says: {said}")
            return
        self._files.most_requests = max(1, batch.requests // 2)
        halves = await _aside(batch_ledger.split, self._ledger, batch, self._data_dir)
        worst = self._worst.pop(batch.id or 0, 0.0)
        self._worst |= {half.id or 0: worst * half.requests / batch.requests for half in halves}
        self._say(f"{batch.requests} requests are more than the provider's queue takes: they are sent in two parts.")

    async def _discard(self, batch: Batch, why: str, *, again: bool = True) -> None:
        await self._end_rest(batch, why, again=again)
        await self._close(batch, DISCARDED)

    # Collecting

    async def _look_at(self, batch: Batch) -> None:
        """Ask the provider how far a batch is, and collect it when it has ended."""
        remote = await self._provider.look(batch.remote_id or "")
        if remote.found_no_room:
            if remote.input_file_id:
                self._uploaded[batch.id or 0] = remote.input_file_id
            await self._wait_for_room(batch, remote.said)
        elif remote.status == FAILED:
            said = self._server.without_key(remote.said)
            self._fail(f"The provider does not take the batch {remote.id}, and says: {said}")
            await self._end_rest(batch, f"the batch failed: {said}", again=False)
            await self._close(batch, FAILED)
        elif remote.status in (COMPLETED, EXPIRED, CANCELLED):
            await self._collect(batch, remote)
        else:
            await self._still_out(batch, remote)

    async def _still_out(self, batch: Batch, remote: Remote) -> None:
        if remote.status != VALIDATING:  # until then it may be refused, and have to be sent once more
            batch_file(self._data_dir, batch.uuid).unlink(missing_ok=True)
        if remote.status != batch.state:
            await _aside(batch_ledger.set_batch, self._ledger, batch, state=remote.status)
        self._say_once(f"{remote.id}: {remote.status}, {remote.done} of {batch.requests} requests done.")

    async def _collect(self, batch: Batch, remote: Remote) -> None:
        before = self.progress.finished
        for file_id in (remote.output_file_id, remote.error_file_id):
            if file_id:
                await self._collect_file(batch, file_id)
        why = "missing from the output" if remote.status == COMPLETED else remote.status
        await self._end_rest(batch, why, again=remote.status != CANCELLED)  # somebody did not want it
        await self._close(batch, COLLECTED)
        self._say(f"{remote.id}: {remote.status}; {self.progress.finished - before} questions have an end.")

    async def _collect_file(self, batch: Batch, file_id: str) -> None:
        """Read a file of results line by line; killed at any line, the next run goes on behind it."""
        results: list[Result] = []
        async with aclosing(self._provider.lines(file_id)) as lines:
            async for line in lines:
                if not line.strip():
                    continue
                result = read_result(line)
                if result is None:
                    self._unreadable += 1
                    continue
                results.append(result)
                if len(results) >= LINES:
                    await self._keep(batch, results)
                    results = []
        await self._keep(batch, results)

    async def _keep(self, batch: Batch, results: list[Result]) -> None:
        def store() -> tuple[list[Ended], int]:
            with self._ledger.writing() as session:
                price, without_key = self._limits.price, self._server.without_key
                return batch_ledger.store_results(session, batch.id or 0, results, price, without_key)

        ended, unknown = await _aside(store)
        self._unreadable += unknown
        for each in ended:
            self._count(each)

    async def _end_rest(self, batch: Batch, why: str, *, again: bool) -> None:
        def end() -> list[Ended]:
            rest = batch_ledger.end_unanswered(self._ledger, batch, why, again=again)
            return [each for some in rest for each in some]

        for each in await _aside(end):
            self._count(each)

    async def _close(self, batch: Batch, state: str) -> None:
        batch_file(self._data_dir, batch.uuid).unlink(missing_ok=True)
        self._worst.pop(batch.id or 0, None)
        await _aside(batch_ledger.close_batch, self._ledger, batch, state)

    # The run

    async def _take_over(self) -> None:
        """See to what dead and ended runs have left."""
        before = await _aside(batch_ledger.waiting_tasks, self._ledger, self._run_id)
        if await _aside(batch_ledger.take_over, self._ledger, self._run):
            self.progress.total += await _aside(batch_ledger.waiting_tasks, self._ledger, self._run_id) - before
            unknown = [each for each in await self._in_hand() if each.remote_id is None]
            self._unsure |= {each.id or 0 for each in unknown if each.id not in self._uploaded}

    async def _in_hand(self) -> list[Batch]:
        batches = await _aside(batch_ledger.in_hand, self._ledger, self._run_id)
        self.progress.in_flight = sum(batch.requests for batch in batches if batch.remote_id is not None)
        return batches

    def _may_ask_again(self) -> bool:
        return not self._failure and self._files.news and self._rounds < MOST_ROUNDS

    async def _begin_round(self) -> None:
        self._rounds += 1
        found = await _aside(self._files.begin_round)
        waiting = await _aside(batch_ledger.waiting_tasks, self._ledger, self._run_id)
        self.progress.total = self.progress.finished + waiting + found.open - found.again
        run = self._ledger.run(self._run.uuid)
        self._ledger.set_total(self._run_id, (run.finished if run else 0) + found.open - found.own)

    def _count_again(self) -> None:
        """What failed and is asked once more has not ended."""
        again, self._files.retaken = self._files.retaken, 0
        self.progress.finished -= again
        self.progress.ends = self._ends - Counter({TaskState.FAILED: again})

    def _count(self, ended: Ended) -> None:
        self.progress.cost_usd += ended.cost_usd
        self._files.note(ended)
        reply, combined = ended.reply, ended.unit.combined
        ends = [each if isinstance(each, TaskState) else TaskState.OK for each in reply.answers.values()]
        ends = ends or [TaskState.FAILED] * len(ended.unit.attributes)
        alone = (TaskState.OK, TaskState.FAILED)
        counted = [each for each in ends if not combined or each in alone]  # the others are asked alone, and then count
        self._ends.update(counted)
        self.progress.finished += len(counted)
        if reply.next is Next.STOP:
            self._fail(f"The teacher refuses all work ({reply.http_status}): {reply.error}")

    @property
    def _ends(self) -> Counter[TaskState]:
        if self.progress.ends is None:
            self.progress.ends = Counter()
        return self.progress.ends

    def _fail(self, message: str) -> None:
        """Send nothing more; what is out is waited for all the same."""
        self._failure = self._failure or message
        self._say(message)

    async def _patiently(self, step: Awaitable[None]) -> bool:
        """Do a step; where network or server fail in a way that may pass, return False: the next look does it again."""
        where = self._server.base_url
        try:
            await step
            return True
        except (ValidationError, json.JSONDecodeError):
            self._say_once(f"{where} answered with something else than a Batch API does. Asking again.")
        except CLIENT_ERRORS as error:
            reply = self._teacher.failure(error)
            if reply.next in (Next.STOP, Next.DONE):
                self._fail(f"{where} refuses to tell of a batch ({reply.http_status}): {reply.error}")
                self.stop()
            else:
                self._say_once(f"{where} does not answer, and is asked again: {reply.error}")
        return False

    def _say_once(self, text: str) -> None:
        if text != self._last_said:
            self._last_said = text
            self._say(text)

    async def _beat(self) -> None:
        """Show signs of life; heed a wish to stop."""
        while True:
            await asyncio.sleep(BEAT)
            if await _aside(self._ledger.beat, self._run_id):
                self.stop()

    def _end(self) -> tuple[RunState, str]:
        """How the run ends, and what is to be said about it."""
        batches = batch_ledger.in_hand(self._ledger, self._run_id)
        out = sum(batch.remote_id is not None for batch in batches)
        said = [self._failure or self._stop]
        if out:
            said.append(f"{out} batches go on at the provider. Collect them with --resume.")
        if len(batches) > out:
            said.append(f"{len(batches) - out} files are not sent yet; --resume sends them.")
        if others := batch_ledger.held_by_others(self._ledger, self._run):
            said.append(f"{others} more are in the hands of another process.")
        if self._files.over_allowance:
            said.append(f"More might cost more than the limit of {self._limits.max_cost} USD.")
        if self._unreadable:
            said.append(f"{self._unreadable} lines of results were not readable or belong to no request.")
        if failed := self._ends[TaskState.FAILED]:
            said.append(f"{failed} questions have no answer after {self._rounds} rounds; the next run asks them again.")
        if self._failure:
            state = RunState.FAILED
        elif batches:
            state = RunState.WAITING
        else:
            state = RunState.STOPPED if self._stop or self._files.over_allowance else RunState.DONE
        return state, " ".join(each for each in said if each)


async def _aside(function: Callable[..., Value], *args: Any, **more: Any) -> Value:
    """Run what waits for the disk on a thread of its own."""
    return await asyncio.to_thread(function, *args, **more)
