"""Linear layers with the LoRA matrices of several adapters beside them, and the gate that says which row uses which.

    y = W x + Σ over adapters a:  gate[row, a] · B_a (A_a x)

All rows of a batch go through one product with W. The one surprising fact: this needs no hook and no state but the
gate, so nothing can be left behind by an error, which is what PEFT's own mixing suffers from (peft#3475); its answers
are the measure in tests/test_adapters.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

MIXES = 4  # combinations of adapters whose joined matrices each layer keeps


class Gate:
    """Which adapter each row of the next forward pass uses; shared by all layers of a model."""

    def __init__(self) -> None:
        self.used: tuple[str, ...] = ()
        self._rows: tuple[str | None, ...] = ()
        self._open: dict[tuple[tuple[str, int], ...], Tensor | None] = {}

    def set(self, rows: Sequence[str | None]) -> None:
        """The adapters of the rows, None where the base is to answer alone."""
        if tuple(rows) != self._rows:
            self._rows = tuple(rows)
            self.used = tuple(sorted({slot for slot in rows if slot is not None}))
            self._open.clear()

    def open(self, ranks: tuple[tuple[str, int], ...], like: Tensor) -> Tensor | None:
        """What each row lets through of these adapters' joined ranks: 0 or 1, [rows, 1, sum of the ranks].

        None where every row uses the only adapter there is.
        """
        if ranks not in self._open:
            lanes = [[float(slot == row) for slot, rank in ranks for _ in range(rank)] for row in self._rows]
            everything = all(all(lane) for lane in lanes)
            self._open[ranks] = (
                None if everything else torch.tensor(lanes, dtype=like.dtype, device=like.device)[:, None]
            )
        return self._open[ranks]


class GatedLinear(nn.Module):
    """A linear layer, plain or quantized, with adapters beside it."""

    def __init__(self, base: nn.Module, gate: Gate) -> None:
        super().__init__()
        self.base = base
        self._gate = gate
        self._pairs: dict[str, tuple[Tensor, Tensor]] = {}
        self._mixes: dict[tuple[str, ...], tuple[tuple[tuple[str, int], ...], Tensor, Tensor]] = {}

    def add(self, slot: str, down: Tensor, up: Tensor) -> None:
        """Add an adapter: A [rank, in], and B [out, rank] with its scale in it."""
        self._pairs[slot] = (down, up)
        self._mixes.clear()

    def remove(self, slot: str) -> None:
        """Forget an adapter."""
        self._pairs.pop(slot, None)
        self._mixes.clear()

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
        mix = self._mix()
        if mix is None:
            return outputs
        ranks, down, up = mix
        low = functional.linear(inputs, down)
        gate = self._gate.open(ranks, low)
        return outputs + functional.linear(low if gate is None else low * gate, up)

    def _mix(self) -> tuple[tuple[tuple[str, int], ...], Tensor, Tensor] | None:
        """The matrices of the adapters in use, joined along their ranks."""
        if not self._gate.used:
            return None
        used = tuple(slot for slot in self._gate.used if slot in self._pairs)
        if not used:
            return None
        if used not in self._mixes:
            if len(self._mixes) >= MIXES:
                self._mixes.pop(next(iter(self._mixes)))
            pairs = [self._pairs[slot] for slot in used]
            down, up = (
                pairs[0] if len(pairs) == 1 else (torch.cat([d for d, _ in pairs]), torch.cat([u for _, u in pairs], 1))
            )
            self._mixes[used] = (tuple((slot, len(d)) for slot, (d, _) in zip(used, pairs, strict=True)), down, up)
        return self._mixes[used]
