"""The Chat tab's table: all eight attribute questions about one face, to every chosen model at once.

The one surprising fact: the picture is read once for each model, not once for each question; the eight prompts have it
in common, and the model keeps what it has read.
"""

import html
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import gradio as gr

from facellm.answerers import Answer
from facellm.chat_events_tab import CONTROLS, NO_PICTURE, ChatEvents, box_update, status_line, warn
from facellm.chat_session import ChatSession, check_models
from facellm.conversation import Request, Turn
from facellm.data import Attribute
from facellm.errors import DataError, FaceLLMError

HOW = "Pick a face, or add a picture, and send it: each chosen model answers all eight questions about it."

Updates = list[Any]  # for the table, the text field, the status and the controls


class EightEvents:
    """What happens on the table's events."""

    def __init__(self, chat: ChatEvents) -> None:
        self._chat = chat

    def answer(self, session: ChatSession, chosen: list[str], value: dict[str, Any]) -> Iterator[Updates]:
        """Ask everything and fill the table while the answers come."""
        try:
            with session.answering() as stop:
                check_models(chosen, self._chat.answerers.names())
                if value["files"]:
                    session.pictures = tuple(self._chat.pictures.take(file) for file in value["files"])
                if not session.pictures:
                    raise DataError(NO_PICTURE)
                started = time.monotonic()
                asked = {"text": value["text"], "files": []}
                yield _updates(
                    table(chosen, [Answer()] * (8 * len(chosen))),
                    box_update(busy=True, value=asked),
                    "Answering…",
                    True,
                )
                shown = None
                with closing(self._chat.answerers.stream(self._requests(session, chosen), stop=stop)) as stream:  # type: ignore[type-var]
                    for answers in stream:
                        yield _updates(gr.skip() if answers == shown else table(chosen, answers))
                        shown = answers
            yield _updates(
                gr.skip(), box_update(busy=False), f"Answered in {time.monotonic() - started:.1f} s", busy=False
            )
        except FaceLLMError as error:
            warn(str(error))
            yield _updates(gr.skip(), box_update(busy=False, value=value), "", busy=False)

    def _requests(self, session: ChatSession, chosen: Sequence[str]) -> list[Request]:
        images = tuple(picture.image for picture in session.pictures)
        return [
            Request((Turn("user", attribute.question, images),), name, session.sampling(name, self._chat.usual))
            for attribute in Attribute
            for name in chosen
        ]


def table(chosen: Sequence[str], answers: Sequence[Answer]) -> str:
    """A row for each attribute, a column for each model."""
    if not chosen:
        return f'<p class="chat-small">{HOW}</p>'
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *chosen))
    rows = []
    for number, attribute in enumerate(Attribute):
        some = answers[number * len(chosen) : (number + 1) * len(chosen)]
        cells = "".join(f"<td>{_cell(answer)}</td>" for answer in some)
        rows.append(f"<tr><th>{html.escape(attribute.topic)}</th>{cells}</tr>")
    return f'<table class="chat-table chat-eight"><tr>{head}</tr>{"".join(rows)}</table>'


def _cell(answer: Answer) -> str:
    if answer.error is not None:
        return f"<i>{html.escape(answer.error)}</i>"
    return html.escape(answer.text.strip()) or "…"


def _updates(shown: Any, box: Any = None, status: str | None = None, busy: bool | None = None) -> Updates:
    controls = gr.skip() if busy is None else gr.update(interactive=not busy)
    return [
        shown,
        gr.skip() if box is None else box,
        gr.skip() if status is None else status_line(status),
        *[controls] * CONTROLS,
    ]
