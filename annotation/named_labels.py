"""Which value of a label an answer names: FairFace's age, gender and race, and the factors of rendered faces.

    possible("gender", "She wears a hat.")            {"Female"}
    possible("gender", "The light is even.")          {"Male", "Female"}: it says nothing of it

The one surprising fact: what an answer names is found by what it rules out. "In her late twenties" rules out most ages
and leaves two, and a text that rules out nothing is silent.
"""

from typing import Final

from annotation.contradictions import find_contradictions
from annotation.fairface import AGES, VALUES
from annotation.findings import Facts
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
    known = {}
    if name != "gender" and len(gender := possible("gender", text)) == 1:
        (known["gender"],) = gender  # tells whom "her thirties" are about
    return frozenset(value for value in VALUES[name] if not _is_ruled_out(known | {name: value}, text))


def is_named(name: str, value: str, text: str) -> bool:
    """Whether a text says something of a label, and this value fits it."""
    left = possible(name, text)
    return value in left and len(left) < len(LABEL_VALUES[name])


def false_values(name: str, value: str) -> list[str]:
    """The values that may be told in the place of the true one, plainly different from it."""
    others = [other for other in LABEL_VALUES[name] if other != value]
    if name != "age":
        return others
    low, high = _FAR
    return [other for other in others if low <= abs(AGES.index(other) - AGES.index(value)) <= high]


def _is_ruled_out(labels: dict[str, str], text: str) -> bool:
    return any(find_contradictions(Facts(None, "", text, labels)))
