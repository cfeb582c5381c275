"""The processes that train one run together, which may be one: who writes, and what all do at the same time.

    team = Team(launched())
    team.join(on_cpu=True)
    with team.together():
        read(...)                   what ends one of them here ends them all

A launcher starts them: accelerate launch, torchrun or Ray. The one surprising fact: whoever fails writes the result,
whatever its rank, once it was let in. The first process may wait on a GPU for the failed one, and is then killed before
it can write.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import disable_fsdp_ram_efficient_loading
from torch import distributed

from facellm.config import Launched
from facellm.errors import FaceLLMError, ModelError

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # one may read images while others wait for it


class Stopped(Exception):
    """Stop came before the first step, or after the last."""


class Team:
    """All processes of a run, as this one sees them."""

    def __init__(self, launched: Launched) -> None:
        self.rank, self.size, self.local_size, self.sharded = launched
        self.joined = False

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def may_write_end(self, *, failed: bool) -> bool:
        """Whether how the run ended is for this process to say, where no other has.

        That is the first one, and one that has failed among the others; one that was never let in has no part in it.
        """
        return self.is_first or (failed and self.joined)

    def join(self, *, on_cpu: bool) -> None:
        """Wait until all are there; on a GPU, choose this process's own."""
        if self.size == 1:
            self.joined = True
            return
        # Each process needs the whole vision tower, while this would load weights in the first one alone.
        disable_fsdp_ram_efficient_loading()
        PartialState(cpu=on_cpu, timeout=PATIENCE)
        self.joined = True

    def leave(self) -> None:
        """Wait for all a last time; from here on each process is alone."""
        if distributed.is_initialized():
            distributed.barrier()
            distributed.destroy_process_group()

    def agreed(self, value: T) -> T:
        """The first process's value."""
        return self._all(value)[0]

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return any(self._all(flag))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait at the end of the block for the others; what has ended it in one process ends it in all.

        Raises:
            Stopped: another process was stopped.
            ModelError: another process has failed; the message is its own.
        """
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
        ends = self._all(None if error is None else sentence_of(error))
        if error is not None:
            raise error
        if found := [end for end in ends if end is not None]:
            raise Stopped if found[0] == sentence_of(Stopped()) else ModelError(found[0])

    def sentence(self, error: BaseException) -> str:
        """What a person is told of an error that has ended training."""
        lost = isinstance(error, distributed.DistError) or (
            type(error) is RuntimeError and "gloo" in str(error).lower()
        )
        if self.size > 1 and lost:
            return (
                f"Another of the {self.size} processes has ended, so training could not go on. "
                "See its output, then resume the run."
            )
        return sentence_of(error)

    def _all(self, value: T) -> list[T]:
        """The values of all processes."""
        if self.size == 1:
            return [value]
        found: list[T] = [value] * self.size
        distributed.all_gather_object(found, value)
        return found


def sentence_of(error: BaseException) -> str:
    """An error of ours as it is, others with their kind."""
    return str(error) if isinstance(error, FaceLLMError) else f"{type(error).__name__}: {error}"
