"""What a teacher is told: the system prompt, one prompt for each attribute, and one that asks about several at once.

    instruction(Attribute.POSE, labels)             the user's text beside one picture
    combined_instruction(tuple(Attribute), labels)  the same for all eight, answered as `answer_schema` says

Known labels go to the teacher as hints and never into the stored question, which is `Attribute.question`. The one
surprising fact: a teacher is told that it may decline, and how, because a refusal is an answer like any other here.
Whoever changes a text raises its version, which is part of every pair's identity; tests/test_prompts.py sees to it.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from annotation.fairface import VALUES, age_words, ethnicity, person
from facellm.data import Attribute
from facellm.face_text import FACETS
from facellm.faces import FACTORS

PROMPT_VERSION: Final = "single-1"  # of SYSTEM and instruction
COMBINED_VERSION: Final = "combined-1"  # of SYSTEM, combined_instruction and answer_schema

DECLINED: Final = "I decline to answer."  # what a teacher is asked to write when it does not want to answer

SYSTEM: Final = f"""\
You write descriptions of face pictures for a research data set about face understanding.

Study the picture before you write: the age, gender and ethnic background that the person seems to have; the shape \
and proportions of the face and its features; the skin; the expression; the light and the sharpness of the picture; \
where the head is turned and what covers parts of it; traces of editing or of synthesis.

Support every statement with something that can be seen, and say where the picture leaves room for doubt. Do not \
name, guess or hint at who the person is, and do not compare the person with anybody known.

Some requests list known labels. They are background for you alone: write as if you had only the picture, without a \
word about labels, hints or the request. Where the picture plainly shows something else, describe what it shows.

Write plain English prose: whole sentences, no lists, no headings, no markdown.

You are free not to answer. If you do not want to, reply with this sentence and nothing else: {DECLINED}"""

# How long an answer is asked to be, in words. Output is most of the bill.
ANSWER_WORDS: Final[dict[Attribute, tuple[int, int]]] = dict.fromkeys(Attribute, (60, 120)) | {
    Attribute.DETAIL: (90, 150)
}

_ASKS: Final[dict[Attribute, str]] = {
    Attribute.DEMOGRAPHIC: (
        "Describe the demographic attributes of the person: which age group, gender and ethnic background the face "
        "suggests. Give the visible cues for each, such as skin, hair, facial hair, lines and proportions, and word "
        "them as impressions."
    ),
    Attribute.STRUCTURE: (
        "Describe the structure of the face: its outline, forehead, cheekbones, jaw and chin, and the form and "
        "spacing of brows, eyes, nose, lips and ears, with facial hair where there is any."
    ),
    Attribute.SKIN: (
        "Describe the skin: its tone and evenness, how smooth or rough it looks, lines and wrinkles, spots, scars or "
        "freckles, shine, and signs of make-up."
    ),
    Attribute.EXPRESSION: (
        "Describe the expression and the emotion that it conveys, if any: what brows, eyes, cheeks, mouth and jaw do, "
        "how strong the expression is, and what that suggests about the mood."
    ),
    Attribute.LIGHTING: (
        "Describe the light and the quality of the picture: where the light comes from, how hard and how bright it "
        "is, shadows and highlights, colours and contrast, sharpness, noise, compression and resolution."
    ),
    Attribute.POSE: (
        "Describe the pose of the head: whether and how far it is turned left or right, raised or lowered, or tilted "
        "to a side, as the viewer sees it; where the eyes look; and which parts of the face can be seen."
    ),
    Attribute.FORENSIC: (
        "Describe what matters for a forensic look at the picture: anything that covers or hides parts of the face, "
        "traces of retouching, splicing or synthesis or their absence, and how far crop, resolution and light limit "
        "such conclusions."
    ),
    Attribute.DETAIL: (
        "Describe the whole picture in detail: the person's face, hair, expression and the direction of the head, "
        "clothes, glasses and other things worn, the background, and the light."
    ),
}

# Values of rendered faces that say too little without their picture. The others are words of their own.
_FACTOR_WORDS: Final[dict[str, dict[str, str]]] = {
    "beard": {"full": "full beard"},
    "pose": {
        "frontal": "facing the camera",
        "left": "turned to the left of the picture",
        "right": "turned to the right of the picture",
    },
    "lighting": {"left": "from the left of the picture", "right": "from the right of the picture"},
}


def instruction(attribute: Attribute, labels: Mapping[str, str]) -> str:
    """The user's text that asks about one attribute of one picture.

    Args:
        attribute: what is asked.
        labels: known labels of the image by name, FairFace's or a rendered face's. A label that is missing, of another
            kind (`service_test`) or outside its value set is no hint; without any, nothing is said of labels.
    """
    write = "Write" if attribute is Attribute.DETAIL else "Keep to this topic and write"
    return f"{_ASKS[attribute]}\n{write} {_length(attribute)}.{_hint((attribute,), labels)}"


def combined_instruction(attributes: Collection[Attribute], labels: Mapping[str, str]) -> str:
    """The user's text that asks about several attributes of one picture at once; their order does not matter.

    Args:
        attributes: at least one.
        labels: as for `instruction`.
    """
    asks = "\n\n".join(f"{a.value} ({_length(a)}): {_ASKS[a]}" for a in _ordered(attributes))
    return (
        "Answer as one JSON object with the keys below. Under each key stands the answer to that topic alone, as "
        "prose that makes sense without the others. A topic that you do not want to answer gets this sentence, and "
        f"the rest is answered: {DECLINED}\n\n{asks}{_hint(attributes, labels)}"
    )


def answer_schema(attributes: Collection[Attribute]) -> dict[str, Any]:
    """The JSON schema of the answer to `combined_instruction`: a string for each attribute, under its value.

    It keeps the rules of OpenAI's strict structured outputs: every property is required and no other is allowed.
    """
    keys = [attribute.value for attribute in _ordered(attributes)]
    return {
        "type": "object",
        "properties": {key: {"type": "string"} for key in keys},
        "required": keys,
        "additionalProperties": False,
    }


def _ordered(attributes: Collection[Attribute]) -> list[Attribute]:
    return [attribute for attribute in Attribute if attribute in attributes]


def _length(attribute: Attribute) -> str:
    low, high = ANSWER_WORDS[attribute]
    return f"{low} to {high} words"


def _hint(attributes: Collection[Attribute], labels: Mapping[str, str]) -> str:
    known = _person_hints(labels) + _factor_hints(attributes, labels)
    return f"\n\nKnown labels: {'; '.join(known)}." if known else ""


def _person_hints(labels: Mapping[str, str]) -> list[str]:
    """What FairFace knows of the person. It belongs to every attribute: it decides which noun an answer uses."""
    age, gender, race = (
        labels[name] if labels.get(name) in VALUES[name] else None for name in ("age", "gender", "race")
    )
    hints = []
    if gender is not None and age is None:
        hints.append(f"person: {gender.lower()}")  # man or boy: only the age would tell
    elif gender is not None or age is not None:
        hints.append(f"person: {person(age, gender)}")
    if age is not None:
        hints.append(f"age: {age_words(age)}")
    if race is not None:
        hints.append(f"ethnicity: {ethnicity(race)}")
    return hints


def _factor_hints(attributes: Collection[Attribute], labels: Mapping[str, str]) -> list[str]:
    """What is known of a rendered face, as far as it belongs to the attributes; to a whole description all does."""
    wanted = {factor for attribute in attributes for factor in FACETS[attribute]}
    return [
        f"{factor.replace('_', ' ')}: {_FACTOR_WORDS.get(factor, {}).get(labels[factor], labels[factor])}"
        for factor, values in FACTORS.items()
        if (factor in wanted or Attribute.DETAIL in attributes) and labels.get(factor) in values
    ]
