"""What one drawing of a face is made with: palettes, the head's measures, and what the seed decides.

Used by `facellm.face_drawing` and its layers. The one surprising fact: brown hair is chestnut, since hair that is
nearly as dark as dark skin would leave a beard of it unseen at 64 pixels.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from facellm.face_canvas import Colour, Head, mix

SKINS: dict[str, tuple[Colour, Colour]] = {
    "light": ((255, 229, 210), (246, 205, 178)),
    "medium": ((222, 170, 126), (200, 144, 100)),
    "dark": ((124, 80, 60), (90, 58, 46)),
}
HAIRS: dict[str, tuple[Colour, Colour]] = {
    "black": ((32, 30, 38), (50, 44, 48)),
    "brown": ((156, 100, 56), (134, 84, 46)),
    "blond": ((240, 208, 136), (226, 188, 108)),
    "red": ((214, 84, 36), (190, 64, 30)),
    "grey": ((176, 180, 188), (156, 160, 170)),
}
BACKGROUNDS: tuple[Colour, ...] = (
    (205, 222, 235),
    (222, 214, 236),
    (212, 230, 214),
    (240, 222, 206),
    (236, 212, 214),
    (228, 228, 222),
    (196, 214, 214),
    (238, 230, 204),
)
CLOTHES: tuple[Colour, ...] = (
    (72, 98, 140),
    (92, 130, 112),
    (150, 82, 92),
    (96, 86, 136),
    (206, 148, 84),
    (84, 96, 108),
    (66, 124, 140),
    (214, 208, 198),
)
IRISES: tuple[Colour, ...] = ((86, 56, 36), (60, 94, 130), (74, 110, 80), (60, 44, 36), (104, 84, 50))
SHAPES: dict[str, tuple[float, float, float, float]] = {  # half width, half height, squareness, taper
    "oval": (21.5, 30.0, 2.1, 0.2),
    "round": (26.0, 26.5, 2.2, 0.0),
    "square": (23.5, 27.5, 4.2, 0.04),
}
TURNS = {"frontal": 0.0, "left": -36.0, "right": 36.0}  # degrees


@dataclass(frozen=True)
class Look:
    """Everything of one drawing: the labels, the head, and the colours and small choices that no label names."""

    labels: Mapping[str, str]
    head: Head
    skin: Colour
    ink: Colour  # of thin lines on the skin
    hair: Colour
    iris: Colour
    clothes: Colour
    background: Colour
    accent: Colour  # of caps, scarves and headphones
    parting: float  # degrees of longitude
    style: int  # which variant of the hair style, 0 or 1
    rng: random.Random

    @property
    def side(self) -> int:
        """-1 for a head turned to the picture's left, 1 for right, 0 for frontal."""
        return {"left": -1, "right": 1}.get(self.labels["pose"], 0)


def make_look(labels: Mapping[str, str], seed: int) -> Look:
    """Choose everything that the labels leave open."""
    rng = random.Random(f"look {seed}")
    width, height, squareness, taper = SHAPES[labels["face_shape"]]
    grow = rng.uniform(0.95, 1.05)
    turn = TURNS[labels["pose"]]
    head = Head(
        x=50 + rng.uniform(-2, 2) - turn / 18,
        y=49 + rng.uniform(-1.5, 1.5),
        width=width * grow,
        height=height * grow,
        squareness=squareness,
        taper=taper,
        turn=turn * rng.uniform(0.88, 1.15) + rng.uniform(-3, 3),
    )
    skin = mix(*SKINS[labels["skin_tone"]], rng.random())
    return Look(
        labels=labels,
        head=head,
        skin=skin,
        ink=mix(skin, (50, 18, 16), 0.62),
        hair=mix(*HAIRS[labels["hair_colour"]], rng.random()),
        iris=rng.choice(IRISES),
        clothes=rng.choice(CLOTHES),
        background=rng.choice(BACKGROUNDS),
        accent=rng.choice(CLOTHES[:-1]),
        parting=rng.choice((-1, 1)) * rng.uniform(12, 30),
        style=rng.randrange(2),
        rng=rng,
    )
