"""Which parts of a text are denied or only compared with, so that they claim nothing.

    denied_spans("not a boy, but a man who looks younger than fifty")    covers "a boy" and "fifty"

The one surprising fact: "looks like a woman" claims, "like a woman" compares; the verb before "like" decides.
"""

import re
from typing import Final, TypeAlias

Span: TypeAlias = tuple[int, int]

# What a denial reaches: a clause, or a list that goes on with "or" or "nor".
_STOPS: Final = r"and|but|with|while|although|though|yet|only|just|which|who|whose|that|he|she"
_REACH: Final = rf"((?:(?!\b(?:{_STOPS})\b)[^.;:!?,\n]|,(?=[^.;:!?,]*\bn?or\b))*)"
_NEGATORS: Final = (
    r"no(?! (?:surprise|doubt|question|wonder)\b)",
    r"not(?! (?:only|just|surprising)\b)",
    r"cannot",
    r"\w+n['’]t",
    r"without|neither|nor|never|nothing|nobody|none|hardly|scarcely|free of|instead of|rather than",
    r"as opposed to|too (?:young|old) (?:to be(?: called)?|for)",
)
_DENIAL: Final = re.compile(rf"\b(?:{'|'.join(_NEGATORS)})\b{_REACH}", re.IGNORECASE)

# What is compared with is no claim about this person.
_COMPARISONS: Final = (
    r"unlike|than|compared (?:to|with)|in contrast to|as if|as though|reminiscent of|similar to|those of|that of",
    r"(?:be |been )?(?:mistaken|taken|confused|pass(?:es|ed)?) (?:for|with)|think of|remind\w* (?:\w+ )?of",
    r"(?<!look )(?<!looks )(?<!looked )(?<!looking )(?<!seem )(?<!seems )(?<!appear )(?<!appears )(?<!rather )"
    r"(?<!more )(?<!but )(?<!feels )(?<!features )(?<!details )(?<!something )like(?= (?:an?|the|most|in|on)\b)",
    r"as \w+ as",
)
_COMPARISON: Final = re.compile(rf"\b(?:{'|'.join(_COMPARISONS)})\b{_REACH}", re.IGNORECASE)

_FAR: Final = re.compile(rf"\b(?:far from|anything but)\b{_REACH}", re.IGNORECASE)

# Said after what it denies: "deep lines are nowhere to be seen".
_AFTERWARDS: Final = re.compile(
    r"\b(?:nowhere to be (?:seen|found)|(?:is|are) (?:absent|missing)|cannot be (?:seen|made out))", re.IGNORECASE
)
_CLAUSE_END: Final = re.compile(r"[.;:!?,\n]")


def denied_spans(text: str, *, comparisons_only: bool = False) -> list[Span]:
    """Where the text denies something or compares with it: character ranges, which may overlap.

    Args:
        text: an answer.
        comparisons_only: leave out what "no", "not" and their like deny.
    """
    patterns = (_COMPARISON, _FAR) if comparisons_only else (_DENIAL, _COMPARISON, _FAR)
    spans = [match.span(1) for pattern in patterns for match in pattern.finditer(text)]
    for match in _AFTERWARDS.finditer(text):
        ends = [end.end() for end in _CLAUSE_END.finditer(text, 0, match.start())]
        spans.append((ends[-1] if ends else 0, match.start()))
    return spans


def is_within(position: int, spans: list[Span]) -> bool:
    """Whether a character lies in one of the spans."""
    return any(start <= position < end for start, end in spans)
