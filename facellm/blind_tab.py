"""The Chat tab's blind test: two models answer as A and B, and their names come with the visitor's vote.

The one surprising fact: the order is drawn anew for each question, and what is stored of the question and the picture
is a hash, so a vote says which models were compared, and nothing about the visitor's face.
"""

import hashlib
import html
import random
import secrets
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from facellm.answerers import Answer
from facellm.chat_events_tab import CONTROLS, ChatEvents, box_update, guarded, status_line, warn
from facellm.chat_session import ChatSession, Exchange, Round, messages_of
from facellm.conversation import Request, Turn
from facellm.data import Attribute
from facellm.errors import DataError, FaceLLMError
from facellm.permission import Refusal, check
from facellm.ranking import ENOUGH_VOTES, Ranking, rank
from facellm.votes import Outcome, Vote, hash_prompt

VERDICTS = {
    Outcome.A: "A is better",
    Outcome.B: "B is better",
    Outcome.TIE: "Equal",
    Outcome.BOTH_BAD: "Both bad",
}
DOWNLOAD = "download all votes"
RULES = "Two models answer without their names. Ask, read both answers, and vote: then you see who they were."

# For both panes, the verdicts and the line below; then for the text field, the status and the controls.
Updates = list[Any]


@dataclass(frozen=True)
class VoteBook:
    """Where votes are kept."""

    record: Callable[[Vote], object]
    votes: Callable[[], list[Vote]]
    export: Callable[[Path], object]  # writes all votes to a .csv file
    refusal: Refusal  # why somebody may not have that file


@dataclass(frozen=True)
class BlindParts:
    """The components, in the order of `Updates`."""

    group: gr.Column
    panes: list[gr.Chatbot]
    verdicts: list[gr.Button]
    line: gr.HTML

    @property
    def shown(self) -> list[Any]:
        """What an event changes of them."""
        return [*self.panes, *self.verdicts, self.line]


def build_blind(empty_pane: Callable[[str], gr.Chatbot]) -> BlindParts:
    """Build the part inside the open Gradio context, hidden at first."""
    with gr.Column(visible=False, elem_id="chat-blind") as group:
        with gr.Row(elem_classes="chat-panes", equal_height=True):
            panes = [empty_pane(letter) for letter in "AB"]
        line = gr.HTML(elem_id="blind-line", padding=False)
        with gr.Row(elem_id="blind-verdicts"):
            verdicts = [gr.Button(name, size="sm", min_width=90, interactive=False) for name in VERDICTS.values()]
    return BlindParts(group, panes, verdicts, line)


def build_ranking() -> tuple[gr.Column, gr.HTML, gr.Button, gr.DownloadButton]:
    """Build the ranking inside the open Gradio context, hidden at first; returns its group, table, and download.

    A DownloadButton hands out the file that it has when it is pressed. So a plain button has the file written first,
    and then presses the other, which nobody sees.
    """
    with gr.Column(visible=False, elem_id="blind-ranking") as group, gr.Accordion("Ranking", open=False):
        ranking = gr.HTML(padding=False)
        export = gr.Button("Download all votes", size="sm", scale=0, visible=False)
        file = gr.DownloadButton("The file", elem_id="blind-file", elem_classes="blind-file")
    return group, ranking, export, file


class BlindEvents:
    """What happens in the blind test. Nothing here is about one visitor: that is in their session."""

    def __init__(self, chat: ChatEvents, book: VoteBook) -> None:
        self._chat = chat
        self._book = book
        self._voting = threading.Lock()

    def answer(
        self,
        session: ChatSession,
        chosen: list[str],
        value: dict[str, Any],
        *,
        attribute: Attribute | None = None,
    ) -> Iterator[Updates]:
        """A question was sent or a topic was pressed: draw two models and stream their answers."""
        question, kept = (value["text"], "") if attribute is None else (attribute.question, value["text"])

        def work(stop: threading.Event) -> Iterator[Updates]:
            current = session.blind = self._draw(session, chosen, question, value, attribute)
            asked = box_update(busy=True, value={"text": kept, "files": []})
            yield self._view(current, asked, "Answering…", busy=True)
            started = time.monotonic()
            requests = [self._request(session, name, each) for name, each in self._each(current)]
            with closing(self._chat.answerers.stream(requests, stop=stop)) as stream:  # type: ignore[type-var]
                for answers in stream:
                    for exchange, answer in zip(current.exchanges, answers, strict=True):
                        exchange.take(_nameless(answer))
                    yield self._view(current)
            for exchange in current.exchanges:
                exchange.done, exchange.stopped = True, stop.is_set() and not exchange.complete
            ended = f"{'Stopped after' if stop.is_set() else 'Answered in'} {time.monotonic() - started:.1f} s"
            yield self._view(current, box_update(busy=False), ended, busy=False)

        def as_before() -> Updates:
            session.blind = None
            return self._view(None, box_update(busy=False, value=value), "", busy=False)

        nothing = [gr.skip()] * len(self._view(None))
        yield from guarded(session, work, as_before, nothing)

    def _draw(
        self,
        session: ChatSession,
        chosen: Sequence[str],
        question: str,
        value: dict[str, Any],
        attribute: Attribute | None,
    ) -> Round:
        names = self._chat.answerers.names()
        candidates = [name for name in chosen if name in names]
        if len(candidates) < 2:
            raise DataError("A blind test needs two models. Choose two or more under “Who answers”.")
        checked, pictures = self._chat.read(session, question, value)
        session.pictures = tuple(pictures) or session.pictures
        order_seed = secrets.randbelow(2**31)
        first, second = random.Random(order_seed).sample(sorted(candidates), 2)
        sources = (self._chat.answerers.source(first), self._chat.answerers.source(second))
        sampling = session.shared or self._chat.usual
        exchanges = [Exchange(checked, session.pictures, attribute=attribute, sampling=sampling) for _ in range(2)]
        return Round((first, second), sources, order_seed, (exchanges[0], exchanges[1]))

    @staticmethod
    def _each(current: Round) -> Iterator[tuple[str, Exchange]]:
        yield from zip(current.models, current.exchanges, strict=True)

    @staticmethod
    def _request(session: ChatSession, name: str, exchange: Exchange) -> Request:
        images = tuple(picture.image for picture in session.pictures)
        return Request((Turn("user", exchange.question, images),), name, exchange.sampling)

    def vote(self, outcome: Outcome, session: ChatSession) -> Updates:
        """Store the verdict, and show who A and B were; updates for the parts and the ranking."""
        current = session.blind
        with self._voting:  # two quick clicks are one vote
            counts = current is not None and current.ready
            if current is not None and counts:
                current.voted = True
        if current is None or not counts:
            return [*self._parts(current), gr.skip()]
        try:
            self._book.record(self._vote(outcome, session, current))
        except FaceLLMError as error:
            current.voted = False
            warn(str(error))
            return [*self._parts(current), gr.skip()]
        return [*self._parts(current), self.ranking()]

    def _vote(self, outcome: Outcome, session: ChatSession, current: Round) -> Vote:
        first = current.exchanges[0]
        a, b = current.models
        session.visitor = session.visitor or uuid.uuid4().hex
        return Vote(
            uuid=current.uuid,
            prompt_sha256=hash_prompt(first.question),
            image_sha256=tuple(_hash(picture.image) for picture in first.pictures),
            a=a,
            b=b,
            a_source=current.sources[0],
            b_source=current.sources[1],
            seed=first.sampling.seed,
            temperature=first.sampling.temperature,
            top_p=first.sampling.top_p,
            max_new_tokens=first.sampling.max_new_tokens,
            order_seed=current.order_seed,
            outcome=outcome,
            attribute=first.attribute,
            voter=session.visitor,
        )

    def ranking(self) -> str:
        """The ranking as it is now."""
        return ranking_html(rank(self._book.votes()))

    def arrive(self, request: gr.Request) -> list[Any]:
        """The page was loaded: the ranking, and the button for all votes if they may be had."""
        return [self.ranking(), gr.update(visible=not self._book.refusal(request, DOWNLOAD))]

    def export(self, request: gr.Request) -> str:
        """Write all votes to a file to download."""
        try:
            check(self._book.refusal, request, DOWNLOAD)
        except FaceLLMError as error:
            warn(str(error))
            raise gr.Error(visible=False, print_exception=False) from error  # so that nothing is downloaded
        path = Path(tempfile.mkdtemp(dir=self._chat.pictures.cache)) / "votes.csv"
        self._book.export(path)
        return str(path)

    def clear(self, session: ChatSession) -> Updates:
        """Start over; the text field and the controls are the Chat tab's own to clear."""
        session.blind = None
        return self._parts(None)

    @classmethod
    def _view(
        cls, current: Round | None, box: Any = None, status: str | None = None, *, busy: bool | None = None
    ) -> Updates:
        controls = gr.skip() if busy is None else gr.update(interactive=not busy)
        return [
            *cls._parts(current),
            gr.skip() if box is None else box,
            gr.skip() if status is None else status_line(status),
            *[controls] * CONTROLS,
        ]

    @staticmethod
    def _parts(current: Round | None) -> Updates:
        panes, line = [gr.update(value=[], label=letter) for letter in "AB"], ""
        ready = False
        if current is not None:
            ready = current.ready
            names = current.models if current.voted else ("", "")
            panes = [
                gr.update(value=messages_of([exchange]), label=f"{letter}: {name}" if name else letter)
                for letter, name, exchange in zip("AB", names, current.exchanges, strict=True)
            ]
            if current.voted:
                told = " and ".join(
                    f"{letter} was <b>{html.escape(name)}</b>" for letter, name in zip("AB", names, strict=True)
                )
                line = f'<p role="status">Thank you. {told}. Ask the next question.</p>'
            elif ready:
                line = '<p role="status">Which answer is better?</p>'
        return [*panes, *[gr.update(interactive=ready)] * len(VERDICTS), line]


def _nameless(answer: Answer) -> Answer:
    """An error may name its model; who it is must not be seen before the vote."""
    return answer if answer.error is None else replace(answer, error="This model could not answer.")


def _hash(image: Any) -> str:
    """SHA-256 of a picture's size and pixels."""
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()


def ranking_html(ranking: Ranking) -> str:
    """The table of models by strength; without scores while there are few votes."""
    if not ranking.enough:
        said = f"Not enough votes for a ranking: {ranking.votes} of {ENOUGH_VOTES}."
        if not ranking.votes:
            return f'<p class="chat-small">{said}</p>'
    else:
        said = f"{ranking.votes} votes; Bradley–Terry, 95 % intervals; 400 points are ten times the odds."
    head = "<th>Model</th><th>Score</th><th>95 %</th><th>Won</th><th>Tied</th><th>Lost</th><th>Both bad</th>"
    rows = "".join(
        f"<tr><td>{html.escape(each.label)}</td>"
        + (
            f"<td>{each.score:.0f}</td><td>{each.low:.0f}–{each.high:.0f}</td>"
            if ranking.enough
            else "<td>–</td><td>–</td>"
        )
        + f"<td>{each.wins}</td><td>{each.ties}</td><td>{each.losses}</td><td>{each.both_bad}</td></tr>"
        for each in ranking.standings
    )
    return f'<p class="chat-small">{said}</p><table class="chat-table"><tr>{head}</tr>{rows}</table>'
