"""The chat's endpoints for programs, /ask and /compare: for gradio_client, and as MCP tools where gradio[mcp] is there.

    client.predict(handle_file("face.png"), "Describe this image.", "facellm-tiny", api_name="/ask")

The docstrings below are the endpoints' documentation. The one surprising fact: everything else on the page is private,
so a program can ask, but neither train nor review.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import gradio as gr
from gradio.data_classes import FileData

from facellm.answerers import Answer
from facellm.chat_events_tab import ChatEvents
from facellm.chat_session import check_models, check_question
from facellm.config import Settings
from facellm.conversation import Request, Sampling, Turn
from facellm.errors import FaceLLMError, ModelError


def publish_endpoints(chat: ChatEvents, settings: Settings) -> None:
    """Make /ask and /compare inside the open Gradio context."""

    def answers(
        image: FileData | None, question: str, models: Sequence[str], sampling: Sampling
    ) -> Iterator[tuple[Answer, ...]]:
        try:
            check_models(models, chat.answerers.names())
            checked = check_question(
                str(question or ""), pictures=int(image is not None), longest=settings.max_question_chars
            )
            pictures = (chat.pictures.open_sent(image),) if image is not None else ()
            turn = Turn("user", checked, pictures)
            yield from chat.answerers.stream([Request((turn,), name, sampling) for name in models])
        except FaceLLMError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def ask(
        image: FileData | None,
        question: str,
        model: str = "",
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_new_tokens: int = settings.max_new_tokens,
        seed: int = 0,
    ) -> Iterator[str]:
        """Ask one model one question about one image. Yields the answer so far; the last is complete.

        Parameters:
            image: the picture, as gradio_client's handle_file(path or URL) sends it; null to ask without one.
            question: the question; empty to have the picture described.
            model: who answers: "Base" or another model's name; empty for the page's tuned model.
            temperature: 0 takes the likeliest word each time; up to 2.
            top_p: draw from the likeliest words that have this share of the chances together, 0 to 1.
            max_new_tokens: the longest answer, in tokens.
            seed: of the drawing; the same seed gives the same answer.
        """
        chosen = model or chat.first_choice()[-1]
        sampling = _sampling(temperature, top_p, max_new_tokens, seed)
        answer = Answer()
        for (answer,) in answers(image, question, [chosen], sampling):
            yield answer.text
        if answer.error is not None:  # it broke off
            raise gr.Error(answer.error, print_exception=False)

    def compare(
        image: FileData | None,
        question: str,
        models: list[str] | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_new_tokens: int = settings.max_new_tokens,
        seed: int = 0,
    ) -> Iterator[dict[str, dict[str, str | None]]]:
        """Ask several models one question about one image, side by side. The last of what it yields is complete.

        Yields, by model name, {"text": the answer so far, "error": why there will be no more, or null}.

        Parameters:
            image: the picture, as gradio_client's handle_file(path or URL) sends it; null to ask without one.
            question: the question; empty to have the picture described.
            models: who answers: "Base" and other models' names, at most four; null for those of the page.
            temperature: 0 takes the likeliest word each time; up to 2.
            top_p: draw from the likeliest words that have this share of the chances together, 0 to 1.
            max_new_tokens: the longest answer, in tokens.
            seed: of the drawing; the same seed gives the same answers.
        """
        chosen = list(dict.fromkeys([models] if isinstance(models, str) else models or chat.first_choice()))
        sampling = _sampling(temperature, top_p, max_new_tokens, seed)
        for some in answers(image, question, chosen, sampling):
            yield {name: asdict(answer) for name, answer in zip(chosen, some, strict=True)}

    gr.api(ask, api_name="ask", concurrency_limit=None)
    gr.api(compare, api_name="compare", concurrency_limit=None)


def _sampling(temperature: float, top_p: float, max_new_tokens: int, seed: int) -> Sampling:
    """The settings of a call.

    Raises:
        gr.Error: one is out of its bounds.
    """
    try:
        return Sampling.checked(
            temperature=float(temperature), top_p=float(top_p), max_new_tokens=int(max_new_tokens), seed=int(seed)
        )
    except ModelError as error:
        raise gr.Error(str(error), print_exception=False) from error
    except (TypeError, ValueError, OverflowError) as error:
        sentence = "temperature, top_p, max_new_tokens and seed are numbers, and one of them is not. Correct it."
        raise gr.Error(sentence, print_exception=False) from error
