"""How the models answer: temperature, top-p, length and seed, for all of them or for one alone.

A part of the Chat tab's side. The one surprising fact: a seed belongs to each answer alone, so the same seed gives the
same answer again, whoever answers beside it.
"""

import html
from typing import Any

import gradio as gr

from facellm.chat_events_tab import ChatEvents
from facellm.chat_session import ChatSession
from facellm.conversation import Sampling
from facellm.errors import FaceLLMError

ALL = "All models"


def build_settings(chat: ChatEvents, session: gr.State, models: gr.Dropdown, panes: list[gr.Chatbot]) -> None:
    """Build the fold with its events inside the open Gradio context."""
    usual = chat.usual
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    with gr.Accordion("How they answer", open=False, elem_id="chat-settings") as fold:
        whom = gr.Dropdown([ALL, *chat.first_choice()], value=ALL, label="For", elem_id="chat-whom")
        temperature = gr.Slider(0, 2, usual.temperature, step=0.1, label="Temperature")
        top_p = gr.Slider(0.05, 1, usual.top_p, step=0.05, label="Top-p")
        with gr.Row():
            length = gr.Number(usual.max_new_tokens, label="Tokens", precision=0, min_width=80)
            seed = gr.Number(usual.seed, label="Seed", precision=0, min_width=80)
        same = gr.Button("The same for all", size="sm", visible=False)
        marking = gr.Checkbox(False, label="Mark words that differ", elem_id="chat-marking")
        memory = gr.HTML(elem_id="chat-memory", padding=False)
    numbers: list[Any] = [temperature, top_p, length, seed]

    def shown(sampling: Sampling) -> list[Any]:
        return [sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.seed]

    def choose(state: ChatSession, name: str) -> list[Any]:
        return shown(chat.usual if name == ALL and not state.shared else state.sampling(name, chat.usual))

    def change(state: ChatSession, name: str, chosen: list[str], *values: float | None) -> list[Any]:
        hot, share, longest, number = (0 if value is None else value for value in values)
        try:
            sampling = Sampling.checked(temperature=hot, top_p=share, max_new_tokens=int(longest), seed=int(number))
        except FaceLLMError as error:
            gr.Warning(html.escape(str(error).replace("max_new_tokens", "Tokens").capitalize()), title="")
            return [*choose(state, name), gr.update(visible=bool(state.own)), *chat.show(state, chosen)]
        if name == ALL:
            state.shared = sampling
        else:
            state.own[name] = sampling
        return [*choose(state, name), gr.update(visible=bool(state.own)), *chat.show(state, chosen)]

    def make_same(state: ChatSession, chosen: list[str]) -> list[Any]:
        state.own.clear()
        return [ALL, *shown(state.shared or chat.usual), gr.update(visible=False), *chat.show(state, chosen)]

    def whose(state: ChatSession, chosen: list[str], name: str) -> list[Any]:
        now = name if name in chosen else ALL
        return [gr.update(choices=[ALL, *chosen], value=now), *choose(state, now)]

    whom.input(choose, [session, whom], numbers, **quiet)
    for number in numbers:
        event = number.release if isinstance(number, gr.Slider) else number.blur
        event(change, [session, whom, models, *numbers], [*numbers, same, *panes], **quiet)
    same.click(make_same, [session, models], [whom, *numbers, same, *panes], **quiet)
    models.change(whose, [session, models, whom], [whom, *numbers], **quiet)
    marking.input(chat.mark, [session, models, marking], panes, **quiet)
    fold.expand(lambda: _memory(chat), None, memory, show_progress="hidden", api_visibility="private")


def _memory(chat: ChatEvents) -> Any:
    """What the local models take, in short."""
    model = chat.answerers.model
    if model is None:
        return ""
    found = model.memory()
    parts = [
        ("weights", found.weights),
        ("adapters", found.adapters),
        ("kept turns", found.conversations),
        ("pictures", found.pictures),
    ]
    listed = ", ".join(f"{name} {_size(size)}" for name, size in parts if size)
    return f'<p class="chat-small">Memory on {model.device}: {listed}</p>'


def _size(size: int) -> str:
    unit, name = next(
        (unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if size >= unit or unit == 1e3
    )
    return f"{size / unit:.1f} {name}"
