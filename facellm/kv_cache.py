"""Keys and values of the language model: of the rows that are decoded together, and of prefixes seen before.

    cache = RowsCache.of([past_of_row_0, past_of_row_1], headroom=64)
    language_model(..., cache=cache, attention_mask={"full_attention": cache.mask(1)})

Rows of different lengths stand right-aligned in one buffer, and a mask hides what is left of each. The one surprising
fact: two conversations share keys and values only up to the first token or image that differs, and only under the same
adapter, since an adapter changes both; so a prefix is looked up by its tokens, the hashes of its images and its model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

MOST_PREFIXES = 256  # kept at once, since each is looked at for each new question
GROWTH = 256  # tokens by which a full buffer grows at least


@dataclass(frozen=True)
class Past:
    """Keys and values of one row's first tokens, for each layer [heads, tokens, width of a head]."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def __len__(self) -> int:
        return int(self.keys[0].shape[1]) if self.keys else 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    def first(self, tokens: int) -> Past:
        """The first tokens of it, on the same memory."""
        return Past(tuple(keys[:, :tokens] for keys in self.keys), tuple(values[:, :tokens] for values in self.values))

    def copy(self) -> Past:
        """The same on memory of its own."""
        return Past(tuple(keys.clone() for keys in self.keys), tuple(values.clone() for values in self.values))


NOTHING = Past((), ())


class _BufferLayer(DynamicLayer):
    """One layer of a RowsCache: writes into a buffer with room ahead, where transformers' own copies all each step."""

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor | None, values: Tensor | None, length: int, headroom: int) -> None:
        super().__init__()
        self._headroom = headroom
        self._length = length
        if keys is not None and values is not None:
            self._allocate(keys, values)

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append [rows, heads, new tokens, width]; returns all of them."""
        end = self._length + key_states.shape[2]
        if not self.is_initialized:
            self._allocate(key_states[:, :, :0], value_states[:, :, :0], at_least=end)
        elif end > self.keys.shape[2]:
            self._headroom = max(GROWTH, self._length // 2)
            self._allocate(self.keys[:, :, : self._length], self.values[:, :, : self._length], at_least=end)
        self.keys[:, :, self._length : end] = key_states
        self.values[:, :, self._length : end] = value_states
        self._length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        """How many tokens there are."""
        return self._length

    def crop_to(self, length: int) -> None:
        """Forget the tokens after `length`."""
        self._length = min(self._length, length)

    def _allocate(self, keys: Tensor, values: Tensor, at_least: int = 0) -> None:
        """Buffers that begin with these and have room for `headroom` more tokens."""
        rows, heads, length, width = keys.shape
        size = max(length, at_least) + self._headroom
        new_keys = keys.new_empty(rows, heads, size, width)
        new_values = values.new_empty(rows, heads, size, values.shape[3])
        new_keys[:, :, :length] = keys
        new_values[:, :, :length] = values
        self.keys, self.values = new_keys, new_values  # only now: either may have been too large for the memory
        self.is_initialized = True


class RowsCache(Cache):
    """What the language model keeps of several rows, right-aligned."""

    def __init__(self, layers: list[_BufferLayer], empty: Sequence[int]) -> None:
        super().__init__(layers=list(layers))
        self._buffers = layers
        self.empty = list(empty)  # tokens to the left of each row

    @classmethod
    def of(cls, pasts: Sequence[Past], *, layers: int, headroom: int) -> RowsCache:
        """The rows of these pasts, copied together, with room for `headroom` more tokens."""
        longest = max(map(len, pasts))
        empty = [longest - len(past) for past in pasts]
        if not longest:
            return cls([_BufferLayer(None, None, 0, headroom) for _ in range(layers)], empty)
        made = []
        for layer in range(layers):
            keys = _aligned([past.keys[layer] if past.keys else None for past in pasts], longest)
            values = _aligned([past.values[layer] if past.values else None for past in pasts], longest)
            made.append(_BufferLayer(keys, values, longest, headroom))
        return cls(made, empty)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.empty)

    def crop_to(self, length: int) -> None:
        """Forget what was appended after `length` tokens, by some layers or by all."""
        for layer in self._buffers:
            layer.crop_to(length)

    def past(self, row: int) -> Past:
        """One row's keys and values, on the buffers' memory."""
        first, end = self.empty[row], self.get_seq_length()
        return Past(
            tuple(layer.keys[row, :, first:end] for layer in self._buffers),
            tuple(layer.values[row, :, first:end] for layer in self._buffers),
        )

    def mask(self, new: int, device: torch.device) -> Tensor | None:
        """Which of the tokens `new` tokens of each row see, bool [rows, 1, new, length]; None where all is plain.

        None means to attention: everything for one token, and everything before for several that are the first.
        """
        past = self.get_seq_length()
        if not any(self.empty) and (new == 1 or past == 0):
            return None
        length = past + new
        places = torch.arange(length, device=device)
        there = places >= torch.tensor(self.empty, device=device)[:, None]
        before = places <= torch.arange(past, length, device=device)[:, None]
        return there[:, None, None, :] & before


def _aligned(parts: Sequence[Tensor | None], longest: int) -> Tensor:
    """[heads, tokens, width] each → [rows, heads, longest, width], right-aligned."""
    some = next(part for part in parts if part is not None)
    together = some.new_zeros(len(parts), some.shape[0], longest, some.shape[2])
    for row, part in enumerate(parts):
        if part is not None:
            together[row, :, longest - part.shape[1] :] = part
    return together


class PrefixCache:
    """Keys and values of conversations that were answered lately, within a budget; the least recently used go first.

    Args:
        budget: bytes to keep.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._kept: OrderedDict[tuple[Hashable, tuple[Hashable, ...]], Past] = OrderedDict()
        self.nbytes = 0  # in use

    def longest(self, owner: Hashable, tokens: Sequence[Hashable]) -> Past:
        """The longest known beginning of the tokens under this owner; NOTHING where there is none."""
        best, length = None, 0
        for key in self._kept:
            if key[0] == owner and (common := shared(key[1], tokens)) > length:
                best, length = key, common
        if best is None:
            return NOTHING
        self._kept.move_to_end(best)
        return self._kept[best].first(length)

    def keep(self, owner: Hashable, tokens: Sequence[Hashable], past: Past) -> None:
        """Remember what belongs to these tokens; shorter entries that it continues are dropped."""
        tokens = tuple(tokens[: len(past)])
        for key in [key for key in self._kept if key[0] == owner and shared(key[1], tokens) == len(key[1])]:
            self._drop(key)
        if past.nbytes <= self._budget:
            try:
                self._kept[owner, tokens] = past.copy()
                self.nbytes += past.nbytes
            except torch.OutOfMemoryError:  # what is kept only saves time
                self.clear()
        while self.nbytes > self._budget or len(self._kept) > MOST_PREFIXES:
            self._drop(next(iter(self._kept)))

    def forget(self, owner: Hashable) -> None:
        """Drop all that belongs to an owner, such as an adapter that is gone."""
        for key in [key for key in self._kept if key[0] == owner]:
            self._drop(key)

    def clear(self) -> None:
        """Free the memory."""
        self._kept.clear()
        self.nbytes = 0

    def _drop(self, key: tuple[Hashable, tuple[Hashable, ...]]) -> None:
        self.nbytes -= self._kept.pop(key).nbytes


def shared(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """How many items two sequences have in common at their start."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
