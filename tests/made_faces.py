"""Faces with groups and curated pairs, as the tests of what leaves the studio need them."""

import io
from collections.abc import Iterator, Sequence
from uuid import UUID, uuid4

from PIL import Image

from annotation.fairface import AGES, GENDERS, RACES
from annotation.models import Action, ImageInput, PairInput, PastDecision
from annotation.store import Store
from facellm.data import Attribute


def face(
    store: Store,
    number: int,
    *,
    attributes: Sequence[Attribute | None] = tuple(Attribute),
    action: Action | None = Action.ACCEPT,
    text: str | None = None,
    source: str = "fairface",
    question: str | None = None,
    answer: str = "An answer, “quoted”, about face {number} and {topic}.",
) -> ImageInput:
    """A picture of its own with the groups of its number, and pairs that are all decided alike (None: not decided)."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(
        out, "BMP"
    )  # no compression: the same bytes from every Pillow
    sha256, path = store.put_image(out.getvalue(), ".bmp")
    pairs = [
        PairInput(
            attribute=attribute,
            question=question or (attribute.question if attribute else "Is this a face?"),
            answer=answer.format(number=number, topic=attribute.topic if attribute else "a question"),
            teacher="gpt-4o-2024-11-20",
            prompt_version="1",
            decision=action and PastDecision(uuid=uuid4(), reviewer="ana", action=action, text=text),
        )
        for attribute in attributes
    ]
    return ImageInput(
        sha256=sha256,
        path=path,
        width=8,
        height=8,
        bytes=len(out.getvalue()),
        source=f"{source}:{number}",
        labels={
            "race": RACES[number % len(RACES)],
            "gender": GENDERS[number % 2],
            "age": AGES[number % len(AGES)],
        },
        label_source="fairface",
        pairs=tuple(pairs),
    )


def hashes(count: int) -> Iterator[str]:
    """Different SHA-256, as images have them."""
    return (f"{UUID(int=number).hex}{number:032x}" for number in range(count))
