"""The model that chats: one copy of the weights, one thread that owns it, and any number of adapters in each batch.

    model = ChatModel.load("facellm/embedded/tiny-base")
    model.add_adapter("facellm-tiny", "facellm/embedded/facellm-tiny")
    question = Turn("user", "Describe this image.", (open_image("face.png"),))
    for base, tuned in model.stream([Request((question,)), Request((question,), "facellm-tiny")], Sampling()):
        ...

The one surprising fact: a PEFT model answers wrongly, without any error, when two threads use it. So every call of
torch runs on one worker thread, and callers talk to it through a queue.
"""

import copy
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import GenerationConfig, InternVLForConditionalGeneration, InternVLProcessor

from facellm.adapters import AdapterSet
from facellm.checkpoint import load_checkpoint
from facellm.conversation import Request, Sampling, Turn, messages
from facellm.errors import BusyError, ModelError
from facellm.inputs import ImageFeatures, batch_inputs
from facellm.streaming import RowStreamer, StopWhen

__all__ = ["ChatModel", "Request", "Sampling", "Turn", "messages"]

BATCH_ROWS = 32  # rows of one batch of `replies`
QUEUE_LIMIT = 64  # batches that may wait or run
HEARTBEAT = 0.2  # seconds after which `stream` yields even when nothing has come


@dataclass(frozen=True)
class _Batch:
    requests: tuple[Request, ...]
    sampling: Sampling
    stop: threading.Event = field(default_factory=threading.Event)  # the caller's: keep what there is, and end
    closed: threading.Event = field(default_factory=threading.Event)  # nobody is waiting any more
    updates: queue.SimpleQueue[tuple[str, ...] | None] = field(default_factory=queue.SimpleQueue)  # None: the end


class ChatModel:
    """A base model and its adapters, behind a queue. All methods may be called from any thread.

    Made by `ChatModel.load`. Close it, or use it as a context manager, to end its thread.
    """

    def __init__(
        self,
        model: InternVLForConditionalGeneration,
        processor: InternVLProcessor,
        *,
        checkpoint: str,
        worker: ThreadPoolExecutor,
        queue_limit: int,
    ) -> None:
        self.checkpoint = checkpoint
        self._model = model
        self._processor = processor
        self._adapters = AdapterSet(model)
        self._features = ImageFeatures(model, processor)
        self._worker = worker
        self._queue_limit = queue_limit
        self._pending = 0
        self._lock = threading.Lock()  # guards _pending
        self._closed = threading.Event()

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        subfolder: str = "",
        queue_limit: int = QUEUE_LIMIT,
    ) -> "ChatModel":
        """Load a base model from a folder or the Hub.

        Raises:
            ModelError: it cannot be loaded, or is not an InternVL model.
        """
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        try:
            model, processor = worker.submit(load_checkpoint, checkpoint, device=device, subfolder=subfolder).result()
        except BaseException:
            worker.shutdown(wait=False)
            raise
        return cls(model, processor, checkpoint=str(checkpoint), worker=worker, queue_limit=queue_limit)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the loaded adapters."""
        return self._adapters.names

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self._model.device)

    @property
    def pending(self) -> int:
        """How many batches wait or run."""
        return self._pending

    def add_adapter(self, name: str, source: str | Path) -> None:
        """Load a LoRA adapter; it can be asked from then on. Waits until the batch that runs is done.

        Raises:
            ModelError: it is missing or damaged, or it does not fit the base.
        """
        self._submit(self._adapters.add, name, source).result()

    def remove_adapter(self, name: str) -> None:
        """Unload an adapter."""
        self._submit(self._adapters.remove, name).result()

    def stream(
        self, requests: Sequence[Request], sampling: Sampling, *, stop: threading.Event | None = None
    ) -> Iterator[tuple[str, ...]]:
        """Answer all requests in one batch and yield all their texts so far, again and again until they are complete.

        Yields at most 20 times a second, and at least every `HEARTBEAT` seconds, then with the same texts, so that the
        caller can look around.
        Closing the iterator, or setting `stop`, frees the model within two tokens; texts up to there are kept.

        Raises:
            BusyError: too many batches are waiting.
            ModelError: an adapter is not loaded, a conversation is too long, or the memory is.
        """
        if not requests:
            return
        batch = _Batch(tuple(requests), sampling, stop or threading.Event())
        texts = ("",) * len(requests)
        answer = self._submit(self._answer, batch)
        answer.add_done_callback(lambda _: batch.updates.put(None))
        try:
            running = True
            while running:
                texts, running = _latest(batch.updates, texts)
                yield texts
                if batch.stop.is_set() and answer.cancel():  # it was still waiting
                    return
            if (final := answer.result()) != texts:
                yield final
        finally:
            batch.closed.set()
            answer.cancel()

    def replies(self, requests: Sequence[Request], sampling: Sampling | None = None) -> list[str]:
        """The complete answers, in order, computed in batches; others' questions come in between."""
        sampling = sampling or Sampling()
        texts: list[str] = []
        for first in range(0, len(requests), BATCH_ROWS):
            some = tuple(requests[first : first + BATCH_ROWS])
            texts += self._submit(self._answer, _Batch(some, sampling)).result()
        return texts

    def close(self) -> None:
        """Stop what runs, drop what waits, and end the worker thread."""
        self._closed.set()
        self._worker.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "ChatModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        """Queue work for the worker thread; its result or error is the future's."""
        with self._lock:
            if self._closed.is_set():
                raise ModelError("The model has been closed. Start the app again.")
            if self._pending >= self._queue_limit:
                raise BusyError(
                    f"{self._pending} questions are waiting for an answer already, which is the limit. "
                    "Try again in a minute."
                )
            self._pending += 1
            future = self._worker.submit(work, *args)
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Future[Any]) -> None:
        with self._lock:
            self._pending -= 1

    def _answer(self, batch: _Batch) -> tuple[str, ...]:
        """Runs on the worker thread: generate all rows of a batch, publishing their texts on the way."""

        def stopped() -> bool:
            return batch.stop.is_set() or batch.closed.is_set() or self._closed.is_set()

        streamer = RowStreamer(len(batch.requests), self._processor.tokenizer, self._end_tokens(), batch.updates.put)
        if stopped():
            return streamer.texts()
        try:
            with torch.no_grad(), _seeded(batch.sampling, self.device):
                inputs = self._inputs(batch.requests)
                self._adapters.generate(
                    [request.adapter for request in batch.requests],
                    **inputs,
                    generation_config=self._generation_config(batch.sampling, inputs["input_ids"].shape[1]),
                    streamer=streamer,
                    stopping_criteria=[StopWhen(stopped)],
                )
        except torch.OutOfMemoryError as error:
            self._features.clear()
            torch.cuda.empty_cache()
            raise ModelError(
                f"The memory of {self.device} was too small for {len(batch.requests)} answers at once. "
                "Ask fewer models, or with fewer images."
            ) from error
        return streamer.texts()

    def _inputs(self, requests: Sequence[Request]) -> dict[str, Any]:
        return batch_inputs(requests, self._processor, self._features, device=self.device, context=self._context())

    def _context(self) -> int:
        return int(self._model.config.get_text_config().max_position_embeddings)

    def _end_tokens(self) -> frozenset[int]:
        """The tokens that end an answer."""
        found = self._model.generation_config.eos_token_id
        if found is None:
            found = self._processor.tokenizer.eos_token_id
        return frozenset(found if isinstance(found, list) else [found])

    def _generation_config(self, sampling: Sampling, prompt_length: int) -> GenerationConfig:
        """The checkpoint's own settings, but for what is asked for."""
        config = copy.deepcopy(self._model.generation_config)
        config.max_length = None
        config.max_new_tokens = min(sampling.max_new_tokens, self._context() - prompt_length)
        config.eos_token_id = sorted(self._end_tokens())
        config.pad_token_id = self._processor.tokenizer.pad_token_id
        config.do_sample = sampling.temperature > 0
        config.temperature = sampling.temperature if config.do_sample else None
        config.top_p = sampling.top_p if config.do_sample else None
        config.top_k = 0 if config.do_sample else None  # 0 switches it off; None would mean 50
        return config


def _latest(updates: queue.SimpleQueue[tuple[str, ...] | None], texts: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """The newest of the waiting updates, or `texts` if none comes within a heartbeat; and whether more will come."""
    try:
        update = updates.get(timeout=HEARTBEAT)
        while update is not None:
            texts = update
            update = updates.get_nowait()
    except queue.Empty:
        return texts, True
    return texts, False


@contextmanager
def _seeded(sampling: Sampling, device: torch.device) -> Iterator[None]:
    """Draw from the sampling's seed, and leave the process's random state as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(sampling.seed)
        yield
