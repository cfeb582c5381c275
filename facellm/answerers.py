"""Who can answer in the chat, by name: the base, its adapters, other checkpoints, and models of remote servers.

    answerers = Answerers(model, adapters=lambda: {"run-1": Path("data/runs/run-1/adapter")})
    for answers in answerers.stream([Request((question,), "Base"), Request((question,), "run-1")]):
        ...

What a name needs is loaded when it is first asked. The one surprising fact: one that fails does not end the others;
its answer carries the sentence that says why.
"""

import queue
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from facellm.conversation import Request
from facellm.data import sha256_file
from facellm.errors import DataError, FaceLLMError

if TYPE_CHECKING:
    from facellm.model import ChatModel

BASE = "Base"  # the name of the local base model without any adapter
MOST_ADAPTERS = 8  # kept in memory
PATIENCE = 2.0  # seconds for which a stopped answer may go on
FORGIVEN = 60.0  # seconds after which a checkpoint that could not be loaded is tried again
HEARTBEAT = 0.2  # seconds after which `stream` yields even when nothing has come

Texts = tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """The requests that are answered in one place."""

    indices: list[int]
    start: Callable[[threading.Event], Iterator[Texts]]
    finished: set[int]  # positions in `indices` of answers that have come to their end


_Update = tuple["_Part", Texts | BaseException | None]  # None: the part has ended


class Remote(Protocol):
    """A model of another server, as facellm.remote has them."""

    name: str
    model: str

    def stream(self, requests: Sequence[Request], *, stop: threading.Event | None = None) -> Iterator[Texts]:
        """As ChatModel.stream."""
        ...


@dataclass(frozen=True)
class Answer:
    """What has been written so far, and why no more will come where something went wrong."""

    text: str = ""
    error: str | None = None
    complete: bool = False  # it has come to its end


class Answerers:
    """All that can answer. Methods may be called from any thread.

    Args:
        model: the local model; None where everything is remote.
        adapters: reads the adapters that there are now, by name.
        checkpoints: whole models beside the base, by name: folders or Hub ids.
        remotes: models of other servers.
    """

    def __init__(
        self,
        model: "ChatModel | None",
        *,
        adapters: Callable[[], Mapping[str, Path]] = dict,
        checkpoints: Mapping[str, str] | None = None,
        remotes: Sequence[Remote] = (),
    ) -> None:
        self.model = model
        self._adapters = adapters
        self._checkpoints = dict(checkpoints or {})
        self._remotes = {remote.name: remote for remote in remotes}
        self._loaded: OrderedDict[str, None] = OrderedDict()  # adapters, the least recently asked first
        self._asked: Counter[str] = Counter()  # adapters that are answering now
        self._lock = threading.Lock()  # guards both
        self._failed: dict[str, tuple[float, FaceLLMError]] = {}  # checkpoints: when, and why

    @property
    def remote_names(self) -> frozenset[str]:
        """Those that answer on another server."""
        return frozenset(self._remotes)

    def names(self) -> list[str]:
        """All that can be asked; adapters are read anew."""
        local = [] if self.model is None else [BASE, *self._checkpoints, *self._adapters()]
        return list(dict.fromkeys([*local, *self._remotes]))

    def source(self, name: str) -> str:
        """What identifies the weights behind a name, without the folders of this machine.

        A checkpoint's or a remote model's name; an adapter's with the beginning of its weights' hash.

        Raises:
            DataError: nobody has this name.
        """
        if name in self._remotes:
            return self._remotes[name].model
        if self.model is not None:
            if name == BASE:
                return _without_folder(self.model.checkpoint)
            if name in self._checkpoints:
                return _without_folder(self._checkpoints[name])
            if name in (adapters := self._adapters()):
                return _adapter_source(name, adapters[name])
        raise DataError(f"There is no model {name}. Choose one of: {', '.join(self.names())}.")

    def stream(
        self, requests: Sequence[Request], *, stop: threading.Event | None = None
    ) -> Iterator[tuple[Answer, ...]]:
        """Ask all at once and yield all answers so far, again and again until they are complete.

        Yields at least every `HEARTBEAT` seconds, then with the same answers. Closing the iterator, or setting `stop`,
        ends the writing; what there is stays.

        Args:
            requests: `model` is a name of `names()`.

        Raises:
            FaceLLMError: nobody could answer.
        """
        answers = [Answer() for _ in requests]
        halt = threading.Event()
        updates: queue.SimpleQueue[_Update] = queue.SimpleQueue()
        parts = self._parts(requests)
        for part in parts:
            threading.Thread(target=_pump, args=(part, halt, updates), daemon=True).start()
        running, failures, deadline = len(parts), [], float("inf")
        try:
            while running and time.monotonic() < deadline:  # one that is being loaded does not hear of the stop
                if stop is not None and stop.is_set() and not halt.is_set():
                    halt.set()
                    deadline = time.monotonic() + PATIENCE
                for part, update in _waiting(updates):
                    if update is None:
                        running -= 1
                    elif isinstance(update, FaceLLMError):
                        failures.append(update)
                    elif isinstance(update, BaseException):
                        raise update
                    _note(answers, part, update, halted=halt.is_set())
                if failures and all(answer.error and not answer.text for answer in answers):
                    raise failures[0]
                yield tuple(answers)
        finally:
            halt.set()

    def _parts(self, requests: Sequence[Request]) -> list[_Part]:
        """The requests by where they are answered."""
        places: dict[str | None, list[int]] = {}
        for index, request in enumerate(requests):
            name = request.model or BASE
            self.source(name)  # it is there
            apart = name in self._remotes or self._unloaded(name)  # the others must not wait for a checkpoint to load
            places.setdefault(name if apart else None, []).append(index)
        parts: list[_Part] = []
        for place, indices in places.items():
            some = [requests[index] for index in indices]
            remote = None if place is None else self._remotes.get(place)
            finished: set[int] = set()
            start = self._local(some, finished) if remote is None else _remote(remote, some)
            parts.append(_Part(indices, start, finished))
        return parts

    def _unloaded(self, name: str) -> bool:
        return self.model is not None and name in self._checkpoints and name not in self.model.checkpoints

    def _local(self, requests: Sequence[Request], finished: set[int]) -> Callable[[threading.Event], Iterator[Texts]]:
        def start(halt: threading.Event) -> Iterator[Texts]:
            assert self.model is not None
            names = {request.model for request in requests if request.model not in (None, BASE)}
            with self._ready(self.model, {name for name in names if name is not None}):
                mine = [
                    replace(request, model=None if request.model == BASE else request.model) for request in requests
                ]
                yield from self.model.stream(mine, stop=halt, finished=finished)

        return start

    @contextmanager
    def _ready(self, model: "ChatModel", names: set[str]) -> Iterator[None]:
        """Adapters and checkpoints of these names are loaded within, and stay so; long unused adapters go."""
        adapters = self._adapters()
        wanted = {name: adapters[name] for name in names if name in adapters and name not in self._checkpoints}
        with self._lock:
            self._asked.update(wanted.keys())
        try:
            for name in sorted(names & self._checkpoints.keys()):
                self._load_checkpoint(model, name)
            for name, path in wanted.items():
                model.add_adapter(name, path)
            self._unload_unused(model, wanted)
            yield
        finally:
            with self._lock:
                self._asked.subtract(wanted.keys())

    def _load_checkpoint(self, model: "ChatModel", name: str) -> None:
        """Load a checkpoint; one that failed just now fails again at once, since the Hub may take half a minute to."""
        failed_at, error = self._failed.get(name, (float("-inf"), None))
        if error is not None and time.monotonic() - failed_at < FORGIVEN:
            raise error
        try:
            model.add_checkpoint(name, self._checkpoints[name])
        except FaceLLMError as failure:
            self._failed[name] = (time.monotonic(), failure)
            raise

    def _unload_unused(self, model: "ChatModel", wanted: Mapping[str, Path]) -> None:
        """Note that these were asked, and unload the adapters that have to go for them."""
        with self._lock:  # until they are gone: somebody may ask for one of them just now
            for name in wanted:
                self._loaded[name] = None
                self._loaded.move_to_end(name)
            idle = [name for name in self._loaded if not self._asked[name]]
            for name in idle[: max(0, len(self._loaded) - MOST_ADAPTERS)]:
                del self._loaded[name]
                model.remove_adapter(name)


def _without_folder(checkpoint: str) -> str:
    """A Hub id as it is, the last part of a folder's path."""
    return Path(checkpoint).name if Path(checkpoint).is_absolute() else checkpoint


def _adapter_source(name: str, folder: Path) -> str:
    """The name, and the beginning of its weights' hash: a run that is made anew has the same name."""
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():  # of the Hub
        return str(folder)
    found = weights.stat()
    return f"{name}@{_hash_of(str(weights), found.st_mtime_ns, found.st_size)}"


@lru_cache(maxsize=64)
def _hash_of(weights: str, _changed: int, _size: int) -> str:
    return sha256_file(Path(weights))[:12]


def _remote(remote: Remote, requests: Sequence[Request]) -> Callable[[threading.Event], Iterator[Texts]]:
    return lambda halt: remote.stream([replace(request, model=None) for request in requests], stop=halt)


def _note(answers: list[Answer], part: _Part, update: Texts | BaseException | None, *, halted: bool) -> None:
    """Put what has come from a part into its answers."""
    for position, index in enumerate(part.indices):
        answer = answers[index]
        if isinstance(update, tuple):
            answers[index] = replace(answer, text=update[position], complete=position in part.finished)
        elif isinstance(update, BaseException):
            answers[index] = replace(answer, error=str(update))
        elif answer.error is None:
            answers[index] = replace(answer, complete=position in part.finished or not halted)


def _pump(part: _Part, halt: threading.Event, updates: "queue.SimpleQueue[_Update]") -> None:
    """Hand on what comes, and then None; an error is handed on, too."""
    try:
        for texts in part.start(halt):
            updates.put((part, texts))
    except BaseException as error:  # noqa: BLE001 - raised again where the answers are awaited
        updates.put((part, error))
    finally:
        updates.put((part, None))


def _waiting(updates: "queue.SimpleQueue[_Update]") -> Iterator[_Update]:
    """All updates that are there; waits for the first, up to a heartbeat."""
    try:
        yield updates.get(timeout=HEARTBEAT)
        while True:
            yield updates.get_nowait()
    except queue.Empty:
        return
