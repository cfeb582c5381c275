"""What differs between two snapshots: pairs added, removed, and those whose text was changed.

    python -m annotation diff monday tuesday

Both files are read side by side in the order of their ids, one pair of each in memory. The one surprising fact: a pair
that was accepted in one and is edited in the other with the same text counts as the same.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from annotation.exports.snapshot_file import Row
from annotation.models import FREE_QUESTION

EXAMPLES = 5
_TOKEN = re.compile(r"\s+|\S+")


@dataclass(frozen=True)
class Change:
    """A pair with another text."""

    pair_id: int
    attribute: str
    before: str
    after: str

    @property
    def words(self) -> str:
        """The text with `[-words that went-]` and `{+words that came+}`."""
        return word_diff(self.before, self.after)


@dataclass
class Difference:
    """Counts of pairs by attribute, and the first few that changed."""

    added: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    same: Counter[str] = field(default_factory=Counter)
    examples: list[Change] = field(default_factory=list)


def compare(first: Iterator[Row], second: Iterator[Row], *, examples: int = EXAMPLES) -> Difference:
    """What the second snapshot has otherwise than the first; both in the order of their ids."""
    found = Difference()
    for before, after in _side_by_side(first, second):
        row = after or before
        assert row is not None  # noqa: S101 - one of them is a row
        attribute = row.attribute or FREE_QUESTION
        if before is None or after is None:
            (found.added if before is None else found.removed)[attribute] += 1
        elif (before.question, before.answer) == (after.question, after.answer):
            found.same[attribute] += 1
        else:
            found.changed[attribute] += 1
            if len(found.examples) < examples:
                found.examples.append(Change(row.pair_id, attribute, before.answer, after.answer))
    return found


def _side_by_side(first: Iterator[Row], second: Iterator[Row]) -> Iterator[tuple[Row | None, Row | None]]:
    """The pairs of both by id: (before, after), None where it has none."""
    before, after = next(first, None), next(second, None)
    while before is not None or after is not None:
        if after is None or (before is not None and before.pair_id < after.pair_id):
            yield before, None
            before = next(first, None)
        elif before is None or after.pair_id < before.pair_id:
            yield None, after
            after = next(second, None)
        else:
            yield before, after
            before, after = next(first, None), next(second, None)


def word_diff(before: str, after: str) -> str:
    """One text with the words that only the other one has marked, as `git diff --word-diff` does."""
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    parts: list[str] = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            parts += new[k:m]
            continue
        if gone := "".join(old[i:j]):
            parts.append(f"[-{gone}-]")
        if come := "".join(new[k:m]):
            parts.append(f"{{+{come}+}}")
    return "".join(parts)
