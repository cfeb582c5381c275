"""The model that chats: one copy of the weights, one thread that owns it, and any number of adapters in each batch.

    model = ChatModel.load("facellm/embedded/tiny-base")
    model.add_adapter("facellm-tiny", "facellm/embedded/facellm-tiny")
    question = Turn("user", "Describe this image.", (open_image("face.png"),))
    for base, tuned in model.stream([Request((question,)), Request((question,), "facellm-tiny")]):
        ...

All visitors' answers are written together, a token of each at a time, and a new question joins between two tokens. The
one surprising fact: torch's results depend on nothing but the order of the calls only while one thread makes them, so
every call of torch runs on one worker thread, and callers talk to it through queues.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from facellm.calibration import choose_threads
from facellm.checkpoint import Quantization, load_checkpoint, share_tensors
from facellm.conversation import Request, Sampling, Turn, messages
from facellm.decoding import Abandoned, Row
from facellm.errors import BusyError, ModelError
from facellm.loaded import LoadedModel, Memory

__all__ = ["ChatModel", "Request", "Sampling", "Turn", "messages"]

BATCH_ROWS = 32  # requests that `replies` asks at a time
QUEUE_LIMIT = 64  # batches that may wait or run
HEARTBEAT = 0.2  # seconds after which `stream` yields even when nothing has come
PUBLISH_INTERVAL = 0.05  # seconds between two updates: pages that show them cannot take many more

Texts = tuple[str, ...]


@dataclass(eq=False)
class _Batch:
    """Requests that are answered side by side, and the one who waits for them."""

    requests: tuple[Request, ...]
    stop: threading.Event  # the caller's: keep what there is, and end
    closed: threading.Event = field(default_factory=threading.Event)  # nobody is waiting any more
    updates: queue.SimpleQueue[Texts | BaseException | None] = field(default_factory=queue.SimpleQueue)  # None: the end
    rows: list[Row] = field(default_factory=list)
    shown: Texts = ()
    shown_at: float = float("-inf")

    def stopped(self) -> bool:
        return self.stop.is_set() or self.closed.is_set()

    def publish(self) -> None:
        """Hand out the texts so far, unless they were handed out just now."""
        now = time.monotonic()
        if now - self.shown_at >= PUBLISH_INTERVAL and (texts := self.texts()) != self.shown:
            self.shown, self.shown_at = texts, now
            self.updates.put(texts)

    def texts(self) -> Texts:
        return tuple(str(row.text) for row in self.rows) or ("",) * len(self.requests)

    def end(self) -> None:
        """Hand out the last texts, or what went wrong."""
        error = next((row.error for row in self.rows if row.error is not None), None)
        self.updates.put(self.texts() if error is None else error)
        self.updates.put(None)


class ChatModel:
    """A base model, its adapters, and other checkpoints beside it. All methods may be called from any thread.

    Made by `ChatModel.load`. Close it, or use it as a context manager, to end its thread.
    """

    def __init__(self, *, queue_limit: int) -> None:
        self._queue_limit = queue_limit
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # for the worker thread
        self._batches: list[_Batch] = []  # the worker thread's: admitted, and not ended
        self._models: dict[str | None, LoadedModel] = {}  # the worker thread's; None is the base
        self._pending = 0
        self._lock = threading.Lock()  # guards _pending, and that nothing is queued after the end
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        quantization: Quantization = "none",
        queue_limit: int = QUEUE_LIMIT,
    ) -> "ChatModel":
        """Load a base model from a folder or the Hub; `REPOSITORY#SUBFOLDER` names a folder within.

        Args:
            quantization: store the language model's weights in 8 or 4 bits (bitsandbytes).

        Raises:
            ModelError: it cannot be loaded, or is not an InternVL model.
        """
        model = cls(queue_limit=queue_limit)
        try:
            model._call(lambda: model._load(checkpoint, device, quantization))
        except BaseException:
            model.close()
            raise
        return model

    def _load(self, checkpoint: str | Path, device: Literal["auto", "cpu", "cuda"], quantization: Quantization) -> None:
        model, processor = load_checkpoint(checkpoint, device=device, quantization=quantization)
        if model.device.type == "cpu":
            choose_threads(model)
        self._models[None] = LoadedModel(None, str(checkpoint), model, processor)

    @property
    def checkpoint(self) -> str:
        """What the base was loaded from."""
        return self._models[None].source

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the loaded adapters."""
        return self._models[None].adapters.names

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The names of the checkpoints loaded beside the base."""
        return tuple(name for name in self._models if name is not None)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._models[None].device

    @property
    def pending(self) -> int:
        """How many questions wait or are being answered."""
        return self._pending

    def add_adapter(self, name: str, source: str | Path) -> None:
        """Load a LoRA adapter of the base between two tokens of what is being written; it can be asked from then on.

        Raises:
            ModelError: it is missing or damaged, it does not fit the base, or a checkpoint has its name.
        """
        self._call(lambda: self._add_adapter(name, source))

    def _add_adapter(self, name: str, source: str | Path) -> None:
        if name in self._models:
            raise ModelError(f"There is a checkpoint {name} already. Give the adapter another name.")
        base = self._models[None]
        if (replaced := base.adapters.add(name, source)) is not None:
            base.decoder.prefixes.forget(replaced)

    def remove_adapter(self, name: str) -> None:
        """Unload an adapter; nothing happens if it is not loaded. Answers that it is writing end where they are."""
        self._call(lambda: self._remove_adapter(name))

    def _remove_adapter(self, name: str) -> None:
        base = self._models[None]
        if name not in base.adapters.names:
            return
        self._end_answers_of(name)
        slot = base.adapters.remove(name)
        base.decoder.prefixes.forget(slot)

    def add_checkpoint(self, name: str, source: str | Path) -> None:
        """Load a whole model beside the base; tensors that are equal to the base's share its memory.

        The same name with the same source again does nothing.

        Raises:
            ModelError: it cannot be loaded, or the name is taken.
        """
        self._call(lambda: self._add_checkpoint(name, source))

    def _add_checkpoint(self, name: str, source: str | Path) -> None:
        if name in self._models and self._models[name].source == str(source):
            return
        base = self._models[None]
        if name in self._models or name in base.adapters.names:
            raise ModelError(f"There is a model {name} already. Give the checkpoint {source} another name.")
        model, processor = load_checkpoint(source, device="cpu", dtype=base.model.dtype)
        share_tensors(model, base.model)
        self._models[name] = LoadedModel(name, str(source), model, processor, like=base)

    def remove_checkpoint(self, name: str) -> None:
        """Unload a checkpoint that stands beside the base, as `remove_adapter` does an adapter."""
        self._call(lambda: self._remove_checkpoint(name))

    def _remove_checkpoint(self, name: str) -> None:
        self._end_answers_of(name)
        self._models.pop(name, None)

    def _end_answers_of(self, name: str) -> None:
        for batch in self._batches:
            if any(request.model == name for request in batch.requests):
                batch.stop.set()
        for model in self._models.values():
            model.decoder.tidy()

    def memory(self) -> Memory:
        """Bytes in use, by what they are for; tensors that several models share are counted once."""
        return self._call(lambda: Memory.of(list(self._models.values())))

    def stream(self, requests: Sequence[Request], *, stop: threading.Event | None = None) -> Iterator[Texts]:
        """Answer all requests side by side and yield all their texts so far, again and again until they are complete.

        Yields at most 20 times a second, and at least every `HEARTBEAT` seconds, then with the same texts, so that the
        caller can look around.
        Closing the iterator, or setting `stop`, frees the model within two tokens; texts up to there are kept.

        Raises:
            BusyError: too many questions are waiting.
            ModelError: a model is not loaded, a conversation is too long, or the memory is too small.
        """
        if not requests:
            return
        batch = self._submit(requests, stop)
        texts: Texts = ("",) * len(requests)
        try:
            running = True
            while running:
                texts, running = _latest(batch.updates, texts)
                yield texts
        finally:
            batch.closed.set()

    def replies(self, requests: Sequence[Request]) -> list[str]:
        """The complete answers, in order."""
        texts: list[str] = []
        for first in range(0, len(requests), BATCH_ROWS):
            batch = self._submit(requests[first : first + BATCH_ROWS], None)
            while (update := batch.updates.get()) is not None:
                if isinstance(update, BaseException):
                    raise update
                last = update
            texts += last
        return texts

    def close(self) -> None:
        """End what runs, drop what waits, and end the worker thread."""
        with self._lock:
            self._closed.set()
            self._work.put(lambda: None)  # wakes the worker
        self._thread.join()

    def __enter__(self) -> "ChatModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Between the threads

    def _submit(self, requests: Sequence[Request], stop: threading.Event | None) -> _Batch:
        batch = _Batch(tuple(requests), stop or threading.Event())
        with self._lock:
            self._check_open()
            if self._pending >= self._queue_limit:
                raise BusyError(
                    f"{self._pending} questions are waiting for an answer already, which is the limit. "
                    "Try again in a minute."
                )
            self._pending += 1
            self._work.put(lambda: self._admit(batch))
        return batch

    def _call(self, task: Callable[[], Any]) -> Any:
        """Run a task on the worker thread, between two tokens, and wait for its result or error."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                self._check_open()
                future.set_result(task())
            except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
                future.set_exception(error)

        with self._lock:
            self._check_open()
            self._work.put(run)
        return future.result()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise ModelError("The model has been closed. Start the app again.")

    # On the worker thread

    def _run(self) -> None:
        torch.set_grad_enabled(False)  # of this thread alone
        while not self._closed.is_set():
            self._take_work(wait=not self._batches)
            for model in self._models.values():
                try:
                    model.decoder.work()
                except BaseException as error:  # noqa: BLE001 - raised again where the answers are awaited
                    model.decoder.fail(error)
            self._hand_out()
        self._take_work(wait=False)
        for batch in self._batches:
            batch.stop.set()
        self._hand_out()
        self._models.clear()

    def _take_work(self, *, wait: bool) -> None:
        """Do what was asked meanwhile; `wait` for the first of it."""
        try:
            while True:
                self._work.get(block=wait)()
                wait = False
        except queue.Empty:
            return

    def _admit(self, batch: _Batch) -> None:
        """Turn a batch's requests into rows and queue them; what is wrong with any of them ends the batch."""
        self._batches.append(batch)
        rows: dict[int, Row] = {}
        try:
            for name, model in self._models.items():
                mine = [index for index, request in enumerate(batch.requests) if self._owner(request.model) == name]
                requests = [batch.requests[index] for index in mine]
                rows |= zip(mine, model.rows(requests, batch.stopped), strict=True)
        except Abandoned:
            return  # it was stopped
        except BaseException as error:  # noqa: BLE001 - raised again where the answer is awaited
            batch.updates.put(error)
            batch.stop.set()
            return
        batch.rows = [rows[index] for index in range(len(rows))]
        for row in batch.rows:
            row.decoder.admit(row)

    def _owner(self, name: str | None) -> str | None:
        """The key of the loaded model that a name belongs to: an adapter's is its base."""
        return name if name in self._models else None

    def _hand_out(self) -> None:
        for batch in list(self._batches):
            batch.publish()
            if batch.stopped() or all(row.done for row in batch.rows):
                batch.end()
                self._batches.remove(batch)
                with self._lock:
                    self._pending -= 1


def _latest(updates: "queue.SimpleQueue[Texts | BaseException | None]", texts: Texts) -> tuple[Texts, bool]:
    """The newest of the waiting updates, or `texts` if none comes within a heartbeat; and whether more will come."""
    try:
        update = updates.get(timeout=HEARTBEAT)
        while update is not None:
            if isinstance(update, BaseException):
                raise update
            texts = update
            update = updates.get_nowait()
    except queue.Empty:
        return texts, True
    return texts, False
