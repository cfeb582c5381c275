"""What the Chat tab's page does when something is pressed: each event's inputs to its outputs.

The one surprising fact: Gradio closes a generator only between two of its yields, so the one that streams answers
yields without news while it waits; otherwise a closed browser tab would keep the model busy.
"""

import html
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_pil_to_cache

from facellm.answerers import BASE, Answerers
from facellm.chat_pictures_tab import Pictures
from facellm.chat_session import (
    MAX_PANES,
    ChatSession,
    Exchange,
    Picture,
    check_models,
    check_question,
    exchange_at,
    messages_of,
    request,
    topic,
)
from facellm.config import Settings
from facellm.conversation import Sampling
from facellm.data import Attribute, open_image
from facellm.errors import DataError, FaceLLMError

EXAMPLE = "example-face"  # the name of an example's copy
CONTROLS = 2 + len(Attribute)  # models, Clear and a topic each; kept still while answers are written
HOW_TO_START = "Pick a face, or add a picture of your own. Then press a topic, or ask in your own words."
NO_PICTURE = "There is no picture yet. Pick a face, or add a picture to the text field."
NOBODY = "**Nobody answers.**\n\nChoose a model under “Who answers”."
WENT_WRONG = "Something went wrong, and the log says what. Ask again."

Updates = list[Any]  # for the panes, the text field, the status and the controls, in this order
Start = Callable[[], tuple[list[str], list[Exchange]]]  # notes what is asked: who answers, and their exchanges
SendToReview = Callable[[str, str, Exchange, Sequence[Exchange]], str]  # see Review in app.py


class ChatEvents:
    """What happens on the page's events. Nothing here is about one visitor: that is in their session."""

    def __init__(
        self,
        answerers: Answerers,
        pictures: Pictures,
        examples: list[Path],
        settings: Settings,
        first_choice: Sequence[str],
        send_to_review: SendToReview,
    ) -> None:
        self.answerers = answerers
        self.pictures = pictures
        self._examples = examples
        self._settings = settings
        self._first_choice = first_choice
        self._send_to_review = send_to_review

    @property
    def usual(self) -> Sampling:
        """How models answer unless the visitor says otherwise."""
        return Sampling(max_new_tokens=self._settings.max_new_tokens)

    def first_choice(self) -> list[str]:
        """Who answers until the visitor chooses."""
        names = self.answerers.names()
        return [name for name in self._first_choice if name in names] or names[:2]

    def offer(self) -> Any:
        """Read the adapters anew: a training run may have finished."""
        return gr.Dropdown(choices=self.answerers.names())

    def arrive(self, page: gr.Request) -> Any:
        """The page was loaded: its address may name models, such as ?models=Base,run-1."""
        names = self.answerers.names()
        wanted = [name.strip() for name in page.query_params.get("models", "").split(",") if name.strip()]
        known = {name.casefold(): name for name in names}
        if gone := [name for name in wanted if name.casefold() not in known]:
            warn(f"There is no model {gone[0]}; there are: {', '.join(names)}.")
        chosen = list(dict.fromkeys(known[name.casefold()] for name in wanted if name.casefold() in known))[:MAX_PANES]
        return gr.Dropdown(choices=names, value=chosen) if chosen else gr.Dropdown(choices=names)

    def choose(self, session: ChatSession, adapter: str) -> list[Any]:
        """Let an adapter answer beside the base, in a new conversation: updates for the models and the panes."""
        session.panes = {}
        chosen = [BASE, adapter]
        return [gr.Dropdown(choices=self.answerers.names(), value=chosen), *self.show(session, chosen)]

    def show(self, session: ChatSession, chosen: list[str]) -> Updates:
        """The panes of the chosen models, with what was said in them."""
        filled = [self._pane(session, name, chosen) for name in chosen[:MAX_PANES]]
        filled = filled or [gr.update(value=[], label="Nobody", placeholder=NOBODY, visible=True)]
        return (filled + [gr.update(visible=False)] * MAX_PANES)[:MAX_PANES]

    def mark(self, session: ChatSession, chosen: list[str], marking: bool) -> Updates:
        """Mark the words that differ from the first pane's, or stop marking them."""
        session.marking = marking
        return self.show(session, chosen)

    def clear(self, session: ChatSession, chosen: list[str]) -> Updates:
        """Start over."""
        session.clear()
        return [*self.show(session, chosen), {"text": "", "files": []}, status_line("")]

    def stop(self, session: ChatSession) -> None:
        """End the answers that are being written; what there is of them stays."""
        if session.stop is not None:
            session.stop.set()

    def pick(self, value: dict[str, Any], event: gr.SelectData) -> Updates:
        """Put an example face into the text field, beside what was typed."""
        image = open_image(self._examples[event.index])
        copy = save_pil_to_cache(image, self.pictures.cache, name=EXAMPLE, format="png")
        own = [file for file in value["files"] if Path(file).stem != EXAMPLE]  # what the visitor has added stays
        return [{"text": value["text"], "files": [*own, copy]}, gr.Gallery(selected_index=None)]

    def answer(self, session: ChatSession, chosen: list[str], value: dict[str, Any]) -> Iterator[Updates]:
        """What is in the text field was sent."""
        yield from self._ask(session, chosen, value["text"], value)

    def answer_topic(
        self, attribute: Attribute, session: ChatSession, chosen: list[str], value: dict[str, Any]
    ) -> Iterator[Updates]:
        """A topic was pressed; what is being typed stays in the text field."""
        yield from self._ask(session, chosen, attribute.question, value, attribute=attribute)

    def _ask(
        self,
        session: ChatSession,
        chosen: list[str],
        question: str,
        value: dict[str, Any],
        *,
        attribute: Attribute | None = None,
    ) -> Iterator[Updates]:
        kept = "" if attribute is None else value["text"]

        def start() -> tuple[list[str], list[Exchange]]:
            check_models(chosen, self.answerers.names())
            checked, pictures = self.read(session, question, value)
            return chosen, session.ask(chosen, checked, pictures, attribute=attribute, usual=self.usual)

        yield from self._answer(session, chosen, start, asked={"text": kept, "files": []}, failed=value)

    def read(self, session: ChatSession, question: str, value: dict[str, Any]) -> tuple[str, list[Picture]]:
        """The question as it is asked, and the new pictures of the text field.

        Raises:
            DataError: there is nothing to ask, too much, or no picture to ask about, new or old.
        """
        files = value["files"]
        checked = check_question(question, pictures=len(files), longest=self._settings.max_question_chars)
        if not files and not session.pictures:
            raise DataError(NO_PICTURE)
        return checked, [self.pictures.take(file) for file in files]

    def again(self, pane: int, session: ChatSession, chosen: list[str], value: dict[str, Any]) -> Iterator[Updates]:
        """Let one model answer its last question again."""
        if session.panes.get(chosen[pane]) and session.sampling(chosen[pane], self.usual).temperature == 0:
            gr.Info("At temperature 0 it says the same each time. Raise it under “How they answer”.", title="")

        def start() -> tuple[list[str], list[Exchange]]:
            return [chosen[pane]], [session.ask_again(chosen[pane], self.usual)]

        yield from self._answer(session, chosen, start, asked=value, failed=value)

    def ask_edited(
        self, pane: int, message: int, text: str, session: ChatSession, chosen: list[str], value: dict[str, Any]
    ) -> Iterator[Updates]:
        """A question was changed: all models answer it anew, and what came after it is forgotten."""

        def start() -> tuple[list[str], list[Exchange]]:
            check_models(chosen, self.answerers.names())
            turn = exchange_at(session.panes.get(chosen[pane], []), message).turn
            checked = check_question(text, pictures=0, longest=self._settings.max_question_chars)
            return chosen, session.ask(chosen, checked, session.go_back_to(turn), usual=self.usual)

        yield from self._answer(session, chosen, start, asked=value, failed=value)

    def _answer(
        self, session: ChatSession, chosen: list[str], start: Start, *, asked: dict[str, Any], failed: dict[str, Any]
    ) -> Iterator[Updates]:
        """Ask and stream the answers; if that fails, the page is as it was before.

        Args:
            asked: the text field once the question is asked.
            failed: the text field if it cannot be.
        """

        def work(stop: threading.Event) -> Iterator[Updates]:
            asking, exchanges = start()
            requests = [request(name, session.panes[name]) for name in asking]
            busy = box_update(busy=True, value=asked)
            yield updates(self.show(session, chosen), busy, status_line("Answering…"), busy=True)
            yield from self._stream(session, chosen, exchanges, requests, stop)

        yield from guarded(session, work, lambda: self._as_before(session, chosen, failed), updates())

    def _as_before(self, session: ChatSession, chosen: list[str], value: dict[str, Any]) -> Updates:
        return updates(self.show(session, chosen), box_update(busy=False, value=value), status_line(""), busy=False)

    def _stream(
        self,
        session: ChatSession,
        chosen: list[str],
        exchanges: list[Exchange],
        requests: list[Any],
        stop: threading.Event,
    ) -> Iterator[Updates]:
        started, shown = time.monotonic(), None
        with closing(self.answerers.stream(requests, stop=stop)) as stream:  # type: ignore[type-var]
            for answers in stream:
                if answers == shown:
                    yield updates()  # no news: only so that Gradio can close this generator
                    continue
                shown = answers
                for exchange, answer in zip(exchanges, answers, strict=True):
                    exchange.take(answer)
                yield updates(self._written(session, chosen))
        for exchange in exchanges:
            exchange.done, exchange.stopped = True, stop.is_set() and not exchange.complete
        ended = "Stopped after" if stop.is_set() else "Answered in"
        yield updates(
            self._written(session, chosen),
            box_update(busy=False),
            status_line(f"{ended} {time.monotonic() - started:.1f} s"),
            busy=False,
        )

    def _written(self, session: ChatSession, chosen: list[str]) -> Updates:
        """The chosen panes; a pane's name always travels with its text, so neither can stand with another's."""
        filled: Updates = [self._pane(session, name, chosen) for name in chosen]
        return filled + [gr.skip()] * (MAX_PANES - len(chosen))

    def _pane(self, session: ChatSession, name: str, chosen: Sequence[str]) -> Any:
        first = session.panes.get(chosen[0], []) if session.marking and name != chosen[0] else []
        messages = messages_of(session.panes.get(name, []), beside=first)
        label = f"{name} · own settings" if name in session.own else name
        return gr.update(value=messages, label=label, placeholder=self.who_this_is(name), visible=True)

    def who_this_is(self, name: str) -> str:
        """What an empty pane says about its model, and how to begin."""
        if name == BASE:
            who = "The model before fine-tuning."
        elif name in self.answerers.remote_names:
            who = "A model on another server."
        else:
            who = "The same model after fine-tuning."
        return f"**{who}**\n\n{HOW_TO_START}"

    def send_to_review(self, pane: int, session: ChatSession, chosen: list[str]) -> None:
        """Store a pane's last exchange as a pair that waits for review."""
        try:
            exchanges = session.panes.get(chosen[pane], []) if pane < len(chosen) else []
            if not exchanges or not exchanges[-1].done or not exchanges[-1].answer.strip():
                raise DataError("There is no answer to send yet. Ask something first.")
            last, name = exchanges[-1], chosen[pane]
            if last.stopped:
                raise DataError("This answer was stopped before its end. Ask again, and send the whole answer.")
            *earlier, _ = topic(exchanges)
            if not last.pictures:
                last = replace(last, pictures=topic(exchanges)[0].pictures)
            earlier = [each for each in earlier if each.answer]
            said = self._send_to_review(name, self.answerers.source(name), last, earlier)
        except FaceLLMError as error:
            warn(str(error))
        else:
            gr.Info(html.escape(said), title="", duration=4)


def guarded(
    session: ChatSession,
    work: Callable[[threading.Event], Iterator[Updates]],
    as_before: Callable[[], Updates],
    nothing: Updates,
) -> Iterator[Updates]:
    """Answer one question of a session; if that fails, say why and leave the page as it was.

    Args:
        work: yields the updates; it gets what Stop sets.
        as_before: the updates that unlock the page.
        nothing: the updates that change nothing, for when another answer is still being written.
    """
    try:
        with session.answering() as stop:
            yield from work(stop)
    except FaceLLMError as error:
        warn(str(error))
        yield nothing if session.stop is not None else as_before()
    except Exception:  # a fault of ours, or of torch: the page must not stay locked because of it
        warn(WENT_WRONG)
        yield as_before()
        raise


def box_update(*, busy: bool, value: dict[str, Any] | None = None) -> Any:
    """The text field with Send, or with Stop while answers are written; without a value its text stays."""
    buttons = gr.update(submit_btn=not busy, stop_btn="Stop" if busy else False)
    return buttons if value is None else buttons | {"value": value}


def status_line(text: str) -> str:
    """The line that says what is going on; screen readers speak it."""
    return f'<span role="status">{html.escape(text)}</span>'


def updates(
    panes: Updates | None = None, box: Any = None, status: str | None = None, *, busy: bool | None = None
) -> Updates:
    """The outputs of an event; what is left out stays as it is."""
    controls = gr.skip() if busy is None else gr.update(interactive=not busy)
    return [
        *(panes or [gr.skip()] * MAX_PANES),
        gr.skip() if box is None else box,
        gr.skip() if status is None else status,
        *[controls] * CONTROLS,
    ]


def warn(sentence: str) -> None:
    """Tell the visitor what is wrong; the page stays as it is."""
    gr.Warning(html.escape(sentence), title="")
