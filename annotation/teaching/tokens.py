"""How many tokens a text or a picture is billed as, without the provider's tokenizer.

    text_tokens("Write 60 to 120 words.")        9
    image_tokens("gpt-4o", 224, 224, "high")     255

The one surprising fact: for this program's own prompts no tokenizer is needed. Their words are common ones, a token
each in o200k_base; the few that are not are listed here, as measured, and what is left is an error of at most 3 %.
"""

import math
import re
from dataclasses import dataclass
from typing import Final

# The pieces into which o200k_base cuts English before it looks anything up: a word (with its 's), up to three digits,
# the space before them, punctuation with the line break after it, and other line breaks. Spaces belong to words.
_PIECES: Final = re.compile(r"\s*[\r\n]+| (?=\d)|[^\W\d_]+(?:'[a-z]+)?|\d{1,3}|[^\w\s]+[\r\n]*|_")
# Words of the prompts that are more than one token, and how many more.
_LONG_WORDS: Final = {
    "sharpness": 1,
    "cheekbones": 1,
    "evenness": 1,
    "retouching": 2,
    "splicing": 1,
    "occlusion": 1,
}


def text_tokens(text: str) -> int:
    """About how many o200k_base tokens a text of this program's prompts has."""
    return sum(1 + _LONG_WORDS.get(piece, 0) for piece in _PIECES.findall(text))


@dataclass(frozen=True)
class Tiles:
    """A picture billed by squares of 512 pixels: `base` at low detail, at high detail so much more for each square."""

    base: int
    tile: int

    def tokens(self, width: int, height: int, detail: str | None) -> int:
        """The tokens of a picture of so many pixels."""
        if detail == "low":
            return self.base
        # Fitted into 2048 × 2048, then to a short side of 768. It is not known that small pictures are made larger.
        scale = min(1, 2048 / max(width, height))
        scale = min(scale, 768 / min(width, height))
        return self.base + self.tile * math.prod(math.ceil(round(side * scale) / 512) for side in (width, height))


@dataclass(frozen=True)
class Patches:
    """A picture billed by squares of 32 pixels, a multiple of a token each, whatever the detail."""

    multiplier: float
    most: int = 1536  # patches; a larger picture is made smaller

    def tokens(self, width: int, height: int, detail: str | None) -> int:  # noqa: ARG002
        """The tokens of a picture of so many pixels."""
        patches = math.ceil(width / 32) * math.ceil(height / 32)
        return math.ceil(min(patches, self.most) * self.multiplier)


# By family, as OpenAI's guide to images and vision gave them (github.com/xn1cklas/tokenlens/issues/7 and others quote
# it); the last two from a third party (vision-squeezer 0.6.2), with their largest size unknown.
FAMILIES: Final[dict[str, Tiles | Patches]] = {
    "gpt-4o": Tiles(85, 170),
    "gpt-4o-mini": Tiles(2833, 5667),
    "gpt-4.1": Tiles(85, 170),
    "gpt-4.1-mini": Patches(1.62),
    "gpt-4.1-nano": Patches(2.46),
    "gpt-5": Tiles(70, 140),
    "gpt-5.1": Tiles(70, 140),
    "gpt-5-mini": Patches(1.62),
    "gpt-5-nano": Patches(2.46),
    "gpt-5.6": Patches(1.2),
    "gpt-6": Patches(1.2),
    "gpt-6.1": Patches(1.2),
}
OTHER_TILE: Final = 448  # pixels: the tile of InternVL, whose 256 tokens each stand for any model that is not known
OTHER_TOKENS: Final = 256
_OTHER_MOST: Final = 12  # tiles; from two on, a small picture of the whole comes along


def image_family(model: str) -> str | None:
    """The longest name in FAMILIES that the model's name begins with; None for models whose billing is not known."""
    fitting = [family for family in FAMILIES if model == family or model.startswith(f"{family}-")]
    return max(fitting, key=len, default=None)


def image_tokens(model: str, width: int, height: int, detail: str | None) -> int:
    """How many input tokens a picture is billed as.

    Args:
        model: the teacher's name. Of an unknown one it is assumed that it cuts pictures as InternVL does.
        width: in pixels.
        height: in pixels.
        detail: low, high, auto or None; the last two count as high, which is the dearer one.
    """
    family = image_family(model)
    if family is not None:
        return FAMILIES[family].tokens(width, height, detail)
    tiles = min(math.ceil(width / OTHER_TILE) * math.ceil(height / OTHER_TILE), _OTHER_MOST)
    return OTHER_TOKENS * (tiles + (tiles > 1))
