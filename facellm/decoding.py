"""Writes the answers of many rows at once with one copy of the weights; rows come and go between two tokens.

    decoder.admit(row)
    while not row.done:
        decoder.work()      # reads the prompts of some waiting rows, and writes a token of every other

Prompts are read in groups of equal length, so none is padded; rows are then decoded together, whatever their adapters
and lengths. The one surprising fact: reading can be abandoned by an exception at any layer, since nothing is kept in
the model between two calls; that is how Stop ends the reading of a long prompt at once.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import InternVLForConditionalGeneration

from facellm.adapters import AdapterSet
from facellm.errors import ModelError
from facellm.inputs import Prompt, embed
from facellm.kv_cache import NOTHING, Past, PrefixCache, RowsCache, shared
from facellm.row_text import RowText
from facellm.sampling import Chooser, choose

MOST_ROWS = 32  # decoded at once; others wait
MOST_PREFILL = 8192  # tokens read at once
USEFUL_PREFIX = 16  # tokens: a shorter one costs more to fetch than to compute
HEADROOM = 64  # tokens that a new cache has room for


@dataclass(eq=False)
class Row:
    """One answer that is being written."""

    decoder: "Decoder"
    prompt: Prompt
    slot: str | None  # of its adapter
    chooser: Chooser
    text: RowText
    stopped: Callable[[], bool]
    error: BaseException | None = None
    past: Past = field(default=NOTHING, repr=False)  # of its prompt, from its reading to its first decoding

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self.text.ended or self.error is not None

    @property
    def said(self) -> tuple[Hashable, ...]:
        """Prompt and answer so far."""
        return (*self.prompt.keys, *self.text.tokens)


class Abandoned(Exception):
    """Raised within a forward pass, by this module, when nobody waits for its result any more."""


class Decoder:
    """One checkpoint's language model at work. Not thread-safe: one thread owns it.

    Args:
        model: its adapters are those of `adapters`.
        prefix_bytes: memory for the keys and values of conversations that may go on.
    """

    def __init__(self, model: InternVLForConditionalGeneration, adapters: AdapterSet, *, prefix_bytes: int) -> None:
        self.prefixes = PrefixCache(prefix_bytes)
        self._model = model
        self._language: Any = model.model.language_model
        self._adapters = adapters
        self._waiting: list[Row] = []
        self._rows: list[Row] = []
        self._cache: RowsCache | None = None
        self._wanted: Callable[[], bool] = lambda: True
        for layer in self._language.layers:
            layer.register_forward_pre_hook(self._check_wanted)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting or self._rows)

    def uses(self, slot: str) -> bool:
        """Whether any row is answered by the adapter in this slot."""
        return any(row.slot == slot for row in (*self._waiting, *self._rows))

    def admit(self, row: Row) -> None:
        """Queue a row to be answered."""
        self._waiting.append(row)

    def work(self) -> None:
        """One round: read some prompts, write one token of each row that has been read.

        What fails is noted in the rows concerned, and the others go on.
        """
        self.tidy()
        if group := self._next_group():
            with self._failing(group):
                self._read(group)
        if self._rows:
            with self._failing(self._rows):
                self._write()
        self.tidy()

    def fail(self, error: BaseException) -> None:
        """End every row with an error."""
        for row in (*self._waiting, *self._rows):
            row.error = error
        self._waiting, self._rows, self._cache = [], [], None

    def tidy(self) -> None:
        """Take out the rows that are done or stopped."""
        self._waiting = [row for row in self._waiting if not row.stopped()]
        self._leave()

    @contextmanager
    def wanted(self, wanted: Callable[[], bool]) -> Iterator[None]:
        """Forward passes within are abandoned as soon as `wanted()` is false."""
        self._wanted = wanted
        try:
            yield
        finally:
            self._wanted = lambda: True

    def check_wanted(self) -> None:
        """Raise Abandoned if the forward pass that runs is not wanted any more."""
        if not self._wanted():
            raise Abandoned

    def _check_wanted(self, *_: object) -> None:
        self.check_wanted()

    @contextmanager
    def _failing(self, rows: Sequence[Row]) -> Iterator[None]:
        """What goes wrong within is these rows' error, whatever it is: somebody waits for each, and is told."""
        rows = list(rows)
        try:
            yield
        except Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised again where the answer is awaited
            for row in rows:
                row.error = _as_sentence(error, len(rows), self._model.device)
            self._rows = [row for row in self._rows if row not in rows]
            self._cache = None if not self._rows else self._cache
            if isinstance(error, torch.OutOfMemoryError):
                self.prefixes.clear()
                torch.cuda.empty_cache()

    # Reading prompts

    def _next_group(self) -> list[Row]:
        """Waiting rows that can be read together: as much known, and as much to read. They are no longer waiting.

        A row whose prompt begins like another's under the same adapter waits for that one, and then has less to read.
        """
        group: list[Row] = []
        for row in self._waiting[:MOST_ROWS]:
            if len(group) + len(self._rows) >= MOST_ROWS:
                break
            past = self._known(row)
            unread = len(row.prompt.tokens) - len(past)
            if group:
                first = group[0]
                if (len(past), unread) != (len(first.past), len(first.prompt.tokens) - len(first.past)):
                    continue
                if unread * (len(group) + 1) > MOST_PREFILL or any(self._shares(row, other) for other in group):
                    continue
            row.past = past
            group.append(row)
        self._waiting = [row for row in self._waiting if row not in group]
        return sorted(group, key=lambda row: row.slot or "")

    def _known(self, row: Row) -> Past:
        past = self.prefixes.longest(row.slot, row.prompt.keys[:-1])  # the last token's logits are needed
        return past if len(past) >= USEFUL_PREFIX else NOTHING

    @staticmethod
    def _shares(row: Row, other: Row) -> bool:
        return row.slot == other.slot and shared(row.prompt.keys, other.prompt.keys) - len(other.past) >= USEFUL_PREFIX

    def _read(self, group: Sequence[Row]) -> None:
        """Prefill the rows, choose their first tokens, and let them join the others."""
        known = len(group[0].past)
        unread = len(group[0].prompt.tokens) - known
        cache = RowsCache.of([row.past for row in group], layers=len(self._language.layers), headroom=unread + HEADROOM)
        embedded = torch.stack([embed(row.prompt, self._model, known) for row in group])
        positions = torch.arange(known, known + unread, device=self._model.device)[None]
        with self.wanted(lambda: not all(row.stopped() for row in group)):
            hidden = self._forward(group, cache, positions.expand(len(group), -1), inputs_embeds=embedded)
        self._choose(group, hidden[:, -1])
        for number, row in enumerate(group):
            row.past = cache.past(number)
            self.prefixes.keep(row.slot, row.prompt.keys, row.past)
        self._join([row for row in group if not row.done], cache if len(group) == 1 or not self._rows else None)
        for row in group:
            row.past = NOTHING

    # Writing answers

    def _write(self) -> None:
        """One more token of every row that has been read."""
        assert self._cache is not None
        length = self._cache.get_seq_length()
        positions = torch.tensor([[length - empty] for empty in self._cache.empty], device=self._model.device)
        last = torch.tensor([[row.text.tokens[-1]] for row in self._rows], device=self._model.device)
        try:
            hidden = self._forward(self._rows, self._cache, positions, input_ids=last)
        except torch.OutOfMemoryError:
            self._cache.crop_to(length)
            self.prefixes.clear()
            torch.cuda.empty_cache()
            hidden = self._forward(self._rows, self._cache, positions, input_ids=last)
        self._choose(self._rows, hidden[:, -1])

    def _forward(self, rows: Sequence[Row], cache: RowsCache, positions: Tensor, **tokens: Tensor) -> Tensor:
        self._adapters.choose([row.slot for row in rows])
        mask = cache.mask(positions.shape[1], self._model.device)
        output = self._language(
            attention_mask={"full_attention": mask}, position_ids=positions, cache=cache, use_cache=True, **tokens
        )
        return output.last_hidden_state

    def _choose(self, rows: Sequence[Row], hidden: Tensor) -> None:
        logits = self._model.lm_head(hidden).float()
        tokens = choose([row.chooser for row in rows], logits, [row.text.tokens for row in rows])
        for row, token in zip(rows, tokens, strict=True):
            row.text.put(token)

    def _join(self, rows: Sequence[Row], cache: RowsCache | None) -> None:
        """Let rows that have been read join the others; `cache` holds exactly the rows, if it is given."""
        if not rows:
            return
        if cache is not None and not self._rows and len(rows) == cache.rows:
            self._rows, self._cache = list(rows), cache
            return
        known = [(row, self._cache.past(number)) for number, row in enumerate(self._rows)] if self._cache else []
        together = sorted([*known, *((row, row.past) for row in rows)], key=lambda pair: pair[0].slot or "")
        self._rows = [row for row, _ in together]  # rows of one adapter next to each other: they are computed at once
        self._rebuild([past for _, past in together])

    def _leave(self) -> None:
        """Take out the rows that are done or stopped; what they said may be the beginning of the next turn."""
        if not any(row.done or row.stopped() for row in self._rows):
            return
        assert self._cache is not None
        staying = []
        for number, row in enumerate(self._rows):
            past = self._cache.past(number)
            if row.done or row.stopped():
                self.prefixes.keep(row.slot, row.said, past)
            else:
                staying.append((row, past))
        self._rows = [row for row, _ in staying]
        with self._failing(self._rows):
            self._rebuild([past for _, past in staying])

    def _rebuild(self, pasts: Sequence[Past]) -> None:
        layers = len(self._language.layers)
        self._cache = RowsCache.of(pasts, layers=layers, headroom=HEADROOM) if pasts else None


def _as_sentence(error: BaseException, rows: int, device: torch.device) -> BaseException:
    if not isinstance(error, torch.OutOfMemoryError):
        return error
    sentence = ModelError(
        f"The memory of {device} was too small for {rows} answers at once. Ask fewer models, or with fewer images."
    )
    sentence.__cause__ = error
    return sentence
