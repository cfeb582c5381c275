"""What is asked of a model: turns, requests, sampling, and their form for the chat template.

Plain records without torch, shared by chat, evaluation and training. The one surprising fact: a text that spells a
special token, such as `<IMG_CONTEXT>`, would be read as that token by the tokenizer, so `as_plain_text` breaks it up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from PIL import Image

from facellm.errors import ModelError

LEAST_TEMPERATURE = 0.01


@dataclass(frozen=True)
class Turn:
    """One message: a question with the images it brings (RGB), or an answer."""

    role: Literal["user", "assistant"]
    text: str
    images: tuple[Image.Image, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn. Temperature 0 takes the likeliest token each time."""

    max_new_tokens: int = 160
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @classmethod
    def checked(cls, *, max_new_tokens: int, temperature: float, top_p: float, seed: int) -> Self:
        """Build from what a person chose.

        Raises:
            ModelError: a number is out of its bounds.
        """
        for name, value, low, high in (
            ("max_new_tokens", max_new_tokens, 1, 4096),
            ("temperature", temperature, 0, 2),
            ("top_p", top_p, 0.01, 1),
            ("seed", seed, 0, 2**32 - 1),
        ):
            if not low <= value <= high:
                raise ModelError(f"{name} is {value}; expected {low} to {high}. Correct it and ask again.")
        if 0 < temperature < LEAST_TEMPERATURE:  # words' scores divided by less would not be numbers
            raise ModelError(
                f"temperature is {temperature}; expected 0, or at least {LEAST_TEMPERATURE}. Correct it and ask again."
            )
        return cls(max_new_tokens, temperature, top_p, seed)


@dataclass(frozen=True)
class Request:
    """One answer to write: the conversation up to and with the question, who answers, and how."""

    conversation: tuple[Turn, ...]
    model: str | None = None  # an adapter's or another checkpoint's name; None: the base model without any adapter
    sampling: Sampling = Sampling()

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """All images of the conversation, in the order in which the model sees them."""
        return tuple(image for turn in self.conversation for image in turn.images)


def messages(conversation: Sequence[Turn]) -> list[dict[str, Any]]:
    """The conversation as a processor's `apply_chat_template` takes it: images before the text of their turn."""
    return [
        {
            "role": turn.role,
            "content": [
                *({"type": "image", "image": image} for image in turn.images),
                {"type": "text", "text": turn.text},
            ],
        }
        for turn in conversation
    ]


def as_plain_text(text: str, special_tokens: Iterable[str]) -> str:
    """The text with a space after the first character of every special token that it spells, so that none is left."""
    for token in special_tokens:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
