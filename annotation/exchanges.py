"""A chat exchange on its way to review: what a visitor asked about a picture and a model answered, as a draft.

The one surprising fact: the pair's `parameters` hold a hash of question and answer beside what the model was told. The
identity of a pair leaves its texts out, because a teacher is asked each thing once; a chat model is asked anything, and
may say two things to one question.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image as Pictures
from sqlmodel import Session, col, select

from annotation.images import encode_png, put_image
from annotation.ingest import insert_images
from annotation.models import Image, ImageInput, Pair, PairInput
from facellm.data import Attribute, open_image
from facellm.errors import DataError, ImageError

CHAT = "chat"  # the source of such images, and the prompt version of such pairs


@dataclass(frozen=True)
class Exchange:
    """One question with its answer, and what made the answer; see `Store.add_exchange`."""

    images: Sequence[Pictures.Image | bytes]
    question: str
    answer: str
    attribute: Attribute | None
    teacher: str
    teacher_source: str
    parameters: str


def put_exchange(data_dir: Path, exchange: Exchange) -> ImageInput:
    """Check an exchange and store its picture's file; return the image with its one pair, for `insert_exchange`.

    Raises:
        DataError: see `Store.add_exchange`.
    """
    _check(exchange)
    pair = PairInput(
        attribute=exchange.attribute,
        question=exchange.question,
        answer=exchange.answer,
        teacher=exchange.teacher,
        prompt_version=CHAT,
        parameters=_parameters(exchange),
    )
    picture = _plain(exchange.images[0])
    data = encode_png(picture)
    sha256, path = put_image(data_dir, data, ".png")
    return ImageInput(
        sha256=sha256,
        path=path,
        width=picture.width,
        height=picture.height,
        bytes=len(data),
        source=CHAT,
        labels={},
        label_source=CHAT,
        pairs=(pair,),
    )


def insert_exchange(session: Session, image: ImageInput) -> int:
    """Add what is not there yet of the image and its pair; return the pair's id."""
    insert_images(session, [image])
    (pair,) = image.pairs
    query = select(Pair.id).join(Image, col(Pair.image_id) == Image.id).where(Image.sha256 == image.sha256)
    for name in ("attribute", "prompt_version", "teacher", "parameters"):
        query = query.where(getattr(Pair, name) == getattr(pair, name))
    return session.exec(query).one() or 0


def _check(exchange: Exchange) -> None:
    if not exchange.images:
        raise DataError("The exchange has no picture, and review is about pictures. Ask about one, then send it.")
    if len(exchange.images) > 1:
        raise DataError(
            f"The exchange has {len(exchange.images)} pictures, and a pair has one. "
            "Ask about one picture in a new chat, then send that."
        )
    for name in ("question", "answer"):
        if not getattr(exchange, name).strip():
            raise DataError(f"The exchange has no {name}. Send it once there are a question and an answer.")


def _parameters(exchange: Exchange) -> str:
    """What the model was told, who it was, and a hash of the texts: the same text for the same exchange."""
    texts = json.dumps([exchange.question, exchange.answer]).encode()
    told = {
        "request": _json_object(exchange.parameters),
        "teacher_source": exchange.teacher_source,
        "text_sha256": hashlib.sha256(texts).hexdigest(),
    }
    return json.dumps(told, sort_keys=True, ensure_ascii=False)


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise DataError(f"The exchange's parameters are not JSON: {error}. Expected an object.") from error
    if not isinstance(found, dict):
        raise DataError(f"The exchange's parameters are {text[:80]}. Expected a JSON object.")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _plain(picture: Pictures.Image | bytes) -> Pictures.Image:
    if isinstance(picture, bytes):
        return open_image(picture)
    if picture.mode != "RGB":
        raise ImageError(f"The picture is {picture.mode}, expected RGB. Open it with facellm.data.open_image.")
    return picture
