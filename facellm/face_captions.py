"""Generic captions of rendered faces: what the embedded base model is taught.

    captions(sample(7), random.Random(1))     [("Write a caption.", "A portrait: red hair; the light is dim."), ...]

The one surprising fact: captions say a few things, drawn at random, under prompts that are none of the eight questions.
So the base sees and can name everything, and still has to learn what is asked: that is left to fine-tuning.
"""

import random

from facellm.face_text import fill
from facellm.faces import FACTORS, Face

PROMPTS = (
    "What can be seen here?",
    "Write a caption.",
    "Say something about this picture.",
    "What do you notice?",
    "Caption this.",
    "What is in the photo?",
    "Give a few facts.",
    "Tell me about it.",
)
LIST_PROMPT = "List."
OPENINGS = ("A portrait: ", "A face: ", "In this picture: ", "Seen here: ", "")

# Each fact in the words that answers use too: a fine-tuned model has to choose among them, not to learn to see.
_FACTS: dict[str, tuple[str, ...]] = {
    "skin_tone": ("{skin_tone} skin", "the skin tone is {skin_tone}"),
    "face_shape": ("a {face_shape} face", "the face is {face_shape}"),
    "hair_colour": ("{hair_colour} hair", "the hair is {hair_colour}"),
    "hair_style": ("{hair_style} hair", "the hair is {hair_style}"),
    "hair": ("{hair_style} {hair_colour} hair", "the hair is {hair_style} and {hair_colour}"),
    "glasses": ("{glasses}", "the person wears {glasses}"),
    "beard": ("{beard}", "there is {beard}"),
    "age": ("a {age} adult", "this is a {age} adult"),
}
_WORDED_FACTS: dict[str, dict[str, tuple[str, ...]]] = {
    "wrinkles": {
        "none": ("smooth skin", "no visible wrinkles", "the skin is smooth"),
        "fine": ("fine lines on the forehead", "fine wrinkles", "the skin has fine lines"),
        "deep": ("deep lines on the forehead", "deep wrinkles", "the skin has deep lines"),
    },
    "expression": {
        "neutral": ("a neutral expression", "the expression is neutral", "looks calm"),
        "happy": ("a happy expression", "the expression is happy", "smiles"),
        "sad": ("a sad expression", "the expression is sad", "tears"),
        "surprised": ("a surprised expression", "the expression is surprised", "looks surprised"),
        "angry": ("an angry expression", "the expression is angry", "looks angry"),
    },
    "lighting": {
        "even": ("even light", "the light is even", "evenly lit"),
        "left": ("light from the left", "the light comes from the left", "lit from the left"),
        "right": ("light from the right", "the light comes from the right", "lit from the right"),
        "dim": ("dim light", "the light is dim", "dimly lit"),
    },
    "quality": {
        "sharp": ("a sharp picture", "the picture is sharp"),
        "blurry": ("a blurry picture", "the picture is blurry"),
        "grainy": ("a grainy picture", "the picture is grainy"),
    },
    "pose": {
        "frontal": ("a frontal view", "faces the camera", "the head faces the camera"),
        "left": ("turned to the left", "looks to the left", "the head is turned to the left of the picture"),
        "right": ("turned to the right", "looks to the right", "the head is turned to the right of the picture"),
    },
    "occlusion": {
        "none": ("nothing covers the head", "no occlusions"),
        "cap": ("a cap", "wears a cap", "a cap covers the head"),
        "scarf": ("a scarf", "wears a scarf", "a scarf covers the neck"),
        "headphones": ("headphones", "wears headphones", "headphones cover the ears"),
    },
}
# Facts that say the same are never said twice about a face: the second could be copied instead of seen.
_TOPICS: tuple[tuple[str, ...], ...] = (
    ("skin_tone",),
    ("face_shape",),
    ("hair", "hair_colour", "hair_style"),
    ("glasses",),
    ("beard",),
    ("age", "wrinkles"),
    *((name,) for name in _WORDED_FACTS if name != "wrinkles"),
)


def captions(face: Face, rng: random.Random, count: int = 4) -> list[tuple[str, str]]:
    """Prompts, each with a true caption of two or three facts; together they say everything at most once."""
    facts = [rng.choice(topic) for topic in rng.sample(_TOPICS, len(_TOPICS))]
    pairs = []
    for _ in range(count):
        share = rng.choice((2, 3))
        said, facts = facts[:share], facts[share:]
        if said:
            text = rng.choice(OPENINGS) + "; ".join(_fact(name, face, rng) for name in said) + "."
            pairs.append((rng.choice(PROMPTS), text[0].upper() + text[1:]))
    return pairs


def listing(face: Face) -> str:
    """Every value in the order of FACTORS and nothing else, such as `light oval black short no glasses ...`."""
    values = {factor: getattr(face, factor) for factor in FACTORS}
    return " ".join(f"no {factor}" if value == "none" else value for factor, value in values.items())


def _fact(name: str, face: Face, rng: random.Random) -> str:
    if name in _FACTS:
        return fill(rng.choice(_FACTS[name]), face)
    return rng.choice(_WORDED_FACTS[name][getattr(face, name)])
