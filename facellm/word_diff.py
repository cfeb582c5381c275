"""Which words of an answer another answer does not have.

The one surprising fact: only words are marked, never what stands between them, so that Markdown around them (lists,
bold, line breaks) stays what it is.
"""

import re
from difflib import SequenceMatcher

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


def mark_differences(text: str, other: str, *, opening: str = "<mark>", closing: str = "</mark>") -> str:
    """The text with each run of words that the other has not, in this order, between the marks."""
    words = list(_WORD.finditer(text))
    known = [word.group().casefold() for word in _WORD.finditer(other)]
    matcher = SequenceMatcher(None, [word.group().casefold() for word in words], known, autojunk=False)
    parts, end = [], 0
    for kind, first, last, _, _ in matcher.get_opcodes():
        if kind in ("replace", "delete"):
            for word in words[first:last]:
                parts += [text[end : word.start()], opening, word.group(), closing]
                end = word.end()
    return "".join([*parts, text[end:]])
