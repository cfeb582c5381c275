"""What `generate` calls at every decoding step: hand out the text of each row, and ask whether to stop.

The one surprising fact: transformers' own streamers refuse more than one row, and an exception raised in a streamer
leaves PEFT's hooks behind. So rows are kept apart here, and stopping is a `StoppingCriteria`, never an exception.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

PUBLISH_INTERVAL = 0.05  # seconds between two updates: pages that show them cannot take many more


class RowStreamer(BaseStreamer):
    """Collects the tokens of each row up to its end-of-turn token and publishes all rows' texts so far.

    The first token is published at once, then at most one update in `PUBLISH_INTERVAL`. `texts()` is the last word:
    nothing is published when the batch ends.
    """

    def __init__(
        self,
        rows: int,
        tokenizer: PreTrainedTokenizerBase,
        end_tokens: frozenset[int],
        publish: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._tokens: list[list[int]] = [[] for _ in range(rows)]
        self._finished = [False] * rows
        self._tokenizer = tokenizer
        self._end_tokens = end_tokens
        self._publish = publish
        self._published_at = float("-inf")

    def put(self, value: torch.Tensor) -> None:
        """Take the prompts, [rows, length], which are dropped, or the next token of every row, [rows]."""
        if value.ndim == 2:
            return
        for row, token in enumerate(value.tolist()):
            if self._finished[row]:
                continue  # generate pads the rows that have ended
            if token in self._end_tokens:
                self._finished[row] = True
            else:
                self._tokens[row].append(token)
        now = time.monotonic()
        if now - self._published_at >= PUBLISH_INTERVAL:
            self._published_at = now
            self._publish(self.texts())

    def end(self) -> None:
        """Nothing to do: whoever called generate asks for `texts()`."""

    def texts(self) -> tuple[str, ...]:
        """The text of every row so far, without a character of which only some bytes have come."""
        return tuple(self._text(tokens) for tokens in self._tokens)

    def _text(self, tokens: list[int]) -> str:
        text = str(self._tokenizer.decode(tokens, skip_special_tokens=True))
        return text.rstrip("\ufffd")  # a multi-byte character decodes to this until its last byte is there


class StopWhen(StoppingCriteria):
    """Ends all rows after the step in which `stopped()` has become true."""

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: torch.LongTensor, scores: tuple[torch.Tensor] | None, **_: object) -> Any:
        """Whether each row is to end: bool [rows]."""
        return torch.full((input_ids.shape[0],), self._stopped(), dtype=torch.bool, device=input_ids.device)
