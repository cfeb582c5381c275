"""One visitor's chat: the pictures, what each model was asked and said, and how a new question becomes requests.

No Gradio and no torch here; `chat_tab.py` shows what this holds. One of the eight topics is asked afresh, as the models
are trained: about the picture alone. The one surprising fact: a new picture starts a new
topic. The page keeps showing what was said before, but the models no longer read it: face models are trained on one
picture at a time, and each picture can cost thousands of tokens. Pictures that are sent together are read together.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from facellm.conversation import Request, Turn
from facellm.data import Attribute
from facellm.errors import BusyError, DataError

BASE = "Base"  # stands among the adapters' names for the model without any
MAX_PANES = 4
MAX_PICTURES = 8  # in one question


@dataclass(frozen=True)
class Picture:
    """A picture that was sent: the file that the models read, and the small copy that the page shows."""

    source: Path
    shown: str


@dataclass
class Exchange:
    """A question to one model, the pictures that came with it, and the answer as far as it is written."""

    question: str
    pictures: tuple[Picture, ...]
    answer: str = ""
    done: bool = False
    afresh: bool = False  # asked about the pictures alone, without what was said before


@dataclass
class ChatSession:
    """What one visitor has on the page. It is changed in place, so that Stop reaches the answer being written."""

    pictures: tuple[Picture, ...] = ()  # what the next question is about
    panes: dict[str, list[Exchange]] = field(default_factory=dict)  # by the model's name
    stop: threading.Event | None = None  # of the answer that is being written

    @contextmanager
    def answering(self) -> Iterator[threading.Event]:
        """Holds the session for one question; yields what Stop sets. If that fails, all is as it was before.

        Raises:
            BusyError: an answer is being written already.
        """
        if self.stop is not None:
            raise BusyError("An answer is being written. Wait for it, or press Stop.")
        self.stop = threading.Event()
        pictures, lengths = self.pictures, {model: len(pane) for model, pane in self.panes.items()}
        answered = False
        try:
            yield self.stop
            answered = True
        finally:
            if not answered:
                self.pictures = pictures
                self.panes = {model: self.panes[model][:length] for model, length in lengths.items()}
            self.stop = None

    def ask(
        self, models: Sequence[str], question: str, pictures: Sequence[Picture], *, afresh: bool = False
    ) -> list[Exchange]:
        """Note a question to each model; returns its exchanges, in the order of the models."""
        if pictures:
            self.pictures = tuple(pictures)
        asked = []
        for model in models:
            pane = self.panes.setdefault(model, [])
            known = any(exchange.pictures == self.pictures for exchange in topic(pane))
            asked.append(Exchange(question, () if known else self.pictures, afresh=afresh))
            pane.append(asked[-1])
        return asked

    def clear(self) -> None:
        """Forget everything that was asked and said."""
        self.pictures, self.panes = (), {}


def topic(pane: Sequence[Exchange]) -> Sequence[Exchange]:
    """The exchanges from the pane's newest pictures on: what its model still reads."""
    first = max((index for index, exchange in enumerate(pane) if exchange.pictures), default=0)
    return pane[first:]


def request(model: str, pane: Sequence[Exchange], open_picture: Callable[[Path], Image.Image]) -> Request:
    """What to ask a model so that it answers the last question of its pane, knowing the pane's topic."""
    turns: list[Turn] = []
    waiting: tuple[Picture, ...] = ()  # their question was stopped before its answer began, so it is left out
    *earlier, last = topic(pane)
    if last.afresh:
        earlier, waiting = [], () if last.pictures else topic(pane)[0].pictures
    for exchange in earlier:
        waiting += exchange.pictures
        if exchange.answer:
            images = tuple(open_picture(picture.source) for picture in waiting)
            turns += [Turn("user", exchange.question, images), Turn("assistant", exchange.answer)]
            waiting = ()
    images = tuple(open_picture(picture.source) for picture in waiting + last.pictures)
    turns.append(Turn("user", last.question, images))
    return Request(tuple(turns), None if model == BASE else model)


def check_question(text: str, *, pictures: int, longest: int) -> str:
    """The question as it is asked; pictures that come without words are to be described.

    Raises:
        DataError: there is nothing to ask, or too much.
    """
    question = text.strip()
    if pictures > MAX_PICTURES:
        raise DataError(f"The question has {pictures} pictures; at most {MAX_PICTURES} are accepted. Remove some.")
    if not question and pictures:
        return Attribute.DETAIL.question
    if not question:
        raise DataError("There is no question yet. Write one, or press one of the topics.")
    if len(question) > longest:
        raise DataError(
            f"The question has {len(question):,} characters; at most {longest:,} are accepted. Make it shorter."
        )
    return question


def check_models(chosen: Sequence[str], names: Sequence[str]) -> None:
    """That somebody is there to answer.

    Raises:
        DataError: no model is chosen, too many are, or one is not there.
    """
    if not chosen:
        raise DataError("No model is chosen. Choose at least one under “Who answers”.")
    if len(chosen) > MAX_PANES:
        raise DataError(f"{len(chosen)} models are chosen; at most {MAX_PANES} answer at once.")
    if gone := [name for name in chosen if name not in names]:
        raise DataError(f"There is no model {gone[0]}. Choose one of: {', '.join(names)}.")


def messages_of(pane: Sequence[Exchange]) -> list[dict[str, Any]]:
    """A pane's exchanges as `gr.Chatbot` shows them."""
    shown: list[dict[str, Any]] = []
    for exchange in pane:
        pictures = [{"path": picture.shown, "alt_text": "The picture asked about"} for picture in exchange.pictures]
        shown.append({"role": "user", "content": [*pictures, _text(harmless(exchange.question))]})
        waiting = "*No answer.*" if exchange.done else "…"
        shown.append({"role": "assistant", "content": [_text(harmless(exchange.answer.strip()) or waiting)]})
    return shown


def harmless(text: str) -> str:
    """Markdown that shows the text, but loads nothing: no HTML, and no image from anywhere."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("![", "!\\[")


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
