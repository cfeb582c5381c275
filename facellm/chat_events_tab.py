"""What the Chat tab's page does when something is pressed: each event's inputs to its outputs.

The one surprising fact: Gradio closes a generator only between two of its yields, so the one that streams answers
yields without news while it waits; otherwise a closed browser tab would keep the model busy.
"""

import html
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.data_classes import FileData
from gradio.processing_utils import save_pil_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from facellm.chat_session import (
    BASE,
    MAX_PANES,
    ChatSession,
    Exchange,
    Picture,
    check_models,
    check_question,
    messages_of,
    request,
)
from facellm.config import Settings
from facellm.conversation import Request, Sampling, Turn
from facellm.data import Attribute, open_image
from facellm.errors import FaceLLMError, ImageError

if TYPE_CHECKING:
    from facellm.model import ChatModel

SHOWN_SIZE = 512  # pixels: the longer side of a picture's copy on the page
CONTROLS = 2 + len(Attribute)  # models, Clear and a topic each; kept still while answers are written
HOW_TO_START = "Pick a face, or add a picture of your own. Then press a topic, or ask in your own words."

Updates = list[Any]  # for the panes, the text field, the status and the controls, in this order


class ChatEvents:
    """What happens on the page's events. Nothing here is about one visitor: that is in their session."""

    def __init__(
        self, model: "ChatModel", catalog: Callable[[], dict[str, Path]], examples: list[Path], settings: Settings
    ) -> None:
        self._model = model
        self._catalog = catalog
        self._examples = examples
        self._settings = settings

    def names(self) -> list[str]:
        """All models that can be chosen."""
        return [BASE, *self._catalog()]

    def first_choice(self) -> list[str]:
        """The base, beside the adapter of the settings."""
        own = self._settings.adapter_path
        return [BASE, *(name for name, path in self._catalog().items() if path == own)]

    def offer(self) -> Any:
        """Read the adapters anew: a training run may have finished."""
        return gr.Dropdown(choices=self.names())

    def choose(self, adapter: str) -> Any:
        """Let an adapter answer beside the base."""
        return gr.Dropdown(choices=self.names(), value=[BASE, adapter])

    def show(self, session: ChatSession, chosen: list[str]) -> Updates:
        """The panes of the chosen models, with what was said in them."""
        filled = [_filled_pane(name, session.panes.get(name, [])) for name in chosen]
        return (filled + [gr.Chatbot(visible=False)] * MAX_PANES)[:MAX_PANES]

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
        copy = save_pil_to_cache(open_image(self._examples[event.index]), _cache(), name="face", format="png")
        return [{"text": value["text"], "files": [copy]}, gr.Gallery(selected_index=None)]

    def answer(self, session: ChatSession, chosen: list[str], value: dict[str, Any]) -> Iterator[Updates]:
        """What is in the text field was sent."""
        yield from self._answer(session, chosen, value["text"], value, kept="")

    def answer_topic(
        self, topic: Attribute, session: ChatSession, chosen: list[str], value: dict[str, Any]
    ) -> Iterator[Updates]:
        """A topic was pressed; what is being typed stays in the text field."""
        if value["files"] or session.pictures:
            yield from self._answer(session, chosen, topic.question, value, kept=value["text"], afresh=True)
        else:
            _warn("There is no picture yet. Pick a face, or add a picture to the text field.")
            yield _updates()

    def _answer(
        self,
        session: ChatSession,
        chosen: list[str],
        question: str,
        value: dict[str, Any],
        *,
        kept: str,
        afresh: bool = False,
    ) -> Iterator[Updates]:
        """Ask the chosen models and stream their answers; if that fails, the page is as it was before."""
        try:
            with session.answering() as stop:
                check_models(chosen, self.names())
                files = value["files"]
                question = check_question(question, pictures=len(files), longest=self._settings.max_question_chars)
                pictures = [self._picture(Path(file)) for file in files]
                exchanges = session.ask(chosen, question, pictures, afresh=afresh)
                requests = [request(name, session.panes[name], self._open) for name in chosen]
                yield _updates(
                    self.show(session, chosen),
                    _box(busy=True, value={"text": kept}),
                    status_line("Answering…"),
                    busy=True,
                )
                self._load(chosen)
                yield from self._stream(session, chosen, exchanges, requests, stop)
        except FaceLLMError as error:
            _warn(str(error))
            still_busy = session.stop is not None  # another event's answer is being written
            yield (
                _updates()
                if still_busy
                else _updates(self.show(session, chosen), _box(busy=False, value=value), status_line(""), busy=False)
            )

    def _stream(
        self,
        session: ChatSession,
        chosen: list[str],
        exchanges: list[Exchange],
        requests: list[Request],
        stop: threading.Event,
    ) -> Iterator[Updates]:
        started, shown = time.monotonic(), ("",) * len(chosen)
        sampling = Sampling(max_new_tokens=self._settings.max_new_tokens)
        if before := self._model.pending:
            yield _updates(status=status_line(f"Waiting for {before} other {'answer' if before == 1 else 'answers'}…"))
        with closing(self._model.stream(requests, sampling, stop=stop)) as stream:  # type: ignore[type-var]
            for texts in stream:
                if texts == shown:
                    yield _updates()  # no news: only so that Gradio can close this generator
                    continue
                shown = texts
                for exchange, text in zip(exchanges, texts, strict=True):
                    exchange.answer = text
                yield _updates(self._written(session, chosen))
        for exchange in exchanges:
            exchange.done = True
        ended = "Stopped after" if stop.is_set() else "Answered in"
        yield _updates(
            self._written(session, chosen),
            _box(busy=False),
            status_line(f"{ended} {time.monotonic() - started:.1f} s"),
            busy=False,
        )

    def _written(self, session: ChatSession, chosen: list[str]) -> Updates:
        """The chosen panes; a pane's name always travels with its text, so neither can stand with another's."""
        filled: Updates = [_filled_pane(name, session.panes[name]) for name in chosen]
        return filled + [gr.skip()] * (MAX_PANES - len(chosen))

    def _load(self, chosen: Sequence[str]) -> None:
        adapters = self._catalog()
        for name in chosen:
            if name != BASE:
                self._model.add_adapter(name, adapters[name])

    def _picture(self, file: Path) -> Picture:
        copy = self._open(file)
        copy.thumbnail((SHOWN_SIZE, SHOWN_SIZE))
        return Picture(file, save_pil_to_cache(copy, _cache(), name="picture", format="webp"))

    def _open(self, file: Path) -> Image.Image:
        limits = self._settings
        return open_image(
            file, max_bytes=int(limits.max_image_mb * 1024 * 1024), max_pixels=int(limits.max_image_megapixels * 1e6)
        )

    def ask(self, image: FileData | None, question: str, models: list[str] | None = None) -> Iterator[dict[str, str]]:
        """Ask one question about one image. Yields the answers so far, by model name; the last is complete.

        Parameters:
            image: the picture, as gradio_client's handle_file(path or URL) sends it; null to ask without one.
            question: the question; empty to have the picture described.
            models: who answers: "Base" and adapters' names, at most four. By default those of the page.
        """
        chosen = models or self.first_choice()
        try:
            check_models(chosen, self.names())
            question = check_question(
                question, pictures=int(image is not None), longest=self._settings.max_question_chars
            )
            pictures = (self._open(_uploaded(image)),) if image is not None else ()
            self._load(chosen)
            turn = Turn("user", question, pictures)
            requests = [Request((turn,), None if name == BASE else name) for name in chosen]
            sampling = Sampling(max_new_tokens=self._settings.max_new_tokens)
            for texts in self._model.stream(requests, sampling):
                yield dict(zip(chosen, texts, strict=True))
        except FaceLLMError as error:
            raise gr.Error(str(error), print_exception=False) from error


def _uploaded(image: FileData | dict[str, Any]) -> Path:
    """The path of a file that a client uploaded; never any other file of this machine."""
    path = Path(image["path"] if isinstance(image, dict) else image.path).resolve()
    if not path.is_relative_to(Path(get_upload_folder()).resolve()):
        raise ImageError("The image was not uploaded. Send it with gradio_client's handle_file.")
    return path


def _cache() -> str:
    """Gradio's folder for files of the page; app.py has them deleted after a while."""
    return get_upload_folder()


def _filled_pane(name: str, pane: Sequence[Exchange]) -> Any:
    return gr.update(value=messages_of(pane), label=name, placeholder=who_this_is(name), visible=True)


def who_this_is(name: str) -> str:
    """What an empty pane says about its model, and how to begin."""
    who = "The model before fine-tuning." if name == BASE else "The same model after fine-tuning."
    return f"**{who}**\n\n{HOW_TO_START}"


def _box(*, busy: bool, value: dict[str, Any] | None = None) -> Any:
    """The text field with Send, or with Stop while answers are written; without a value its text stays."""
    buttons = gr.update(submit_btn=not busy, stop_btn="Stop" if busy else False)
    return buttons if value is None else buttons | {"value": value}


def status_line(text: str) -> str:
    """The line that says what is going on; screen readers speak it."""
    return f'<span role="status">{html.escape(text)}</span>'


def _updates(
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


def _warn(sentence: str) -> None:
    gr.Warning(html.escape(sentence), title="")
