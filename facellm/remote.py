"""A model behind an OpenAI-compatible server, such as vLLM or OpenAI itself, that answers like a local one.

    model = RemoteModel("InternVL3-8B", base_url="http://127.0.0.1:8000/v1", model="OpenGVLab/InternVL3-8B-hf")
    model.check()
    for (text,) in model.stream([Request((Turn("user", "Describe this image.", (image,)),))]):
        ...

The one surprising fact: a thread that waits for bytes cannot be woken, not even by closing its connection from another
thread. So each call of `stream` has an event loop of its own, on a thread of its own, where waiting can be cancelled at
any point; the connections close, and a server notices that and stops generating.
"""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openai

from facellm import remote_adapters
from facellm.conversation import Request
from facellm.errors import ModelError
from facellm.remote_messages import chat_messages
from facellm.remote_server import Server

UPDATE_INTERVAL = 0.05  # seconds between two yields at least
HEARTBEAT = 0.2  # seconds between two yields at most
STOP_POLL = 0.05  # seconds between two looks at `stop`
LISTED_MODELS = 20  # that an error names


class RemoteModel:
    """One model, or one adapter, of a server. All methods may be called from any thread, `stream` by many at once.

    Args:
        name: what it is called here; requests name it so, or not at all.
        base_url: where the server is, such as `http://127.0.0.1:8000/v1`.
        model: what the server calls it.
        api_key: None for a server that needs none.
        timeout_s: the longest wait for a sign of life while it answers.

    Raises:
        ModelError: the address or the key cannot be one.
    """

    def __init__(
        self, name: str, *, base_url: str, model: str, api_key: str | None = None, timeout_s: float = 60.0
    ) -> None:
        self.name = name
        self.model = model
        self._server = Server(base_url, api_key, timeout_s)

    def check(self) -> None:
        """Ask the server whether it has the model.

        Raises:
            ModelError, BusyError: it does not answer, or has other models, which are named then.
        """
        there = sorted(self._server.models())
        if self.model not in there:
            more = f" and {len(there) - LISTED_MODELS} more" if len(there) > LISTED_MODELS else ""
            named = ", ".join(there[:LISTED_MODELS]) + more if there else "none"
            raise ModelError(
                f"{self._server.base_url} has no model {self.model}. The models there are: {named}. Name one of them."
            )

    def stream(self, requests: Sequence[Request], *, stop: threading.Event | None = None) -> Iterator[tuple[str, ...]]:
        """Answer all requests at once and yield all their texts so far, again and again until they are complete.

        Yields at most 20 times a second, and at least every `HEARTBEAT` seconds, then with the same texts, so that the
        caller can look around. An answer that is cut at its `max_new_tokens` is complete.
        Closing the iterator, or setting `stop`, closes the connections; texts up to there are kept. An error comes
        after the texts so far, ends all answers, and is never tried again.

        Raises:
            BusyError: the server has too much to do.
            ModelError: the request is for another model, or the server fails, refuses, or breaks off.
        """
        if not requests:
            return
        for request in requests:
            if request.model not in (None, self.name):
                raise ModelError(f"{request.model} was asked, but this is {self.name}. Ask each model for its own.")
        answers = _Answers(self._server, self.model, requests, stop or threading.Event())
        threading.Thread(target=answers.run, name=f"answers of {self.name}", daemon=True).start()
        try:
            ended = False
            while not ended:
                answers.changed.wait(HEARTBEAT - UPDATE_INTERVAL)
                answers.changed.clear()
                ended = answers.ended.is_set()
                yielded_at = time.monotonic()
                yield tuple(answers.texts)
                if not ended:
                    time.sleep(max(0.0, yielded_at + UPDATE_INTERVAL - time.monotonic()))
            if answers.error is not None:
                raise answers.error
        finally:
            answers.closed.set()

    def load_adapter(self, name: str, path: str | Path) -> "RemoteModel":
        """Have a vLLM server load a LoRA adapter from its own disk, and make sure that it changes the answers.

        Raises:
            ModelError: the server cannot load it, does not allow it, has another of that name, or has loaded it without
                any effect; then it is unloaded again.
            BusyError: the server has too much to do.
        """
        remote_adapters.load(self._server, self.model, name, str(path))
        server = self._server
        return RemoteModel(
            name, base_url=server.base_url, model=name, api_key=server.api_key, timeout_s=server.timeout_s
        )

    def unload_adapter(self, name: str) -> None:
        """Have the server forget an adapter.

        Raises:
            ModelError, BusyError: it has none of that name, or cannot.
        """
        remote_adapters.unload(self._server, name)


class _Answers:
    """The answers of one call of `stream`: written on the thread that calls `run`, read by the caller's."""

    def __init__(self, server: Server, model: str, requests: Sequence[Request], stop: threading.Event) -> None:
        self.texts = [""] * len(requests)
        self.changed = threading.Event()  # there is more to yield, or the end
        self.ended = threading.Event()
        self.closed = threading.Event()  # nobody is waiting any more
        self.error: BaseException | None = None
        self._server = server
        self._model = model
        self._requests = tuple(requests)
        self._stop = stop

    def run(self) -> None:
        """Answer until complete, stopped, closed or failed."""
        runner = asyncio.Runner()
        try:
            runner.run(self._answer_all())
        except BaseException as error:  # whatever it is, `stream` raises it where somebody sees it
            self.error = error
        finally:
            self.ended.set()
            self.changed.set()
            runner.close()  # may wait until a name is resolved, which nobody has to wait for

    async def _answer_all(self) -> None:
        async with self._server.async_client() as client:
            tasks = [asyncio.create_task(self._answer(client, row)) for row in range(len(self._requests))]
            waiting = set(tasks)
            failed: list[BaseException] = []
            try:
                while waiting and not failed and not self._stop.is_set() and not self.closed.is_set():
                    done, waiting = await asyncio.wait(waiting, timeout=STOP_POLL, return_when=asyncio.FIRST_EXCEPTION)
                    failed = [error for task in done if (error := task.exception()) is not None]
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if failed:
            raise failed[0]

    async def _answer(self, client: openai.AsyncOpenAI, row: int) -> None:
        request, sampling = self._requests[row], self._requests[row].sampling
        with self._server.explained(self._model):
            conversation: list[Any] = await asyncio.to_thread(chat_messages, request.conversation)
            stream = await client.chat.completions.create(
                model=self._model,
                messages=conversation,
                stream=True,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                seed=sampling.seed,
            )
            ending, refusal = None, ""
            async with stream:
                async for chunk in stream:
                    for choice in getattr(chunk, "choices", None) or ():  # usage comes without a choice
                        ending = choice.finish_reason or ending
                        if choice.delta is not None:  # some servers leave it out at the end
                            self._append(row, choice.delta.content)
                            refusal += choice.delta.refusal or ""
        self._check_ending(row, ending, refusal)

    def _append(self, row: int, text: object) -> None:
        if isinstance(text, str) and text:  # the first chunk has a role only
            self.texts[row] += text
            self.changed.set()

    def _check_ending(self, row: int, ending: str | None, refusal: str) -> None:
        """Raise what an answer's ending says, if it is not complete."""
        where, text = self._server.base_url, self.texts[row]
        if refusal:
            raise ModelError(f"{self._model} refused to answer: {self._server.without_key(refusal)}")
        if ending == "content_filter":
            raise ModelError(f"{where} ended the answer of {self._model} by its content filter. Ask in another way.")
        if ending == "length" and not text:
            raise ModelError(
                f"{self._model} used all its {self._requests[row].sampling.max_new_tokens} tokens without a word of an "
                "answer. Allow more tokens."
            )
        if ending is None:
            raise ModelError(
                f"{where} broke off the answer of {self._model} after {len(text)} characters. Ask again; if it never "
                "answers, check that the address is that of an OpenAI-compatible server, mostly ending in /v1."
            )
