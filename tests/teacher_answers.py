"""What the teacher server reads in a chat request, and what it writes and bills: the same request, the same answer.

The surprising facts: an answer is as long as its prompt asks ("60 to 120 words"), on average a little over the middle,
as models do; and tokens are counted by a rule of its own, so that a client's estimate is measured against something
that it does not know.
"""

import base64
import binascii
import hashlib
import io
import json
import math
import random
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image, UnidentifiedImageError

DEFAULT_WORDS = (60, 120)  # of an answer whose prompt asks for no length
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
REFUSAL = "I'm sorry, but I can't help with that."
SAID_NO = "I'm sorry, but I can't help with identifying or describing people in pictures."

_SUBJECTS = "the brow|the left cheek|the jaw line|the upper lip|the skin near the nose|the hair|the chin|the background"
_VERBS = "looks|seems|appears|stays|is|reads as"
_QUALITIES = "even|soft|narrow|a little rough|bright on one side|well lit|slightly turned|round|relaxed|plain|sharp"
_TAILS = "in this light|from this angle|toward the edge|with few lines|at this size|as far as it can be seen"
_PARTS = tuple(words.split("|") for words in (_SUBJECTS, _VERBS, _QUALITIES, _TAILS))
_PIECES = re.compile(r"[^\W\d_]+|\d{1,3}|[^\w\s]+|\n+")
_STEMS = {  # how a prompt names an attribute
    name: re.compile(rf"\b{name.removesuffix('ing')}")
    for name in ("demographic", "structure", "skin", "expression", "lighting", "pose", "forensic", "detail")
}
_RANGE = re.compile(r"(\d+) to (\d+) words")


class BadRequestError(Exception):
    """A request that OpenAI answers with 400; `code` is its name for the mistake."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Asked:
    """What a chat request asks for."""

    key: str  # of its content: the same request again has the same
    model: str
    image: str  # SHA-256 of the first picture's bytes; empty without one
    image_tokens: int
    attributes: tuple[str, ...]  # that it is about; empty where nothing tells
    text: str  # of all messages
    ranges: tuple[tuple[int, int], ...]  # of words that it asks for
    schema: dict[str, Any] | None
    most_tokens: int | None


@dataclass(slots=True)
class Answer:
    """What is answered."""

    outcome: str
    content: str | None
    refusal: str | None = None
    finish_reason: str = "stop"
    tokens: int = 0  # of it, as they are billed


def chance(*parts: object) -> float:
    """A number from 0 to 1 that follows from the parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") / 2**64


@lru_cache(maxsize=4096)
def text_tokens(text: str) -> int:
    """A token for each word, another for every six letters beyond ten; three digits are one, as are signs in a row."""
    return sum(1 + max(0, math.ceil((len(piece) - 10) / 6)) for piece in _PIECES.findall(text))


def picture_tokens(data: bytes, detail: str, fixed: int | None) -> int:
    """As OpenAI's tile models bill a picture, without making small ones larger; or always the same."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError):
        said = "You uploaded an unsupported image. Please make sure your image has of one the following formats: "
        raise BadRequestError(said + "['png', 'jpeg', 'gif', 'webp'].", "invalid_image_format") from None
    if fixed is not None:
        return fixed
    if detail == "low":
        return 85
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    return 85 + 170 * math.ceil(width * scale / 512) * math.ceil(height * scale / 512)


def read(body: bytes, fixed_image_tokens: int | None) -> Asked:
    """Read a chat request as strictly as OpenAI does where clients go wrong.

    Raises:
        BadRequestError: it would be refused with 400.
    """
    try:
        return _asked(body, json.loads(body), fixed_image_tokens)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadRequestError("We could not parse the JSON body of your request.") from None


def _asked(body: bytes, told: dict[str, Any], fixed_image_tokens: int | None) -> Asked:
    if not told["messages"]:
        raise BadRequestError("Invalid 'messages': empty array.", "empty_array")
    texts: list[str] = []
    images: list[tuple[str, int]] = []
    for message in told["messages"]:
        content = message["content"]
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            if part["type"] == "text":
                texts.append(part["text"])
            elif part["type"] == "image_url":
                images.append(_picture(part["image_url"], fixed_image_tokens))
            else:
                raise BadRequestError(f"Invalid value: '{part['type']}'.", "invalid_value")
    schema = _schema(told.get("response_format"))
    text = "\n".join(texts)
    return Asked(
        key=hashlib.sha256(body).hexdigest()[:32],
        model=told["model"],
        image=images[0][0] if images else "",
        image_tokens=sum(tokens for _, tokens in images),
        attributes=tuple(schema["properties"]) if schema and "properties" in schema else _topics(texts),
        text=text,
        ranges=tuple((int(low), int(high)) for low, high in _RANGE.findall(text)),
        schema=schema,
        most_tokens=told.get("max_completion_tokens") or told.get("max_tokens"),
    )


def input_tokens(asked: Asked) -> int:
    """What the request is billed as: its texts, pictures and schema, and what is around a system and a user message."""
    schema = text_tokens(json.dumps(asked.schema)) if asked.schema else 0
    return sum(map(text_tokens, asked.text.split("\n"))) + asked.image_tokens + schema + 11


def write(asked: Asked, outcome: str, seed: int) -> Answer:
    """Answer a request with one of the OUTCOMES of teacher_behaviour."""
    whole = json.dumps(filled(asked.schema, asked, seed)) if asked.schema else _prose(asked, seed)
    answer = Answer(outcome, whole)
    if outcome == "refused":
        answer.content, answer.refusal = None, REFUSAL
    elif outcome == "said no":
        answer.content = SAID_NO
    elif outcome == "filtered":
        answer.content, answer.finish_reason = whole[: len(whole) // 8], "content_filter"
    elif outcome == "empty":
        answer.content = ""
    elif outcome == "invalid json":
        answer.content = whole[: len(whole) * 2 // 3]
    elif outcome == "bad attribute" and asked.schema:
        answer.content = json.dumps(_spoilt(json.loads(whole), asked, seed))
    tokens = text_tokens(answer.content or answer.refusal or "")
    most = asked.most_tokens
    if outcome == "cut" or (most is not None and tokens > most):
        tokens = most or tokens // 2  # an answer that runs on until it is stopped is billed to the last token
        answer.content, answer.finish_reason, answer.outcome = _cut(whole, tokens // 2), "length", "cut"
    answer.tokens = tokens
    return answer


def filled(schema: dict[str, Any], asked: Asked, seed: int, name: str = "") -> Any:
    """Something that fits a JSON schema; a string is prose, of the length that the prompt asks for."""
    if "enum" in schema:
        return random.Random(f"{seed}{asked.key}{name}").choice(schema["enum"])
    kind = schema.get("type", "string")
    if kind == "object":
        return {key: filled(inner, asked, seed, key) for key, inner in schema["properties"].items()}
    if kind == "array":
        return [filled(schema["items"], asked, seed, name)]
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", 1), schema.get("maximum", 5)
        return random.Random(f"{seed}{asked.key}{name}").randint(low, high)
    if kind == "boolean":
        return chance(seed, asked.key, name) < 0.5
    return _prose(asked, seed, name)


def _prose(asked: Asked, seed: int, name: str = "") -> str:
    """Sentences that follow from the picture and what is asked about it, and from nothing else."""
    about = name or " ".join(asked.attributes)
    number = asked.attributes.index(name) if name in asked.attributes else 0
    low, high = asked.ranges[number] if number < len(asked.ranges) else DEFAULT_WORDS
    rng = random.Random(f"{seed}{asked.image}{about or asked.key}")
    wanted = low + (high - low) * rng.uniform(0.2, 1.0)  # people and models fill what room they are given
    words = f"In picture {asked.image[:6] or asked.key[:6]} the {about or 'face'} can be told.".split(" ")
    while len(words) < wanted - 5:
        sentence = " ".join(rng.choice(part) for part in _PARTS)
        words += f"{sentence[0].upper()}{sentence[1:]}.".split(" ")
    return " ".join(words)


def _spoilt(found: dict[str, Any], asked: Asked, seed: int) -> dict[str, Any]:
    """One attribute is missing, empty, of another type or a refusal."""
    rng = random.Random(f"{seed}{asked.key}spoilt")
    name = rng.choice(sorted(found))
    how = rng.randrange(4)
    if how == 0:
        del found[name]
    else:
        found[name] = ("", None, SAID_NO)[how - 1]
    return found


def _cut(text: str, tokens: int) -> str:
    pieces = list(_PIECES.finditer(text))[:tokens]
    return text[: pieces[-1].end()] if pieces else ""


def _topics(texts: list[str]) -> tuple[str, ...]:
    """The attribute that a prompt in prose is about: the one that its last text names first."""
    last = texts[-1].lower() if texts else ""
    where = {name: found.start() for name, stem in _STEMS.items() if (found := stem.search(last))}
    return (min(where, key=lambda name: where[name]),) if where else ()


def _picture(told: dict[str, Any], fixed_tokens: int | None) -> tuple[str, int]:
    head, comma, encoded = told["url"].partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise BadRequestError("Invalid image URL. Expected a base64-encoded data URL.", "invalid_image_url")
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise BadRequestError("Invalid base64 image_url.", "invalid_base64") from None
    tokens = picture_tokens(data, told.get("detail", "auto"), fixed_tokens)
    return hashlib.sha256(data).hexdigest(), tokens


def _schema(form: dict[str, Any] | None) -> dict[str, Any] | None:
    if form is None or form["type"] != "json_schema":
        return None
    schema: dict[str, Any] = form["json_schema"]["schema"]
    strict = form["json_schema"].get("strict")
    if strict and not (schema.get("additionalProperties") is False and _all_required(schema)):
        said = "Invalid schema for response_format: 'additionalProperties' is required to be false and 'required' "
        raise BadRequestError(said + "to include every key in properties.", "invalid_schema")
    return schema


def _all_required(schema: dict[str, Any]) -> bool:
    return sorted(schema.get("required", [])) == sorted(schema.get("properties", {}))
