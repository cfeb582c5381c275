"""The Chat tab: one question about a face, answered side by side, in a blind test, or all eight questions in a table.

`build_chat_tab` is called inside an open `gr.Tab`; its styles are in chat.css. The one surprising fact: there are
always four panes, most of them hidden, because Gradio's events name their outputs when the page is built. For the same
reason a question updates the parts of all three modes, of which two stay as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from facellm.answerers import Answerers
from facellm.blind_tab import RULES, VERDICTS, BlindEvents, BlindParts, VoteBook, build_blind, build_ranking
from facellm.chat_api_tab import publish_endpoints
from facellm.chat_events_tab import ChatEvents, SendToReview, status_line
from facellm.chat_pictures_tab import Pictures
from facellm.chat_session import BLIND, EIGHT, MAX_PANES, MODES, SIDE_BY_SIDE, TOPICS, ChatSession
from facellm.chat_settings_tab import build_settings
from facellm.config import EMBEDDED_BASE, Settings
from facellm.data import Attribute
from facellm.eight_tab import EightEvents, table

RENDERED_FACES_ONLY = (
    "The built-in model knows only drawn faces like these, and the eight topics. It cannot judge photos of people, and "
    "guesses at other questions."
)
NOTICE = (
    "**What this is for.** The models describe what can be seen in a picture of a face. They are often wrong. "
    "Do not use them to find out who somebody is, or to decide about people. Your pictures are deleted after an hour, "
    "unless you send an answer to review; what is kept then has no metadata."
)
PRESS_DOWNLOAD = "() => setTimeout(() => document.querySelector('#blind-file').click(), 100)"
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}


@dataclass(frozen=True)
class ChatTab:
    """What app.py needs to connect other tabs with this one."""

    session: gr.State
    models: gr.Dropdown  # the names of the models that answer
    shown: list[Any]  # what `choose` updates
    choose: Callable[..., list[Any]]  # (session, an adapter's name): the base and that adapter answer from now on


@dataclass(frozen=True)
class _Page:
    """The components that several events share."""

    session: gr.State
    models: gr.Dropdown
    panes: list[gr.Chatbot]
    box: gr.MultimodalTextbox
    status: gr.HTML
    clear: gr.Button
    topics: dict[Attribute, gr.Button]

    @property
    def asked(self) -> list[Any]:
        return [self.session, self.models, self.box]

    @property
    def controls(self) -> list[Any]:
        return [self.box, self.status, self.models, self.clear, *self.topics.values()]


def build_chat_tab(
    answerers: Answerers,
    *,
    examples: list[Path],
    settings: Settings,
    first_choice: Sequence[str],
    send_to_review: SendToReview,
    book: VoteBook,
) -> ChatTab:
    """Build the tab inside the open Gradio context.

    Args:
        examples: pictures to try.
        settings: limits, and how long answers are.
        first_choice: who answers until the visitor chooses.
        send_to_review: stores (name, source, exchange, earlier exchanges) and returns what to tell the visitor.
        book: where votes are kept.
    """
    chat = ChatEvents(answerers, Pictures(settings), examples, settings, first_choice, send_to_review)
    session = gr.State(ChatSession(), time_to_live=24 * 3600)  # copied for each visitor
    build_notice()
    with gr.Row(elem_id="chat"):
        with gr.Column(elem_id="chat-side", scale=0, min_width=276):
            models = gr.Dropdown(
                answerers.names(),
                value=chat.first_choice(),
                multiselect=True,
                max_choices=MAX_PANES,
                label="Who answers",
                elem_id="chat-models",
            )
            faces = _example_faces(examples)
            if answerers.model is not None and answerers.model.checkpoint == str(EMBEDDED_BASE):
                gr.Markdown(RENDERED_FACES_ONLY, elem_id="chat-note")
            side = gr.Column(elem_id="chat-more", min_width=200)
        with gr.Column(elem_id="chat-main", scale=1, min_width=300):
            mode = gr.Radio(MODES, value=SIDE_BY_SIDE, show_label=False, container=False, elem_id="chat-mode")
            with gr.Column(elem_id="chat-beside") as beside, gr.Row(elem_classes="chat-panes", equal_height=True):
                first = chat.first_choice() + [""] * MAX_PANES
                panes, senders = zip(*[_pane_with_sender(chat, name) for name in first[:MAX_PANES]], strict=True)
            blind = build_blind(lambda letter: _empty_pane(letter, RULES))
            with gr.Column(visible=False, elem_id="chat-table") as eight:
                shown_table = gr.HTML(table([], []), padding=False)
            page = _Page(session, models, list(panes), *_bar())
            ranking_group, ranking, export, file = build_ranking()
    with side:
        build_settings(chat, session, models, page.panes)
        _camera(page.box)

    groups = [(SIDE_BY_SIDE, beside), (BLIND, blind.group), (BLIND, ranking_group), (EIGHT, eight)]
    shown_in = [name for name, _ in groups]
    changed = [*(group for _, group in groups), page.status]
    mode.change(partial(_choose_mode, shown_in), [session, mode], changed, **_QUIET)
    testing, all_eight = BlindEvents(chat, book), EightEvents(chat)
    _connect_questions(chat, testing, all_eight, page, [page.panes, blind.shown, [shown_table]])
    _connect_panes(chat, page, list(senders))
    _connect_votes(testing, page, blind, ranking)
    export.click(testing.export, None, file, **_QUIET).success(None, None, None, js=PRESS_DOWNLOAD)
    gr.on(None, testing.arrive, None, [ranking, export], **_QUIET)  # when the page is loaded
    page.clear.click(lambda: table([], []), None, shown_table, **_QUIET)
    page.box.stop(chat.stop, session, None, queue=False, **_QUIET)
    faces.select(chat.pick, page.box, [page.box, faces], **_QUIET)
    models.focus(chat.offer, None, models, **_QUIET)
    gr.on(None, chat.arrive, None, models, **_QUIET)  # when the page is loaded
    publish_endpoints(chat, settings)
    return ChatTab(session, models, [models, *panes], chat.choose)


def build_notice() -> None:
    """What the models are for; gone for good once this browser has been told."""
    told = gr.BrowserState(False, storage_key="facellm-notice")
    with gr.Row(visible=False, elem_id="chat-notice") as notice:
        gr.Markdown(NOTICE)
        understood = gr.Button("I understand", size="sm", scale=0, min_width=110)
    gr.on(None, lambda seen: gr.update(visible=not seen), told, notice, **_QUIET)
    understood.click(lambda: (True, gr.update(visible=False)), None, [told, notice], **_QUIET)


def _choose_mode(shown_in: Sequence[str], session: ChatSession, mode: str) -> list[Any]:
    session.mode = mode
    status = gr.skip() if session.stop is not None else status_line("")
    return [*(gr.update(visible=name == mode) for name in shown_in), status]


def _connect_questions(
    chat: ChatEvents, testing: BlindEvents, all_eight: EightEvents, page: _Page, parts: Sequence[Sequence[Any]]
) -> None:
    """Send and the topics ask in the mode that is on: one listener for all modes, since each would be a request."""
    # The session is an output as well: Gradio lets only such states expire.
    shown = [page.session, *(component for part in parts for component in part), *page.controls]
    sizes = [len(part) for part in parts]
    sent = (chat.answer, testing.answer, all_eight.answer)
    page.box.submit(_in_its_mode(sent, sizes), page.asked, shown, **_QUIET)
    for topic, button in page.topics.items():
        pressed = (partial(chat.answer_topic, topic), partial(testing.answer, attribute=topic), all_eight.answer)
        button.click(_in_its_mode(pressed, sizes), page.asked, shown, **_QUIET)


def _in_its_mode(events: Sequence[Callable[..., Iterator[Any]]], sizes: Sequence[int]) -> Callable[..., Iterator[Any]]:
    """The event of the mode that is on. It updates its own part of the page and the controls; other parts stay."""

    def listener(session: ChatSession, chosen: list[str], value: dict[str, Any]) -> Iterator[list[Any]]:
        number = MODES.index(session.mode)
        before, own, after = sum(sizes[:number]), sizes[number], sum(sizes[number + 1 :])
        for updates in events[number](session, chosen, value):
            yield [session, *[gr.skip()] * before, *updates[:own], *[gr.skip()] * after, *updates[own:]]

    return listener


def _connect_panes(chat: ChatEvents, page: _Page, senders: list[gr.Button]) -> None:
    shown = [*page.panes, *page.controls]
    for number, (pane, sender) in enumerate(zip(page.panes, senders, strict=True)):
        pane.retry(partial(chat.again, number), page.asked, shown, **_QUIET)
        pane.edit(_edited(chat, number), page.asked, shown, **_QUIET)
        sender.click(partial(chat.send_to_review, number), [page.session, page.models], None, **_QUIET)
    page.clear.click(chat.clear, [page.session, page.models], [*page.panes, page.box, page.status], **_QUIET)
    page.models.change(chat.show, [page.session, page.models], page.panes, **_QUIET)


def _edited(chat: ChatEvents, pane: int) -> Callable[..., Iterator[Any]]:
    def listener(session: ChatSession, chosen: list[str], value: dict[str, Any], data: gr.EditData) -> Iterator[Any]:
        message = data.index if isinstance(data.index, int) else data.index[0]
        yield from chat.ask_edited(pane, message, str(data.value), session, chosen, value)

    return listener


def _connect_votes(blind: BlindEvents, page: _Page, parts: BlindParts, ranking: gr.HTML) -> None:
    for outcome, button in zip(VERDICTS, parts.verdicts, strict=True):
        button.click(partial(blind.vote, outcome), page.session, [*parts.shown, ranking], **_QUIET)
    page.clear.click(blind.clear, page.session, parts.shown, **_QUIET)


def _bar() -> tuple[gr.MultimodalTextbox, gr.HTML, gr.Button, dict[Attribute, gr.Button]]:
    """The topics, what is going on, Clear, and the text field below."""
    with gr.Row(elem_id="chat-bar"):
        with gr.Row(elem_id="chat-topics"):
            topics = {topic: gr.Button(name, size="sm", min_width=0, scale=0) for topic, name in TOPICS.items()}
        status = gr.HTML(status_line(""), elem_id="chat-status", min_height=0)
        clear = gr.Button("Clear", size="sm", scale=0, min_width=72, elem_id="chat-clear")
    box = gr.MultimodalTextbox(
        placeholder="Ask about the face, or add a picture",
        file_types=["image"],
        file_count="multiple",
        label="Question",
        show_label=False,
        max_plain_text_length=100_000,  # Gradio would turn a longer paste into a file
        elem_id="chat-box",
    )
    return box, status, clear, topics


def _camera(box: gr.MultimodalTextbox) -> None:
    """A picture from the camera goes into the text field like an uploaded one."""
    with gr.Accordion("Camera", open=False, elem_id="chat-camera"):
        camera = gr.Image(
            sources=["webcam"], type="filepath", show_label=False, buttons=[], height=180, elem_id="chat-webcam"
        )

    def take(photo: str | None, value: dict[str, Any]) -> tuple[Any, Any]:
        if photo is None:
            return gr.skip(), gr.skip()
        return {"text": value["text"], "files": [*value["files"], photo]}, None

    camera.input(take, [camera, box], [box, camera], **_QUIET)


def _example_faces(examples: list[Path]) -> gr.Gallery:
    return gr.Gallery(
        [str(path) for path in examples],
        label="Try a face",
        columns=3,
        allow_preview=False,
        interactive=False,
        buttons=[],
        object_fit="cover",
        visible=bool(examples),
        elem_id="chat-faces",
    )


def _pane_with_sender(chat: ChatEvents, name: str) -> tuple[gr.Chatbot, gr.Button]:
    sender = gr.Button("Send to review", size="sm", render=False)
    return _empty_pane(name, chat.who_this_is(name), sender), sender


def _empty_pane(name: str, placeholder: str, *buttons: gr.Button) -> gr.Chatbot:
    return gr.Chatbot(
        label=name,
        visible=bool(name),
        placeholder=placeholder,
        height="100%",
        layout="bubble",
        buttons=["copy", *buttons],
        editable="user" if buttons else None,
        feedback_options=None,
        allow_tags=False,
        sanitize_html=True,
        group_consecutive_messages=False,
        latex_delimiters=[],
        min_width=200,
        elem_classes="chat-pane",
    )
