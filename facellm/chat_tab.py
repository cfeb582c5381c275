"""The Chat tab: one question about a face, answered side by side by the base and its adapters.

`build_chat_tab` is called inside an open `gr.Tab`; its styles are in chat.css. The one surprising fact: there are
always four panes, most of them hidden, because Gradio's events name their outputs when the page is built.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from facellm.chat_events_tab import ChatEvents, status_line, who_this_is
from facellm.chat_session import MAX_PANES, ChatSession
from facellm.config import EMBEDDED_BASE, Settings
from facellm.data import Attribute

if TYPE_CHECKING:
    from facellm.model import ChatModel

RENDERED_FACES_ONLY = "The built-in model knows only drawn faces like these. It cannot judge photos of people."

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


@dataclass(frozen=True)
class ChatTab:
    """What app.py needs to connect other tabs with this one."""

    models: gr.Dropdown  # the names of the models that answer: "Base" and adapters
    offer: Callable[[], Any]  # () → update of `models`: the choices read anew
    choose: Callable[[str], Any]  # (an adapter's name) → update of `models`: the base and that adapter answer


def build_chat_tab(
    model: "ChatModel", catalog: Callable[[], dict[str, Path]], *, examples: list[Path], settings: Settings
) -> ChatTab:
    """Build the tab inside the open Gradio context.

    Args:
        model: answers; adapters of the catalog are loaded into it when they are first asked.
        catalog: the adapters that there are now, by name.
        examples: pictures to try.
        settings: limits, and the adapter that answers beside the base from the start.
    """
    chat = ChatEvents(model, catalog, examples, settings)
    session = gr.State(ChatSession())  # copied for each visitor
    with gr.Row(elem_id="chat"):
        with gr.Column(elem_id="chat-side", scale=0, min_width=250):
            models = gr.Dropdown(
                chat.names(),
                value=chat.first_choice(),
                multiselect=True,
                max_choices=MAX_PANES,
                label="Who answers",
                elem_id="chat-models",
            )
            faces = _example_faces(examples)
            if model.checkpoint == str(EMBEDDED_BASE):
                gr.Markdown(RENDERED_FACES_ONLY, elem_id="chat-note")
        with gr.Column(elem_id="chat-main", scale=1, min_width=300):
            with gr.Row(elem_id="chat-panes", equal_height=True):
                panes = [_empty_pane(name) for name in chat.first_choice()]
                panes += [_empty_pane("") for _ in range(MAX_PANES - len(panes))]
            with gr.Row(elem_id="chat-bar"):
                with gr.Row(elem_id="chat-topics"):
                    topics = {topic: gr.Button(name, size="sm", min_width=0, scale=0) for topic, name in TOPICS.items()}
                status = gr.HTML(status_line(""), elem_id="chat-status", min_height=0)
                clear = gr.Button("Clear", size="sm", scale=0, min_width=72, elem_id="chat-clear")
            box = _question_box()

    asked, shown = [session, models, box], [*panes, box, status, models, clear, *topics.values()]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    box.submit(chat.answer, asked, shown, **quiet)
    for topic, button in topics.items():
        button.click(partial(chat.answer_topic, topic), asked, shown, **quiet)
    box.stop(chat.stop, session, None, queue=False, **quiet)
    clear.click(chat.clear, [session, models], [*panes, box, status], **quiet)
    models.change(chat.show, [session, models], panes, **quiet)
    models.focus(chat.offer, None, models, **quiet)
    gr.on(None, chat.offer, None, models, **quiet)  # when the page is loaded
    faces.select(chat.pick, box, [box, faces], **quiet)
    gr.api(chat.ask, api_name="ask", concurrency_limit=None)
    return ChatTab(models, chat.offer, chat.choose)


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


def _question_box() -> gr.MultimodalTextbox:
    return gr.MultimodalTextbox(
        placeholder="Ask about the face, or add a picture",
        file_types=["image"],
        file_count="multiple",
        label="Question",
        show_label=False,
        max_plain_text_length=100_000,  # Gradio would turn a longer paste into a file
        elem_id="chat-box",
    )


def _empty_pane(name: str) -> gr.Chatbot:
    return gr.Chatbot(
        label=name,
        visible=bool(name),
        placeholder=who_this_is(name),
        height="100%",
        layout="bubble",
        buttons=["copy"],
        feedback_options=None,
        allow_tags=False,
        sanitize_html=True,
        latex_delimiters=[],
        min_width=260,
        elem_classes="chat-pane",
    )
