"""Which value of a label an answer names: FairFace's age, gender and race, and the factors of rendered faces.

    possible("gender", "She wears a hat.")            {"Female"}
    possible("gender", "The light is even.")          {"Male", "Female"}: it says nothing of it

The one surprising fact: what an answer names is found by what it rules out. "In her late twenties" rules out most ages
and leaves two, and a text that rules out nothing is silent.
"""

from functools import lru_cache
from typing import Final

from annotation.checks.contradictions import find_contradictions
from annotation.checks.findings import Facts
from annotation.fairface import AGES, VALUES
from facellm import face_text
from facellm.faces import FACTORS

LABEL_VALUES: Final[dict[str, tuple[str, ...]]] = {**VALUES, **FACTORS}
_FAR: Final = (2, 4)  # age groups between a true age and a false one: a neighbour may pass for true


def possible(name: str, text: str) -> frozenset[str]:
    """The values of a label that a text leaves possible: all where it is silent, none where it contradicts itself.

    Args:
        name: a key of LABEL_VALUES.
        text: an answer.
    """
    if name in FACTORS:
        return frozenset(face_text.named(name, text) or FACTORS[name])
    return frozenset(value for value in VALUES[name] if not _is_ruled_out(name, value, text))


def is_named(name: str, value: str, text: str) -> bool:
    """Whether a text says something of a label, and this value fits it."""
    if name in FACTORS:
        return value in face_text.named(name, text)
    others = (other for other in VALUES[name] if other != value)
    return not _is_ruled_out(name, value, text) and any(_is_ruled_out(name, other, text) for other in others)


def false_values(name: str, value: str) -> list[str]:
    """The values that may be told in the place of the true one, plainly different from it."""
    others = [other for other in LABEL_VALUES[name] if other != value]
    if name != "age":
        return others
    low, high = _FAR
    return [other for other in others if low <= abs(AGES.index(other) - AGES.index(value)) <= high]


@lru_cache(maxsize=50_000)  # a run asks several times about each stored answer, and each time takes milliseconds
def _is_ruled_out(name: str, value: str, text: str) -> bool:
    labels = {name: value}
    if name != "gender" and len(gender := possible("gender", text)) == 1:
        (labels["gender"],) = gender  # tells whom "her thirties" are about, and is itself not ruled out
    return any(find_contradictions(Facts(None, "", text, labels)))
