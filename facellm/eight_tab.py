"""The Chat tab's table: all eight attribute questions about one face, to every chosen model at once.

The one surprising fact: the picture is read once for each model, not once for each question; the eight prompts have it
in common, and the model keeps what it has read.
"""

import html
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import gradio as gr

from facellm.answerers import Answer
from facellm.chat_events_tab import CONTROLS, ChatEvents, box_update, guarded, status_line
from facellm.chat_session import TOPICS, ChatSession, Picture, check_models
from facellm.conversation import Request, Turn
from facellm.data import Attribute
from facellm.errors import DataError

HOW = "Pick a face, or add a picture, and send it: each chosen model answers all eight questions about it."
TYPED = "Here the eight topics are asked, and no other question. Ask yours in the mode Side by side."

Updates = list[Any]  # for the table, the text field, the status and the controls


class EightEvents:
    """What happens on the table's events."""

    def __init__(self, chat: ChatEvents) -> None:
        self._chat = chat

    def answer(self, session: ChatSession, chosen: list[str], value: dict[str, Any]) -> Iterator[Updates]:
        """Ask everything and fill the table while the answers come."""

        def work(stop: threading.Event) -> Iterator[Updates]:
            check_models(chosen, self._chat.answerers.names())
            if value["text"].strip():
                raise DataError(TYPED)
            _, pictures = self._chat.read(session, Attribute.DETAIL.question, value)
            session.pictures = tuple(pictures) or session.pictures
            started, shown = time.monotonic(), None
            asked = box_update(busy=True, value={"text": value["text"], "files": []})
            yield _updates(
                table(chosen, [Answer()] * (len(TOPICS) * len(chosen)), session.pictures), asked, "Answering…", True
            )
            with closing(self._chat.answerers.stream(self._requests(session, chosen), stop=stop)) as stream:  # type: ignore[type-var]
                for answers in stream:
                    yield _updates(gr.skip() if answers == shown else table(chosen, answers, session.pictures))
                    shown = answers
            stopped = stop.is_set()
            ended = "Stopped after" if stopped else "Answered in"
            last = table(chosen, shown or [], session.pictures, stopped=stopped)
            yield _updates(last, box_update(busy=False), f"{ended} {time.monotonic() - started:.1f} s", False)

        def as_before() -> Updates:
            return _updates(gr.skip(), box_update(busy=False, value=value), "", False)

        yield from guarded(session, work, as_before, _updates(gr.skip()))

    def _requests(self, session: ChatSession, chosen: Sequence[str]) -> list[Request]:
        images = tuple(picture.image for picture in session.pictures)
        return [
            Request((Turn("user", attribute.question, images),), name, session.sampling(name, self._chat.usual))
            for attribute in TOPICS
            for name in chosen
        ]


def table(
    chosen: Sequence[str], answers: Sequence[Answer], pictures: Sequence[Picture] = (), *, stopped: bool = False
) -> str:
    """A row for each topic, a column for each model; the pictures asked about stand in the corner.

    Args:
        stopped: answers that are not complete will not go on.
    """
    if not chosen or not answers:
        return f'<p class="chat-small">{HOW}</p>'
    corner = "".join(
        f'<img src="gradio_api/file={html.escape(each.shown)}" alt="The picture asked about">' for each in pictures
    )
    head = f"<th>{corner}</th>" + "".join(f"<th>{html.escape(name)}</th>" for name in chosen)
    rows = []
    for number, name in enumerate(TOPICS.values()):
        some = answers[number * len(chosen) : (number + 1) * len(chosen)]
        cells = "".join(f"<td>{_cell(answer, stopped)}</td>" for answer in some)
        rows.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
    return f'<table class="chat-table chat-eight"><tr>{head}</tr>{"".join(rows)}</table>'


def _cell(answer: Answer, stopped: bool) -> str:
    text = html.escape(answer.text.strip())
    if answer.error is not None:
        return f"{text} <i>{html.escape(answer.error)}</i>"
    if stopped and not answer.complete:
        return f"{text} <i>(stopped)</i>"
    return text or "…"


def _updates(shown: Any, box: Any = None, status: str | None = None, busy: bool | None = None) -> Updates:
    controls = gr.skip() if busy is None else gr.update(interactive=not busy)
    return [
        shown,
        gr.skip() if box is None else box,
        gr.skip() if status is None else status_line(status),
        *[controls] * CONTROLS,
    ]
