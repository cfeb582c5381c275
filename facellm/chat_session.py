"""One visitor's chat: the pictures, what each model was asked and said, how it is to answer, and requests made of that.

No Gradio and no torch here; `chat_events_tab.py` shows what this holds. One of the eight topics is asked afresh, as the
models are trained: about the picture alone. The one surprising fact: a new picture starts a new topic. The page keeps
showing what was said before, but the models no longer read it: face models are trained on one picture at a time, and
each picture can cost thousands of tokens. Pictures that are sent together are read together.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

from PIL import Image

from facellm.answerers import Answer
from facellm.conversation import Request, Sampling, Turn
from facellm.data import Attribute
from facellm.errors import BusyError, DataError
from facellm.word_diff import mark_differences

TOPICS = {
    Attribute.DETAIL: "Describe",
    Attribute.EXPRESSION: "Expression",
    Attribute.POSE: "Pose",
    Attribute.STRUCTURE: "Face shape",
    Attribute.SKIN: "Skin",
    Attribute.LIGHTING: "Light & quality",
    Attribute.DEMOGRAPHIC: "Demographics",
    Attribute.FORENSIC: "Forensics",
}
SIDE_BY_SIDE, BLIND, EIGHT = MODES = ("Side by side", "Blind test", "All eight topics")
MAX_PANES = 4
MAX_PICTURES = 8  # in one question
MAX_HELD = 24  # in one session
_OPENING, _CLOSING = "\ue000", "\ue001"  # of private use: they pass through what makes a text harmless


@dataclass(frozen=True)
class Picture:
    """A picture that was sent: as the models read it, and the file of the small copy that the page shows."""

    image: Image.Image = field(repr=False)
    shown: str


@dataclass
class Exchange:
    """A question to one model, the pictures that came with it, and the answer as far as it is written."""

    question: str
    pictures: tuple[Picture, ...]
    turn: int = 0  # the same for all models that were asked together
    answer: str = ""
    error: str | None = None
    done: bool = False
    complete: bool = False  # the answer has come to its end
    stopped: bool = False
    afresh: bool = False  # asked about the pictures alone, without what was said before
    attribute: Attribute | None = None  # the topic that was pressed
    sampling: Sampling = Sampling()

    def take(self, answer: Answer) -> None:
        """Note what has been written since."""
        self.answer, self.error, self.complete = answer.text, answer.error, answer.complete


@dataclass
class Round:
    """One question of the blind test to two models, in the order of the page, and the answers."""

    models: tuple[str, str]
    sources: tuple[str, str]  # of their weights
    order_seed: int
    exchanges: tuple[Exchange, Exchange]
    uuid: UUID = field(default_factory=uuid4)  # of its vote
    voted: bool = False

    @property
    def ready(self) -> bool:
        """Whether it can be voted on: both have answered to the end."""
        return not self.voted and all(
            each.done and each.answer.strip() and not each.stopped and each.error is None for each in self.exchanges
        )


@dataclass
class ChatSession:
    """What one visitor has on the page. It is changed in place, so that Stop reaches the answer being written."""

    pictures: tuple[Picture, ...] = ()  # what the next question is about
    panes: dict[str, list[Exchange]] = field(default_factory=dict)  # by the model's name
    stop: threading.Event | None = None  # of the answer that is being written
    turns: int = 0
    shared: Sampling | None = None  # how all models answer; None: as the settings say
    own: dict[str, Sampling] = field(default_factory=dict)  # how some models answer instead
    blind: "Round | None" = None  # the blind test's last question
    mode: str = SIDE_BY_SIDE
    marking: bool = False  # whether words that differ from the first pane's are marked
    visitor: str = ""  # a random id, from the first vote on

    @contextmanager
    def answering(self) -> Iterator[threading.Event]:
        """Holds the session for one question; yields what Stop sets. If that fails, all is as it was before.

        Raises:
            BusyError: an answer is being written already.
        """
        if self.stop is not None:
            raise BusyError("An answer is being written. Wait for it, or press Stop.")
        self.stop = threading.Event()
        pictures, panes = self.pictures, {model: list(pane) for model, pane in self.panes.items()}
        answered = False
        try:
            yield self.stop
            answered = True
        finally:
            if not answered:
                self.pictures, self.panes = pictures, panes
            self.stop = None

    def sampling(self, model: str, usual: Sampling) -> Sampling:
        """How a model is to answer."""
        return self.own.get(model) or self.shared or usual

    def ask(
        self,
        models: Sequence[str],
        question: str,
        pictures: Sequence[Picture] = (),
        *,
        attribute: Attribute | None = None,
        usual: Sampling = Sampling(),  # noqa: B008 - frozen
    ) -> list[Exchange]:
        """Note a question to each model; returns its exchanges, in the order of the models.

        Args:
            attribute: the topic, if one was pressed; it is asked about the pictures alone.
        """
        if pictures:
            self.pictures = tuple(pictures)
        self.turns += 1
        asked = []
        for model in models:
            pane = self.panes.setdefault(model, [])
            known = any(exchange.pictures == self.pictures for exchange in topic(pane))
            asked.append(
                Exchange(
                    question,
                    () if known else self.pictures,
                    turn=self.turns,
                    afresh=attribute is not None,
                    attribute=attribute,
                    sampling=self.sampling(model, usual),
                )
            )
            pane.append(asked[-1])
        self._forget_long_ago()
        return asked

    def _forget_long_ago(self) -> None:
        """Drop the oldest turns while the session holds too many pictures: each takes some megabytes."""

        def held() -> set[int]:
            shown = [exchange.pictures for pane in self.panes.values() for exchange in pane]
            return {id(picture) for pictures in shown for picture in pictures}

        while len(held()) > MAX_HELD:
            oldest = min(exchange.turn for pane in self.panes.values() for exchange in pane if exchange.pictures)
            for model, pane in self.panes.items():
                self.panes[model] = [exchange for exchange in pane if exchange.turn > oldest]

    def ask_again(self, model: str, usual: Sampling) -> Exchange:
        """Note the last question of a pane anew, with the next seed, so that a drawn answer may differ.

        Raises:
            DataError: nothing was asked.
        """
        pane = self.panes.get(model, [])
        if not pane:
            raise DataError("Nothing was asked yet.")
        last = pane.pop()
        sampling = replace(self.sampling(model, usual), seed=last.sampling.seed + 1)
        pane.append(replace(last, answer="", error=None, done=False, complete=False, stopped=False, sampling=sampling))
        return pane[-1]

    def go_back_to(self, turn: int) -> tuple[Picture, ...]:
        """Forget this turn and all after it, in every pane; returns the pictures that it was about."""
        about, kept = -1, self.pictures
        for model, pane in self.panes.items():
            for exchange in pane:
                if exchange.pictures and about < exchange.turn <= turn:
                    about, kept = exchange.turn, exchange.pictures
            self.panes[model] = [exchange for exchange in pane if exchange.turn < turn]
        return kept

    def clear(self) -> None:
        """Forget everything that was asked and said."""
        self.pictures, self.panes, self.blind = (), {}, None


def topic(pane: Sequence[Exchange]) -> Sequence[Exchange]:
    """The exchanges from the pane's newest pictures on: what its model still reads."""
    first = max((index for index, exchange in enumerate(pane) if exchange.pictures), default=0)
    return pane[first:]


def request(model: str, pane: Sequence[Exchange]) -> Request:
    """What to ask a model so that it answers the last question of its pane, knowing the pane's topic."""
    turns: list[Turn] = []
    waiting: tuple[Picture, ...] = ()  # their question was stopped before its answer began, so it is left out
    *earlier, last = topic(pane)
    if last.afresh:
        earlier, waiting = [], () if last.pictures else topic(pane)[0].pictures
    for exchange in earlier:
        waiting += exchange.pictures
        if exchange.answer:
            turns += [Turn("user", exchange.question, _images(waiting)), Turn("assistant", exchange.answer)]
            waiting = ()
    turns.append(Turn("user", last.question, _images(waiting + last.pictures)))
    return Request(tuple(turns), model, last.sampling)


def _images(pictures: Sequence[Picture]) -> tuple[Image.Image, ...]:
    return tuple(picture.image for picture in pictures)


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


def check_models(chosen: Sequence[str], names: Sequence[str], *, most: int = MAX_PANES) -> None:
    """That somebody is there to answer.

    Raises:
        DataError: no model is chosen, too many are, or one is not there.
    """
    if not chosen:
        raise DataError("No model is chosen. Choose at least one under “Who answers”.")
    if len(chosen) > most:
        raise DataError(f"{len(chosen)} models are chosen; at most {most} answer at once.")
    if gone := [name for name in chosen if name not in names]:
        raise DataError(f"There is no model {gone[0]}. Choose one of: {', '.join(names)}.")


def messages_of(pane: Sequence[Exchange], *, beside: Sequence[Exchange] = ()) -> list[dict[str, Any]]:
    """A pane's exchanges as `gr.Chatbot` shows them: pictures, question and answer are a message each.

    Pictures stand apart from their question because Gradio 6.31 cannot edit a message that holds both.

    Args:
        beside: another pane's; words of an answer that its answer to the same question has not are marked.
    """
    others = {exchange.turn: exchange.answer for exchange in beside}
    shown: list[dict[str, Any]] = []
    for exchange in pane:
        if exchange.pictures:
            pictures = [{"path": each.shown, "alt_text": "The picture asked about"} for each in exchange.pictures]
            shown.append({"role": "user", "content": pictures})
        shown.append({"role": "user", "content": [_text(harmless(exchange.question))]})
        shown.append({"role": "assistant", "content": [_text(_said(exchange, others.get(exchange.turn)))]})
    return shown


def exchange_at(pane: Sequence[Exchange], message: int) -> Exchange:
    """The exchange that a message of `messages_of` belongs to.

    Raises:
        DataError: there is no such message.
    """
    for exchange in pane:
        message -= 3 if exchange.pictures else 2
        if message < 0:
            return exchange
    raise DataError("This question is not there any more. Ask it again.")


def _said(exchange: Exchange, other: str | None) -> str:
    text = exchange.answer.strip()
    if text and other:
        text = mark_differences(text, other, opening=_OPENING, closing=_CLOSING)
    text = harmless(text).replace(_OPENING, "<mark>").replace(_CLOSING, "</mark>")
    if exchange.error is not None:
        return f"{text}\n\n⚠️ *{harmless(exchange.error)}*".strip()
    if exchange.stopped:
        return f"{text} *(stopped)*".strip()
    return text or ("*No answer.*" if exchange.done else "…")


def harmless(text: str) -> str:
    """Markdown that shows the text, but loads nothing: no HTML, and no image from anywhere."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("![", "!\\[")


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
