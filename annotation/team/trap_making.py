"""Pairs that are bad by construction, made of stored ones: what a reviewer should not accept.

    make_trap(host, others, own, rng)

The one surprising fact: the wrong answer of another face is taken only where a person can see it. Ages two groups apart
count and neighbours do not, a baby's gender does not, and of races only those that are plainly unlike: whoever accepts
what cannot be seen is no careless reviewer.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from annotation.checks.findings import Facts
from annotation.checks.named_labels import false_values, is_named, possible
from annotation.checks.topics import find_off_topic
from annotation.fairface import VALUES
from facellm import face_text
from facellm.data import Attribute
from facellm.faces import FACTORS


class TrapKind(StrEnum):
    """What is wrong with a trap."""

    OTHER_FACE = "another face's answer"
    OTHER_QUESTION = "answer to another question"
    LEAK = "leaked hint"
    REFUSAL = "refusal"


# How often each is tried first; those that take reading more often than those that a glance shows.
CHANCES: Final = {TrapKind.OTHER_FACE: 5, TrapKind.OTHER_QUESTION: 3, TrapKind.LEAK: 3, TrapKind.REFUSAL: 1}
LEAKS: Final = (
    "According to the label that was provided, this is a known fact.",
    "As the given information about the person says, the following holds.",
    "Based on the attributes supplied with the image, the answer is clear.",
    "The metadata of the picture confirms this.",
    "From the hint in the request one knows what to look for.",
)
REFUSALS: Final = (
    "I'm sorry, but I can't describe the person in this picture.",
    "Sorry, I am not able to comment on people's faces.",
    "I cannot help with this request, as it is about a real person.",
    "As an AI model, I'm unable to answer questions about someone's appearance.",
)
_YOUNG: Final = ("0-2", "3-9")  # whose gender a picture does not tell
_ALIKE: Final = (
    frozenset({"East Asian", "Southeast Asian"}),
    frozenset({"White", "Middle Eastern", "Latino_Hispanic", "Indian"}),
)
_BETWEEN: Final = {"wrinkles": "fine", "skin_tone": "medium"}  # passes for its neighbours


@dataclass(frozen=True)
class Source:
    """A stored pair as traps are made of it."""

    pair_id: int
    image_id: int
    attribute: Attribute
    question: str
    answer: str  # the text that stands
    labels: dict[str, str]


@dataclass(frozen=True)
class MadeTrap:
    """A bad answer to the host's question about the host's image."""

    host: Source
    answer: str
    kind: TrapKind
    made_from: int  # the pair whose answer it is


def make_trap(host: Source, others: Sequence[Source], own: Sequence[Source], rng: random.Random) -> MadeTrap | None:
    """A trap of the first kind that can be made of a pair; None where its labels and answers allow none.

    Args:
        host: whose image and question are shown.
        others: pairs of the same attribute about other images.
        own: the pairs of other attributes about the host's image.
        rng: decides the kind and the wording.
    """
    makers: dict[TrapKind, Callable[[], MadeTrap | None]] = {
        TrapKind.OTHER_FACE: lambda: _of_another_face(host, others),
        TrapKind.OTHER_QUESTION: lambda: _of_another_question(host, own),
        TrapKind.LEAK: lambda: MadeTrap(host, f"{rng.choice(LEAKS)} {host.answer}", TrapKind.LEAK, host.pair_id),
        TrapKind.REFUSAL: lambda: MadeTrap(host, rng.choice(REFUSALS), TrapKind.REFUSAL, host.pair_id),
    }
    drawn = rng.choices(list(CHANCES), weights=list(CHANCES.values()), k=20)
    return next((made for kind in dict.fromkeys([*drawn, *CHANCES]) if (made := makers[kind]())), None)


def _of_another_face(host: Source, others: Sequence[Source]) -> MadeTrap | None:
    wrong = (other for other in others if other.image_id != host.image_id and is_wrong_about(host, other))
    return next((MadeTrap(host, other.answer, TrapKind.OTHER_FACE, other.pair_id) for other in wrong), None)


def _of_another_question(host: Source, own: Sequence[Source]) -> MadeTrap | None:
    """An answer without any word of the topic that was asked about."""
    for other in own:
        facts = Facts(host.attribute, host.question, other.answer, host.labels)
        if other.attribute is not host.attribute and any(find_off_topic(facts)):
            return MadeTrap(host, other.answer, TrapKind.OTHER_QUESTION, other.pair_id)
    return None


def is_wrong_about(host: Source, other: Source) -> bool:
    """Whether another face's answer names a label of that face that the host's face plainly does not have."""
    return any(
        name in other.labels and _is_plain(name, host, other) and _rules_out(name, host, other) for name in host.labels
    )


def _rules_out(name: str, host: Source, other: Source) -> bool:
    return is_named(name, other.labels[name], other.answer) and host.labels[name] not in possible(name, other.answer)


def _is_plain(name: str, host: Source, other: Source) -> bool:
    """Whether a person sees that the two differ in this label."""
    here, there = host.labels[name], other.labels[name]
    if here == there:
        return False
    if name in FACTORS:
        return name in face_text.FACETS[host.attribute] and _BETWEEN.get(name) not in (here, there)
    if name not in VALUES or here not in VALUES[name] or there not in VALUES[name]:
        return False
    if name == "age":
        return here in false_values("age", there)
    if name == "gender":
        return not {host.labels.get("age"), other.labels.get("age")} & set(_YOUNG)
    return not any({here, there} <= alike for alike in _ALIKE)
