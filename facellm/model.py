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

from facellm.adapters import read_adapter
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
    ended: threading.Event = field(default_factory=threading.Event)  # it cannot go on
    updates: queue.SimpleQueue[Texts | BaseException | None] = field(default_factory=queue.SimpleQueue)  # None: the end
    rows: list[Row] = field(default_factory=list)
    finished: set[int] = field(default_factory=set)  # rows that have come to their end
    shown: Texts = ()
    shown_at: float = float("-inf")

    def stopped(self) -> bool:
        return self.stop.is_set() or self.closed.is_set() or self.ended.is_set()

    def publish(self) -> None:
        """Hand out the texts so far, unless they were handed out just now."""
        now = time.monotonic()
        if now - self.shown_at >= PUBLISH_INTERVAL and (texts := self.texts()) != self.shown:
            self.shown, self.shown_at = texts, now
            self._note_finished()
            self.updates.put(texts)

    def _note_finished(self) -> None:
        self.finished.update(number for number, row in enumerate(self.rows) if row.done)

    def texts(self) -> Texts:
        return tuple(str(row.text) for row in self.rows) or ("",) * len(self.requests)

    def end(self) -> None:
        """Hand out the last texts, or what went wrong."""
        self._note_finished()
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
        self._leaving: list[LoadedModel] = []  # the worker thread's: removed, but still answering
        self._retired: list[str] = []  # the worker thread's: slots of adapters that are gone, perhaps still answering
        self._loading = threading.Lock()  # one checkpoint is read at a time
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
        self._quantization: Quantization = quantization

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

        An adapter that it replaces ends the answers that it has begun. Reading the files holds up nobody else.

        Raises:
            ModelError: it is missing or damaged, it does not fit the base, or a checkpoint has its name.
        """
        if name in self._models:
            raise ModelError(f"There is a checkpoint {name} already. Give the adapter another name.")
        if not self._models[None].adapters.has(name, source):
            adapter = read_adapter(source)
            self._call(lambda: self._retire(self._models[None].adapters.add(name, source, adapter)))

    def remove_adapter(self, name: str) -> None:
        """Unload an adapter, once it has ended the answers that it has begun; nothing happens if it is not loaded."""
        self._call(lambda: self._retire(self._models[None].adapters.remove(name)))

    def _retire(self, slot: str | None) -> None:
        if slot is not None:
            self._retired.append(slot)
        self._sweep()

    def add_checkpoint(self, name: str, source: str | Path) -> None:
        """Load a whole model beside the base; tensors that are equal to the base's share its memory.

        The same name with the same source again does nothing. Reading the files holds up nobody else.

        Raises:
            ModelError: it cannot be loaded, or the name is taken.
        """
        with self._loading:
            loaded, base = self._models.get(name), self._models[None]
            if loaded is not None and loaded.source == str(source):
                return
            if loaded is not None or name in base.adapters.names:
                raise ModelError(f"There is a model {name} already. Give the checkpoint {source} another name.")
            if self._quantization == "none":
                model, processor = load_checkpoint(source, device="cpu", dtype=base.model.dtype)
            else:  # quantized weights stay where they were made
                kind: Any = base.device.type
                model, processor = load_checkpoint(source, device=kind, quantization=self._quantization)

            def attach() -> None:
                if self._quantization == "none":
                    share_tensors(model, base.model)
                self._models[name] = LoadedModel(name, str(source), model, processor, like=base)

            self._call(attach)

    def remove_checkpoint(self, name: str) -> None:
        """Unload a checkpoint that stands beside the base, as `remove_adapter` does an adapter."""
        self._call(lambda: self._remove_checkpoint(name))

    def _remove_checkpoint(self, name: str) -> None:
        if name in self._models:
            self._leaving.append(self._models.pop(name))
        self._sweep()

    def _sweep(self) -> None:
        """Free what was removed and answers no more."""
        base = self._models[None]
        for slot in [slot for slot in self._retired if not base.decoder.uses(slot)]:
            self._retired.remove(slot)
            base.adapters.take_out(slot)
            base.decoder.prefixes.forget(slot)
        self._leaving = [model for model in self._leaving if model.decoder.busy]

    def memory(self) -> Memory:
        """Bytes in use, by what they are for; tensors that several models share are counted once."""
        return self._call(lambda: Memory.of([*self._models.values(), *self._leaving]))

    def stream(
        self,
        requests: Sequence[Request],
        *,
        stop: threading.Event | None = None,
        finished: set[int] | None = None,
    ) -> Iterator[Texts]:
        """Answer all requests side by side and yield all their texts so far, again and again until they are complete.

        Yields at most 20 times a second, and at least every `HEARTBEAT` seconds, then with the same texts, so that the
        caller can look around.
        Closing the iterator, or setting `stop`, frees the model within two tokens; texts up to there are kept.

        Args:
            finished: is told, by their numbers, which answers have come to their end.

        Raises:
            BusyError: too many questions are waiting.
            ModelError: a model is not loaded, a conversation is too long, or the memory is too small.
        """
        if not requests:
            return
        batch = self._submit(requests, stop, finished)
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
            batch = self._submit(requests[first : first + BATCH_ROWS])
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

    def _submit(
        self, requests: Sequence[Request], stop: threading.Event | None = None, finished: set[int] | None = None
    ) -> _Batch:
        batch = _Batch(tuple(requests), stop or threading.Event())
        if finished is not None:
            batch.finished = finished
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
            for model in [*self._models.values(), *self._leaving]:
                try:
                    model.decoder.work()
                except BaseException as error:  # noqa: BLE001 - raised again where the answers are awaited
                    model.decoder.fail(error)
            self._hand_out()
            if self._retired or self._leaving:
                self._sweep()
        while not self._work.empty():  # whoever waits for something is told that it is over
            self._take_work(wait=False)
        for batch in self._batches:
            batch.ended.set()
        self._hand_out()
        self._models.clear()

    def _take_work(self, *, wait: bool) -> None:
        """Do what was asked meanwhile; `wait` for the first of it.

        One question at most: its pictures have to be looked at, and others are waiting for their next token.
        """
        admitted = len(self._batches)
        try:
            while len(self._batches) == admitted:
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
            batch.ended.set()
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
