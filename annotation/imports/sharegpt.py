"""Published pairs as they lie in files: FairFaceGPT's ShareGPT form, and LLaMA-Factory's messages and images.

    {"conversations": [{"from": "human", "value": "<image>…"}, {"from": "assistant", "value": "…"}], "image": "1.jpg"}
    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], "images": ["1.jpg"]}

The one surprising fact: a pair's `parameters` hold a hash of its texts, as for chat exchanges, because a file may have
two answers to one question about one image, and the identity of a pair leaves its texts out. A system message is kept
there, too: nothing else could tell how such a pair came about.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from annotation.imports.import_report import BadRow
from annotation.models import PairInput
from facellm.data import Attribute
from facellm.errors import DataError

PROMPT_VERSION: Final = "imported"
IMAGE_TOKEN: Final = "<image>"
_ROLES: Final = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_EXPECTED: Final = "expected one question and one answer"


@dataclass(frozen=True)
class Draft:
    """A good item: a pair, and which image it is about."""

    number: int  # see BadRow
    image: str  # as the file has it
    pair: PairInput


@dataclass(frozen=True)
class PairFile:
    """The items of a file, in its order, not yet looked at."""

    unit: str  # what their numbers count: item or line
    items: list[Any]  # of JSON, or the lines of JSONL

    def drafts(self, teacher: str) -> Iterator[Draft | BadRow]:
        """Each item as a pair of this teacher, or why it is none; empty lines are passed over."""
        for number, item in enumerate(self.items, start=1):
            image = ""
            try:
                fields = _line(item) if self.unit == "line" else item
                if fields is None:
                    continue
                if not isinstance(fields, dict):
                    raise DataError(f"it is {_short(fields)}, expected an object with conversations and an image")
                image = _image(fields)
                yield Draft(number, image, _pair(fields, teacher))
            except DataError as error:
                yield BadRow(number, image, str(error))


def read_pairs(path: Path) -> PairFile:
    """Read a JSON list or JSONL, with a BOM or without.

    Raises:
        DataError: there is no such file, it is neither, or not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Give the path of a JSON or JSONL file.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8, at byte {error.start:,}. Save it as UTF-8.") from error
    if not text.lstrip().startswith("["):
        return PairFile("line", text.split("\n"))
    try:
        return PairFile("item", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}. Expected a list of conversations, or one a line.") from error


def attribute_of(question: str) -> Attribute | None:
    """What a question is about, if it is one of the eight; spaces, case and the last full stop do not matter."""
    return _QUESTIONS.get(_plain(question))


def _plain(question: str) -> str:
    return " ".join(question.split()).casefold().rstrip(" .")


_QUESTIONS: Final = {_plain(attribute.question): attribute for attribute in Attribute}


def _line(line: str) -> Any:
    """The value on a line of JSONL; None for an empty one."""
    if not line.strip():
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is not JSON: {error}") from error


def _image(fields: Mapping[str, Any]) -> str:
    given = [fields[key] for key in ("image", "images") if fields.get(key) not in (None, "", [])]
    images = [image for each in given for image in (each if isinstance(each, list) else [each])]
    if len(images) != 1:
        raise DataError(f"it has {len(images) or 'no'} images, and a pair has one")
    if not isinstance(images[0], str):
        raise DataError(f"its image is {_short(images[0])}, expected a path")
    return _whole(images[0], "its image")


def _pair(fields: Mapping[str, Any], teacher: str) -> PairInput:
    texts = _texts(fields)
    question, answer, system = texts["user"], texts["assistant"], texts.get("system", "")
    if question.count(IMAGE_TOKEN) > 1:
        raise DataError(f"its question speaks of {question.count(IMAGE_TOKEN)} images, and a pair has one")
    question = question.replace(IMAGE_TOKEN, "").strip()
    for name, text in (("question", question), ("answer", answer)):
        if not text:
            raise DataError(f"its {name} is empty")
    return PairInput(
        attribute=attribute_of(question),
        question=question,
        answer=answer,
        teacher=teacher,
        prompt_version=PROMPT_VERSION,
        parameters=_parameters(question, answer, system),
    )


def _texts(fields: Mapping[str, Any]) -> dict[str, str]:
    """The one question, the one answer and the system message, if there is one, by their role."""
    turns = fields.get("conversations") or fields.get("messages")
    if not isinstance(turns, list):
        raise DataError("it has no conversations or messages")
    spoken = [_turn(turn) for turn in turns]
    if fields.get("system"):  # where ShareGPT keeps it
        spoken.insert(0, ("system", _text(fields["system"])))
    roles = [role for role, _ in spoken]
    without = roles[1:] if roles[:1] == ["system"] else roles
    if len(without) > 2:
        raise DataError(f"it has {len(without)} turns, {_EXPECTED}: make an item of each question")
    if without != ["user", "assistant"]:
        raise DataError(f"its turns are {', '.join(without) or 'none'}, {_EXPECTED}")
    return dict(spoken)


def _turn(turn: object) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise DataError(f"a turn is {_short(turn)}, expected an object with a role and a text")
    said_by = turn.get("from", turn.get("role"))
    role = _ROLES.get(said_by) if isinstance(said_by, str) else None
    if role is None:
        raise DataError(f"a turn is by {_short(said_by)}, expected human or user, gpt or assistant")
    return role, _text(turn.get("value", turn.get("content")))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise DataError(f"a turn says {_short(value)}, expected a text")
    return _whole(value, "a turn").strip()


def _whole(text: str, what: str) -> str:
    """The text, unless it could not be stored: JSON can escape one half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{what} has half a character: a surrogate without the other one") from error
    return text


def _parameters(question: str, answer: str, system: str) -> str:
    told = {"text_sha256": hashlib.sha256(json.dumps([question, answer]).encode()).hexdigest()}
    return json.dumps(told | ({"system": system} if system else {}), sort_keys=True, ensure_ascii=False)


def _short(value: object) -> str:
    """A JSON value for a message."""
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:40] + "…"
