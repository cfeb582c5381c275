"""Linear layers with the LoRA matrices of several adapters beside them, each computed for the rows that use it.

    y = W x,  and for the rows of adapter a:  y += B_a (A_a x)

All rows of a batch go through one product with W. The one surprising fact: this needs no hook and no state but which
rows are whose, so nothing can be left behind by an error, which is what PEFT's own mixing suffers from (peft#3475); its
answers are the measure in tests/test_adapters.py.
"""

from collections.abc import Sequence
from itertools import groupby

from torch import Tensor, nn
from torch.nn import functional


class RowSpans:
    """Which rows of the next forward pass use which adapter; shared by all layers of a model."""

    def __init__(self) -> None:
        self.spans: list[
            tuple[str, slice | None]
        ] = []  # slots, with the rows next to each other that use one; None: all

    def set(self, rows: Sequence[str | None]) -> None:
        """The adapters of the rows, None where the base is to answer alone.

        Rows of one adapter are computed together where they stand next to each other.
        """
        self.spans, first = [], 0
        for slot, some in groupby(rows):
            count = len(list(some))
            if slot is not None:
                self.spans.append((slot, None if count == len(rows) else slice(first, first + count)))
            first += count


class GatedLinear(nn.Module):
    """A linear layer, plain or quantized, with adapters beside it."""

    def __init__(self, base: nn.Module, rows: RowSpans) -> None:
        super().__init__()
        self.base = base
        self._rows = rows
        self._pairs: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, slot: str, down: Tensor, up: Tensor) -> None:
        """Add an adapter: A [rank, in], and B [out, rank] with its scale in it."""
        self._pairs[slot] = (down, up.t().contiguous())

    def remove(self, slot: str) -> None:
        """Forget an adapter."""
        self._pairs.pop(slot, None)

    @property
    def nbytes(self) -> int:
        """Bytes of all adapters' matrices."""
        return sum(tensor.nbytes for pair in self._pairs.values() for tensor in pair)

    @property
    def adapted(self) -> bool:
        """Whether any adapter is left."""
        return bool(self._pairs)

    def forward(self, inputs: Tensor) -> Tensor:
        """[rows, tokens, in] → [rows, tokens, out]."""
        outputs: Tensor = self.base(inputs)
        for slot, rows in self._rows.spans:
            pair = self._pairs.get(slot)
            if pair is None:  # it does not adapt this layer
                continue
            down, up = pair
            some, target = (inputs, outputs) if rows is None else (inputs[rows], outputs[rows])
            # In place, and in one call: a step of decoding is made of many hundred calls as small as these.
            target.flatten(0, 1).addmm_(functional.linear(some, down).flatten(0, 1), up)
        return outputs
