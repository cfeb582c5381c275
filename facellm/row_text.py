"""The text of one answer while its tokens come in.

The one surprising fact: a byte-level token may end in the middle of a character, so the text so far leaves out a
character until its last byte has come.
"""

from transformers import PreTrainedTokenizerBase


class RowText:
    """Collects tokens up to one that ends the answer, or up to a limit.

    Args:
        limit: tokens, at least 1.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_tokens: frozenset[int], limit: int) -> None:
        self.tokens: list[int] = []  # without the one that ended it
        self.ended = False
        self._tokenizer = tokenizer
        self._end_tokens = end_tokens
        self._limit = limit
        self._decoded = (0, "")  # of how many tokens, and what they say

    def put(self, token: int) -> None:
        """Take the next token."""
        if token in self._end_tokens:
            self.ended = True
            return
        self.tokens.append(token)
        self.ended = len(self.tokens) >= self._limit

    def __str__(self) -> str:
        if self._decoded[0] != len(self.tokens):
            text = str(self._tokenizer.decode(self.tokens, skip_special_tokens=True))
            self._decoded = len(self.tokens), text.rstrip("\ufffd")  # an unfinished character decodes to this
        return self._decoded[1]
