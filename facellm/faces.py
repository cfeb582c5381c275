"""Rendered cartoon faces whose attributes are known: what the embedded model is trained on and measured with.

    sample(7)                 the face number 7: one value for each factor, drawn independently
    render(sample(7), 448)    its picture

The one surprising fact: the factors are independent on purpose. Grey hair says nothing about wrinkles and long hair
nothing about beards, so a model that answers right has looked. Left and right are those of the picture.
"""

import random
from dataclasses import dataclass, fields

from PIL import Image

from facellm import face_drawing

# Seeds are set apart, so that no measured face was ever trained on.
EVALUATION_SEEDS = range(1_000_000, 2_000_000)  # `python -m facellm attributes`
SEEDED_SEEDS = range(2_000_000, 3_000_000)  # the data set of the first start
TRAINING_SEEDS = range(10_000_000, 20_000_000)  # the embedded model and its adapter

# Each factor with its values and how often each is drawn, the plainest value first.
_CHANCES: dict[str, dict[str, float]] = {
    "skin_tone": {"light": 1, "medium": 1, "dark": 1},
    "face_shape": {"oval": 1, "round": 1, "square": 1},
    "hair_colour": {"black": 1, "brown": 1, "blond": 1, "red": 1, "grey": 1},
    "hair_style": {"short": 1, "long": 1, "curly": 1},
    "glasses": {"none": 2, "glasses": 1, "sunglasses": 1},
    "beard": {"none": 2, "moustache": 1, "full": 1},
    "wrinkles": {"none": 1, "fine": 1, "deep": 1},
    "expression": {"neutral": 1, "happy": 1, "sad": 1, "surprised": 1, "angry": 1},
    "pose": {"frontal": 4, "left": 3, "right": 3},
    "lighting": {"even": 2, "left": 1, "right": 1, "dim": 1},
    "quality": {"sharp": 3, "blurry": 1, "grainy": 1},
    "occlusion": {"none": 2, "cap": 1, "scarf": 1, "headphones": 1},
}

FACTORS: dict[str, tuple[str, ...]] = {factor: tuple(chances) for factor, chances in _CHANCES.items()}


@dataclass(frozen=True)
class Face:
    """What is to be seen in one picture, a value of FACTORS each, and the seed of everything that is not named."""

    skin_tone: str
    face_shape: str
    hair_colour: str
    hair_style: str
    glasses: str
    beard: str
    wrinkles: str
    expression: str
    pose: str
    lighting: str
    quality: str
    occlusion: str
    seed: int

    def __post_init__(self) -> None:
        """Refuse a value that its factor does not have: a ValueError."""
        for factor, values in FACTORS.items():
            if getattr(self, factor) not in values:
                raise ValueError(f"{factor} is {getattr(self, factor)!r}; expected one of {', '.join(values)}.")

    def labels(self) -> dict[str, str]:
        """Factor → value, without the seed."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "seed"}


def sample(seed: int) -> Face:
    """The face of a seed; the same seed gives the same face and, rendered, the same pixels."""
    rng = random.Random(f"face {seed}")
    values = {
        factor: rng.choices(list(chances), weights=list(chances.values()))[0] for factor, chances in _CHANCES.items()
    }
    return Face(**values, seed=seed)


def render(face: Face, size: int = 256) -> Image.Image:
    """Draw a face: RGB, size×size pixels. Every factor is still visible at 64 pixels, nothing asked is hidden."""
    return face_drawing.draw(face.labels(), face.seed, size)
