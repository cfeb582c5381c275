"""How well a model describes faces that it has never seen: python -m facellm attributes

Faces are rendered, so what they show is known. Each is asked the eight questions; an answer counts as right if it names
the right value of every facet of its attribute and no other value of them (`face_text.is_right`), however it is worded.

The one surprising fact: the base scores about 0 %, far below the 24 % of naming the commonest values blindly. It sees
well, but says what it likes instead of what is asked. The faces of a seed are the same for every model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from facellm.checkpoint import Quantization
from facellm.data import Attribute
from facellm.errors import DataError
from facellm.face_text import is_right
from facellm.faces import EVALUATION_SEEDS, render, sample
from facellm.model import ChatModel, Request, Sampling, Turn

Replies = Callable[[Sequence[tuple[Image.Image, str]]], Sequence[str]]

MOST_FACES = 10_000  # of one seed: as many evaluation seeds are set apart for each
FACES_AT_ONCE = 16  # rendered and asked together
LONGEST_ANSWER = 64  # tokens


@dataclass(frozen=True)
class Score:
    """How many answers were right, of how many."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        """The share that was right, 0–1."""
        return self.right / self.asked

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Wilson's interval of the share, 95 % by default; unlike ±2σ it stays within 0–1 and holds for few answers."""
        spread = z * z / self.asked
        middle = (self.share + spread / 2) / (1 + spread)
        half = z / (1 + spread) * math.sqrt((self.share * (1 - self.share) + spread / 4) / self.asked)
        return max(0.0, middle - half), min(1.0, middle + half)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; shares are of 1."""
        low, high = self.interval()
        return {"right": self.right, "asked": self.asked, "share": self.share, "low": low, "high": high}


@dataclass(frozen=True)
class Measured:
    """The score of each attribute, on so many faces of a seed."""

    count: int
    seed: int
    attributes: dict[Attribute, Score]

    @property
    def overall(self) -> Score:
        """All answers together."""
        scores = self.attributes.values()
        return Score(sum(score.right for score in scores), sum(score.asked for score in scores))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        attributes = {attribute.value: score.to_dict() for attribute, score in self.attributes.items()}
        return {"count": self.count, "seed": self.seed, "overall": self.overall.to_dict(), "attributes": attributes}

    def table(self) -> str:
        """A line for each attribute and one for all."""
        rows = [*((attribute.topic, score) for attribute, score in self.attributes.items()), ("overall", self.overall)]
        lines = [f"{'attribute':<28}{'right':>12}{'share':>9}   95 % interval"]
        for name, score in rows:
            low, high = score.interval()
            counts = f"{score.right}/{score.asked}"
            lines.append(f"{name:<28}{counts:>12}{score.share:>8.1%}   {low:.1%} – {high:.1%}")
        return "\n".join(lines)


def measure(replies: Replies, *, count: int = 200, seed: int = 0) -> Measured:
    """Ask for every attribute of `count` unseen faces.

    Args:
        replies: answers several (image, question) pairs, in their order.
        count: number of faces, 1 to 10,000.
        seed: which faces, 0 to 99; no two seeds share one.

    Raises:
        DataError: there are no such faces.
    """
    seeds = len(EVALUATION_SEEDS) // MOST_FACES
    if not (1 <= count <= MOST_FACES and 0 <= seed < seeds):
        raise DataError(
            f"There are no {count} unseen faces of seed {seed}. Ask for 1 to {MOST_FACES} faces of a seed from 0 to "
            f"{seeds - 1}."
        )
    right = dict.fromkeys(Attribute, 0)
    chosen = EVALUATION_SEEDS[seed * MOST_FACES :][:count]
    for first in range(0, count, FACES_AT_ONCE):
        faces = [sample(number) for number in chosen[first : first + FACES_AT_ONCE]]
        asked = [(face, image, attribute) for face in faces for image in (render(face),) for attribute in Attribute]
        answers = replies([(image, attribute.question) for _, image, attribute in asked])
        for (face, _, attribute), text in zip(asked, answers, strict=True):
            right[attribute] += is_right(face, attribute, text)
    return Measured(count, seed, {attribute: Score(number, count) for attribute, number in right.items()})


def measure_model(
    checkpoint: str | Path, adapter: str | Path | None, *, device: Any = "auto", count: int = 200, seed: int = 0
) -> Measured:
    """`measure` for a checkpoint, with an adapter if one is given: greedy decoding, in batches.

    Raises:
        ModelError: the checkpoint or the adapter cannot be loaded.
    """
    return measure_beside(checkpoint, {"measured": adapter}, device=device, count=count, seed=seed)["measured"]


def measure_beside(
    checkpoint: str | Path,
    adapters: Mapping[str, str | Path | None],
    *,
    device: Any = "auto",
    count: int = 200,
    seed: int = 0,
    quantization: Quantization = "none",
    check: Callable[[], None] = lambda: None,
) -> dict[str, Measured]:
    """`measure` for several adapters on one copy of the base; None stands for the base alone.

    Args:
        quantization: of the base.
        check: called before each batch of questions; what it raises ends the work.

    Raises:
        ModelError: the checkpoint or an adapter cannot be loaded.
    """
    sampling = Sampling(max_new_tokens=LONGEST_ANSWER)
    with ChatModel.load(checkpoint, device=device, quantization=quantization) as model:

        def replies_of(name: str | None) -> Replies:
            def replies(pairs: Sequence[tuple[Image.Image, str]]) -> list[str]:
                check()
                return model.replies(
                    [Request((Turn("user", asked, (image,)),), name, sampling) for image, asked in pairs]
                )

            return replies

        for name, adapter in adapters.items():
            if adapter is not None:
                model.add_adapter(name, adapter)
        return {
            name: measure(replies_of(None if adapter is None else name), count=count, seed=seed)
            for name, adapter in adapters.items()
        }
