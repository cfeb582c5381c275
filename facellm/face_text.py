"""Sentences about rendered faces: what a perfect teacher answers, and whether an answer is right.

    answer(face, Attribute.POSE, random.Random(1))         "The head is turned to the left of the picture."
    is_right(face, Attribute.POSE, "She looks left.")      True if the face is turned left

The one surprising fact: an answer is right by what it names, not by its wording: the right value of every facet of its
attribute, and no other value of those facets.
"""

import random
import re

from facellm.data import Attribute
from facellm.face_lexicon import named
from facellm.faces import Face

__all__ = ["FACETS", "answer", "is_right", "named"]

# What an attribute's answer is about. Age is never more than what wrinkles show.
FACETS: dict[Attribute, tuple[str, ...]] = {
    Attribute.DEMOGRAPHIC: ("skin_tone", "wrinkles"),
    Attribute.STRUCTURE: ("face_shape", "beard"),
    Attribute.SKIN: ("wrinkles",),
    Attribute.EXPRESSION: ("expression",),
    Attribute.LIGHTING: ("lighting", "quality"),
    Attribute.POSE: ("pose",),
    Attribute.FORENSIC: ("occlusion",),
    Attribute.DETAIL: ("hair_colour", "hair_style", "glasses"),
}

# Names of values inside the templates. "{age}" and "{skin}" are two ways to say what wrinkles show.
_WORDS: dict[str, dict[str, str]] = {
    "age": {"none": "younger", "fine": "middle-aged", "deep": "older"},
    "beard": {"none": "no beard or moustache", "moustache": "a moustache", "full": "a full beard"},
    "glasses": {"none": "no glasses", "glasses": "glasses", "sunglasses": "sunglasses"},
}

_TEMPLATES: dict[Attribute, tuple[str, ...]] = {
    Attribute.DEMOGRAPHIC: (
        "The person looks like a {age} adult with {skin_tone} skin.",
        "This is a {age} adult. The skin tone is {skin_tone}.",
        "The skin is {skin_tone}, and by the lines of the face this is a {age} adult.",
        "A {age} adult with a {skin_tone} skin tone is shown.",
    ),
    Attribute.STRUCTURE: (
        "The face is {face_shape}, with {beard}.",
        "This is a {face_shape} face with {beard}.",
        "The shape of the face is {face_shape}. There is {beard}.",
        "The person has a {face_shape} face and {beard}.",
    ),
    Attribute.DETAIL: (
        "The person has {hair_style} {hair_colour} hair and wears {glasses}.",
        "The picture shows a person with {hair_style}, {hair_colour} hair and {glasses}.",
        "The hair is {hair_style} and {hair_colour}. The person wears {glasses}.",
    ),
}

# Attributes whose sentences differ from value to value: any sentence of each facet, one after another.
_SENTENCES: dict[str, dict[str, tuple[str, ...]]] = {
    "wrinkles": {
        "none": (
            "The skin is smooth, with no visible wrinkles.",
            "The skin looks smooth and clear, without any lines.",
            "There are no visible lines on the forehead or around the eyes.",
        ),
        "fine": (
            "Fine lines show on the forehead and around the eyes.",
            "The skin has fine lines, most of them on the forehead.",
            "There are fine wrinkles on the forehead and at the corners of the eyes.",
        ),
        "deep": (
            "Deep lines run across the forehead and around the mouth.",
            "The skin has deep wrinkles on the forehead and under the eyes.",
            "There are deep lines on the forehead and deep folds beside the mouth.",
        ),
    },
    "expression": {
        "neutral": (
            "The expression is neutral, with the mouth closed.",
            "The person looks calm; no strong emotion is shown.",
            "The face is relaxed and the expression is neutral.",
        ),
        "happy": (
            "The person looks happy and smiles broadly.",
            "The expression is happy, with a wide smile that shows the teeth.",
            "A broad smile shows happiness.",
        ),
        "sad": (
            "The person looks sad, with the corners of the mouth turned down.",
            "The expression is sad, and there are tears under the eyes.",
            "Tears and a mouth bent down show sadness.",
        ),
        "surprised": (
            "The person looks surprised, with the mouth wide open.",
            "The expression is one of surprise: raised brows and an open mouth.",
            "Raised brows and a round open mouth show surprise.",
        ),
        "angry": (
            "The person looks angry, with clenched teeth.",
            "The expression is angry: the brows are drawn down and the teeth are clenched.",
            "Lowered brows and clenched teeth show anger.",
        ),
    },
    "lighting": {
        "even": ("The light is even.", "The face is evenly lit.", "The lighting is even across the picture."),
        "left": (
            "The light comes from the left of the picture.",
            "The face is lit from the left.",
            "The lighting comes from the left side.",
        ),
        "right": (
            "The light comes from the right of the picture.",
            "The face is lit from the right.",
            "The lighting comes from the right side.",
        ),
        "dim": ("The light is dim.", "The face is dimly lit.", "The lighting is dim across the picture."),
    },
    "quality": {
        "sharp": ("The picture is sharp.", "The image quality is good and sharp.", "All details are sharp."),
        "blurry": ("The picture is blurry.", "The image quality is poor: it is blurry.", "All details are blurry."),
        "grainy": ("The picture is grainy.", "The image quality is poor: it is grainy.", "All details are grainy."),
    },
    "pose": {
        "frontal": (
            "The head faces the camera.",
            "This is a frontal view; the person looks straight at the camera.",
            "The face is seen from the front.",
        ),
        "left": (
            "The head is turned to the left of the picture.",
            "The person looks to the left of the picture.",
            "The face is turned left, and only one ear can be seen.",
        ),
        "right": (
            "The head is turned to the right of the picture.",
            "The person looks to the right of the picture.",
            "The face is turned right, and only one ear can be seen.",
        ),
    },
    "occlusion": {
        "none": (
            "Nothing covers the face or the head.",
            "There are no visible occlusions.",
            "The head is uncovered and nothing is in front of it.",
        ),
        "cap": (
            "A cap covers the top of the head.",
            "The person wears a cap, which hides part of the hair.",
            "Part of the forehead is covered by a cap.",
        ),
        "scarf": (
            "A scarf covers the neck.",
            "The person wears a scarf, which hides the neck.",
            "The neck is covered by a scarf.",
        ),
        "headphones": (
            "Headphones cover the ears.",
            "The person wears headphones, which hide the ears.",
            "The ears are covered by headphones.",
        ),
    },
}


def answer(face: Face, attribute: Attribute, rng: random.Random) -> str:
    """A true answer to the attribute's question, in one of several wordings: one or two sentences."""
    if attribute in _TEMPLATES:
        return fill(rng.choice(_TEMPLATES[attribute]), face)
    return " ".join(rng.choice(_SENTENCES[factor][getattr(face, factor)]) for factor in FACETS[attribute])


def fill(template: str, face: Face) -> str:
    """Replace `{factor}` and `{age}` by what the face shows, with the article that the next word needs."""
    words = face.labels() | {"age": _WORDS["age"][face.wrinkles]}
    words |= {factor: _WORDS[factor][words[factor]] for factor in ("beard", "glasses")}
    return re.sub(r"\b([Aa])(?= (?:older|oval)\b)", r"\1n", template.format_map(words))


def is_right(face: Face, attribute: Attribute, text: str) -> bool:
    """Whether a text names the right value of every facet of the attribute, and no other value of them."""
    return all(named(factor, text) == {getattr(face, factor)} for factor in FACETS[attribute])
