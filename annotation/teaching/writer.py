"""Many small writes as few transactions: what waits while one is under way goes into the next together.

    async with Writer(ledger) as write:
        result = await write(lambda session: ...)

Each commit waits for the disk, a few milliseconds that would otherwise be paid twice for every request.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from sqlmodel import Session

from annotation.teaching.ledger import Ledger

MOST = 64  # writes in one transaction
Result = TypeVar("Result")
_Waiting = tuple[Callable[[Session], Any], asyncio.Future[Any]]


class Writer:
    """Runs functions of a session, in their order, on one thread; each call returns when its write is on the disk."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Writer":
        self._loop = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._loop is not None:
            self._loop.cancel()
        self._thread.shutdown()

    async def __call__(self, operation: Callable[[Session], Result]) -> Result:
        """Run one function in a transaction; an error in it is raised here, and nothing of it stays."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        await self._waiting.put((operation, future))
        return await future

    async def elsewhere(self, function: Callable[[], Result]) -> Result:
        """Run a function that opens its own session on the same thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def _write(self) -> None:
        while True:
            some = [await self._waiting.get()]
            while not self._waiting.empty() and len(some) < MOST:
                some.append(self._waiting.get_nowait())
            if not await self._together(some) and len(some) > 1:
                for each in some:  # so that one that cannot be written spoils no other
                    await self._together([each], last=True)

    async def _together(self, some: list[_Waiting], *, last: bool = False) -> bool:
        """Write these in one transaction; where that fails for the last time, the error is raised to who asked."""
        try:
            results = await self.elsewhere(partial(self._commit, [operation for operation, _ in some]))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the write was asked for
            if last or len(some) == 1:
                for _, future in some:
                    if not future.done():
                        future.set_exception(error)
            return False
        for (_, future), result in zip(some, results, strict=True):
            if not future.done():
                future.set_result(result)
        return True

    def _commit(self, operations: list[Callable[[Session], Any]]) -> list[Any]:
        with self._ledger.writing() as session:
            return [operation(session) for operation in operations]
