"""Which rows each process computes in which step.

    Steps(data.training, data.lengths, per_step=10, at_once=4, seed=0, rank=0, processes=1)

A step's rows are chosen at random, then computed a few at a time, those of like length together, so that little is
filled up. Several processes get a part each of every few rows. The one surprising fact: all processes have equally many
parts, though some may be empty: while gradients or weights are exchanged, none may go ahead.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

Part = tuple[int, ...]  # numbers of the rows that one process computes at once; may be empty


class Steps(Sampler[list[Part]]):
    """The steps of an epoch, each as the parts of this process; `set_epoch` chooses the order."""

    def __init__(
        self,
        rows: Sequence[int],
        lengths: Sequence[int],
        *,
        per_step: int,
        at_once: int,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """Note what there is.

        Args:
            rows: the numbers of all rows.
            lengths: of all rows by their number, in tokens.
            per_step: rows of one step, of all processes together.
            at_once: rows that a process computes at once.
        """
        self._rows = rows
        self._lengths = lengths
        self._per_step = per_step
        self._at_once = at_once
        self._seed = seed
        self._rank = rank
        self._processes = processes
        self._epoch = 0

    def __len__(self) -> int:
        return -(-len(self._rows) // self._per_step)

    def set_epoch(self, epoch: int) -> None:
        """Each epoch has an order of its own, the same in every process and in a run that is resumed."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[Part]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = [self._rows[place] for place in torch.randperm(len(self._rows), generator=generator).tolist()]
        for first in range(0, len(order), self._per_step):
            yield self.parts(order[first : first + self._per_step])

    def parts(self, rows: Sequence[int]) -> list[Part]:
        """This process's parts of these rows."""
        ordered = sorted(rows, key=lambda row: self._lengths[row], reverse=True)
        size = self._at_once * self._processes
        groups = [ordered[first : first + size] for first in range(0, len(ordered), size)]
        return [tuple(group[self._rank :: self._processes]) for group in groups]
