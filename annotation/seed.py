"""The data set of the first start: rendered faces, answers of a template teacher, and a demo reviewer's decisions.

    python -m annotation seed --faces 320

The template teacher makes about 15 % mistakes. Some are systematic, as a real teacher's are: it swaps left and right
on most turned heads, and sees age lines wherever hair is grey. What was planted is written to `seed_truth.jsonl`,
which nothing but tests and benchmarks reads. Everything about a face follows from its number, so seeding again, or
with more faces, adds only what is missing.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from uuid import NAMESPACE_URL, uuid5

from annotation.models import Action, ImageInput, PairInput, PastDecision, Reason
from annotation.rendering import IMAGE_SIZE, RenderedFace, render_faces
from annotation.store import Store
from facellm import face_text, faces
from facellm.config import Settings
from facellm.data import Attribute
from facellm.faces import Face

TEACHER = "template"
PROMPT_VERSION = "template-1"
REVIEWER = "demo"
TRUTH_FILE = "seed_truth.jsonl"
SYSTEMATIC = 0.8  # how often a systematic mistake is made where it can be
RANDOM = 0.08  # how often any other pair has a mistake; both together give about 15 % of all pairs
EDITED = 0.3  # of the mistakes that the demo reviewer meets
_MILLISECONDS = {Action.ACCEPT: 3500, Action.REJECT: 4200, Action.EDIT: 16_000}  # medians


T = TypeVar("T")


class Mistake(StrEnum):
    """The kinds of mistakes that are planted."""

    SWAPPED = "left and right swapped"
    AGED = "age lines from grey hair"
    OFF_TOPIC = "wrong attribute"
    CONTRADICTION = "contradiction with the labels"
    REFUSAL = "refusal"
    LEAK = "leaked hint"


RANDOM_MISTAKES = (Mistake.OFF_TOPIC, Mistake.CONTRADICTION, Mistake.CONTRADICTION, Mistake.REFUSAL, Mistake.LEAK)
REASONS = {
    Mistake.SWAPPED: Reason.CONTRADICTS,
    Mistake.AGED: Reason.CONTRADICTS,
    Mistake.OFF_TOPIC: Reason.WRONG,
    Mistake.CONTRADICTION: Reason.CONTRADICTS,
    Mistake.REFUSAL: Reason.REFUSAL,
    Mistake.LEAK: Reason.LEAK,
}
REFUSALS = (
    "I'm sorry, but I can't help with describing this person.",
    "I am not able to comment on the face of a person in an image.",
    "Sorry, this request is something that I cannot assist with.",
)
LEAKS = (
    "According to the provided label, the answer is as follows.",
    "Based on the information given with the image, this is known.",
    "We know from the given attributes what to look for.",
)


@dataclass(frozen=True)
class Draft:
    """What the template teacher answered, and what it should have."""

    answer: str
    right_answer: str
    mistake: Mistake | None


def open_seeded(settings: Settings) -> Store:
    """Open the store of the data directory; one without any image is given the seeded data set first."""
    store = Store.of(settings)
    if settings.seed_faces and store.is_empty():
        seed(store, settings.seed_faces)
    return store


def seed(store: Store, count: int) -> int:
    """Store the first `count` faces with their pairs, decisions and truth; return how many pairs were new.

    Everything enters the database in one transaction, flags too, so that a crash leaves it either seeded or as it was.
    Faces that are there already are not rendered again.
    """
    there = store.sources()
    missing = [number for number in range(count) if _source(number) not in there]
    images: list[ImageInput] = []
    truth: list[dict[str, Any]] = []
    for rendered in render_faces(store.data_dir, missing):
        drafts = _drafts(rendered.number)
        images.append(_image(rendered, drafts))
        truth.extend(_truth(rendered.sha256, attribute, made) for attribute, made in drafts.items())
    _add_truth(store.data_dir / TRUTH_FILE, truth)
    return store.ingest(images, check=True)


def draft(face: Face, attribute: Attribute, rng: random.Random) -> Draft:
    """The template teacher's answer to one question about a face."""
    right = face_text.answer(face, attribute, rng)
    mistake = _mistake(face, attribute, rng)
    return Draft(right if mistake is None else _mistaken(mistake, face, attribute, right, rng), right, mistake)


def _mistake(face: Face, attribute: Attribute, rng: random.Random) -> Mistake | None:
    systematic = rng.random() < SYSTEMATIC
    if attribute is Attribute.POSE and face.pose in ("left", "right") and systematic:
        return Mistake.SWAPPED
    if attribute is Attribute.SKIN and face.hair_colour == "grey" and face.wrinkles != "deep" and systematic:
        return Mistake.AGED
    return rng.choice(RANDOM_MISTAKES) if rng.random() < RANDOM else None


def _mistaken(mistake: Mistake, face: Face, attribute: Attribute, right: str, rng: random.Random) -> str:
    match mistake:
        case Mistake.SWAPPED:
            return face_text.answer(replace(face, pose={"left": "right", "right": "left"}[face.pose]), attribute, rng)
        case Mistake.AGED:
            return face_text.answer(replace(face, wrinkles="deep"), attribute, rng)
        case Mistake.OFF_TOPIC:
            others = [other for other in Attribute if other not in (attribute, Attribute.DETAIL)]
            return _first_wrong(face, attribute, (face_text.answer(face, other, rng) for other in _drawn(others, rng)))
        case Mistake.CONTRADICTION:
            return _first_wrong(face, attribute, _contradictions(face, attribute, rng))
        case Mistake.REFUSAL:
            return rng.choice(REFUSALS)
        case Mistake.LEAK:
            return f"{rng.choice(LEAKS)} {right}"


def _contradictions(face: Face, attribute: Attribute, rng: random.Random) -> Iterator[str]:
    """Answers about a face that differs from this one in one thing that the attribute is about."""
    for factor in _drawn(list(face_text.FACETS[attribute]), rng):
        values = [value for value in faces.FACTORS[factor] if value != face.labels()[factor]]
        changed = Face(**(face.labels() | {factor: rng.choice(values)}), seed=face.seed)
        yield face_text.answer(changed, attribute, rng)


def _first_wrong(face: Face, attribute: Attribute, answers: Iterator[str]) -> str:
    return next(text for text in answers if not face_text.is_right(face, attribute, text))


def _drawn(items: list[T], rng: random.Random) -> list[T]:
    return rng.sample(items, len(items))


def _face(number: int) -> Face:
    return faces.sample(faces.SEEDED_SEEDS[number])


def _source(number: int) -> str:
    return f"rendered:{faces.SEEDED_SEEDS[number]}"


def _drafts(number: int) -> dict[Attribute, Draft]:
    return {attribute: draft(_face(number), attribute, _rng(number, attribute)) for attribute in Attribute}


def _image(rendered: RenderedFace, drafts: dict[Attribute, Draft]) -> ImageInput:
    number = rendered.number
    reviewed = number % 3 != 2  # one face in three is left for the user
    return ImageInput(
        sha256=rendered.sha256,
        path=rendered.path,
        width=IMAGE_SIZE,
        height=IMAGE_SIZE,
        bytes=rendered.bytes,
        source=_source(number),
        labels=_face(number).labels(),
        label_source="renderer",
        pairs=tuple(_pair(number, attribute, made, reviewed) for attribute, made in drafts.items()),
    )


def _pair(number: int, attribute: Attribute, made: Draft, reviewed: bool) -> PairInput:
    return PairInput(
        attribute=attribute,
        question=attribute.question,
        answer=made.answer,
        teacher=TEACHER,
        prompt_version=PROMPT_VERSION,
        decision=_decision(number, attribute, made) if reviewed else None,
    )


def _decision(number: int, attribute: Attribute, made: Draft) -> PastDecision:
    """The demo reviewer decides by the truth: accepts what is right, corrects or rejects what is not."""
    rng = _rng(number, attribute, REVIEWER)
    action = Action.ACCEPT
    if made.mistake is not None:
        action = Action.EDIT if rng.random() < EDITED else Action.REJECT
    return PastDecision(
        uuid=uuid5(NAMESPACE_URL, f"facellm-studio/{PROMPT_VERSION}/{number}/{attribute.value}"),
        reviewer=REVIEWER,
        action=action,
        reason=REASONS[made.mistake] if made.mistake and action is Action.REJECT else None,
        text=made.right_answer if action is Action.EDIT else None,
        milliseconds=round(_MILLISECONDS[action] * rng.lognormvariate(0, 0.4)),
    )


def _truth(sha256: str, attribute: Attribute, made: Draft) -> dict[str, Any]:
    return {
        "image_sha256": sha256,
        "attribute": attribute.value,
        "mistake": made.mistake and made.mistake.value,
        "right_answer": made.right_answer,
    }


def _add_truth(path: Path, truth: list[dict[str, Any]]) -> None:
    """Add what is not there yet; a crash between this and the database leaves lines that are simply right."""
    lines = dict.fromkeys(path.read_text(encoding="utf-8").splitlines()) if path.exists() else {}
    lines |= dict.fromkeys(json.dumps(line, ensure_ascii=False) for line in truth)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    partial.replace(path)


def _rng(*parts: object) -> random.Random:
    return random.Random(" ".join(str(part) for part in ("seed", *parts)))
