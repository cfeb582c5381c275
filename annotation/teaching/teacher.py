"""One request to a teacher, and what its reply means.

    teacher = Teacher(server, "some-model", Parameters(detail="low"))
    reply = await teacher.ask(client, ask, url)

A teacher is a model of any OpenAI-compatible server. The surprising fact: a reply may be paid for and of no use: cut
off, filtered, refused or not in the form asked for. The client's own parsing raises in such cases and may lose the
usage, so the reply is read here, and nothing is asked again here: `generate.py` decides that.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any, Literal

import httpx2
import openai
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from annotation.checks.refusals import is_refusal
from annotation.models import AttemptState, TaskState
from annotation.teaching.prompts import SYSTEM, answer_schema
from facellm.data import Attribute
from facellm.remote_server import Server

RAW_CHARS = 100_000  # of a reply that are kept
_OF_TASK = {
    TaskState.REFUSED: AttemptState.REFUSED,
    TaskState.FILTERED: AttemptState.FILTERED,
    TaskState.CUT: AttemptState.CUT,
    TaskState.INVALID: AttemptState.INVALID,
}

CLIENT_ERRORS = (openai.APIError, httpx2.HTTPError, TimeoutError, UnicodeDecodeError)  # for which a server is to blame


class Parameters(BaseModel):
    """What else a teacher is told, as part of the identity of what it answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detail: Literal["auto", "low", "high", "original"] = "low"
    max_completion_tokens: int = Field(default=400, ge=1)  # of one answer; a request for several may use so many each
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = None
    reasoning_effort: str | None = None

    @property
    def text(self) -> str:
        """Canonical JSON of what was set."""
        return json.dumps(self.model_dump(exclude_none=True), sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Form:
    """What the reply to one question has to look like.

    Args:
        name: for the server.
        schema: JSON schema, by the rules of strict structured outputs.
        fits: whether a text keeps to it; not every server heeds a schema.
    """

    name: str
    schema: Mapping[str, Any]
    fits: Callable[[str], bool]


@dataclass(frozen=True)
class Ask:
    """What one request asks: one question, or several in one structured reply.

    Args:
        attributes: one where `combined` is false.
        instruction: the text that goes with the picture.
        combined: whether the reply is to be a JSON object, attribute → answer.
        system: the system prompt.
        form: of the reply where it is not prose; only where `combined` is false, which has a form of its own.
    """

    attributes: tuple[Attribute, ...]
    instruction: str
    combined: bool
    system: str = SYSTEM
    form: Form | None = None


class Next(Enum):
    """What a reply calls for."""

    DONE = auto()
    RETRY = auto()  # the same again, later
    LIMITED = auto()  # the same, but we were too fast
    STOP = auto()  # nothing of this run can succeed


@dataclass
class Reply:
    """What came of one request; `answers` holds for each attribute its text, or the state of its task."""

    state: AttemptState
    next: Next = Next.DONE
    answers: Mapping[Attribute, str | TaskState] = field(default_factory=dict)
    http_status: int | None = None
    error: str = ""
    retry_after_s: float | None = None
    returned_model: str | None = None
    fingerprint: str | None = None
    service_tier: str | None = None
    request_id: str | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    latency_s: float | None = None
    raw: str = ""


class _Details(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    prompt_tokens_details: _Details | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    model: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    usage: _Usage | None = None


class Teacher:
    """A model and what it is told beside the question.

    Args:
        server: where it is.
        model: its name there.
        parameters: of every request.
    """

    def __init__(self, server: Server, model: str, parameters: Parameters) -> None:
        self.server = server
        self.model = model
        self.parameters = parameters

    def body(self, ask: Ask, image_url: str) -> dict[str, Any]:
        """The request as JSON, for a single request and for a line of a batch."""
        told = self.parameters.model_dump(exclude_none=True, exclude={"detail"})
        told["max_completion_tokens"] *= len(ask.attributes)
        picture = {"type": "image_url", "image_url": {"url": image_url, "detail": self.parameters.detail}}
        content = [picture, {"type": "text", "text": ask.instruction}]
        messages: list[Any] = [{"role": "system", "content": ask.system}, {"role": "user", "content": content}]
        body = {"model": self.model, "messages": messages, **told}
        if ask.combined or ask.form:
            name, schema = (ask.form.name, ask.form.schema) if ask.form else ("answers", answer_schema(ask.attributes))
            form = {"name": name, "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body

    async def ask(self, client: openai.AsyncOpenAI, ask: Ask, image_url: str) -> Reply:
        """Send one request and read what comes; never raises for what a server may do."""
        body = self.body(ask, image_url)
        messages: Sequence[ChatCompletionMessageParam] = body.pop("messages")
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.server.timeout_s):  # the client's own limit is between two bytes
                raw = await client.chat.completions.with_raw_response.create(messages=messages, **body)
                reply = read_completion(raw.text, ask)
                reply.request_id = raw.headers.get("x-request-id")
        except CLIENT_ERRORS as error:
            reply = self.failure(error, ask)
        reply.latency_s = time.monotonic() - began
        reply.raw = self.server.without_key(reply.raw)[:RAW_CHARS]
        return reply

    def failure(self, error: Exception, ask: Ask | None = None) -> Reply:
        """What one of CLIENT_ERRORS means; `ask` is None where nothing was asked of the model, such as at an upload."""
        if isinstance(error, TimeoutError | openai.APITimeoutError | httpx2.TimeoutException):
            return Reply(
                AttemptState.ERROR, Next.RETRY, error=f"Timeout: no answer within {self.server.timeout_s:g} s."
            )
        if not isinstance(error, openai.APIStatusError):
            said = self.server.without_key(f"{type(error).__name__}: {error}")
            return Reply(AttemptState.ERROR, Next.RETRY, error=said[:500])
        headers = error.response.headers
        reply = read_failure(error.status_code, error.body, self.server.said(error), ask)
        reply.request_id = headers.get("x-request-id")
        reply.retry_after_s = retry_after(headers)
        return reply


def read_failure(status: int, error: object, said: str, ask: Ask | None) -> Reply:
    """What a reply with another status than 200 means.

    Args:
        status: the HTTP status.
        error: the server's error object, with its code and type.
        said: the server's own words.
        ask: what was asked.
    """
    reply = Reply(AttemptState.ERROR, Next.RETRY, http_status=status, error=said or f"HTTP {status}")
    code = error_codes(error)
    if "insufficient_quota" in code or status in (401, 402, 403, 404) or status < 400:
        reply.next = Next.STOP
    elif status in (429, 503, 529):
        reply.next = Next.LIMITED
    elif status < 500 and status not in (408, 409, 425):
        reply.next = Next.DONE
        if any("content_filter" in each or "content_policy" in each or "moderation" in each for each in code):
            reply.state = AttemptState.FILTERED
            reply.answers = dict.fromkeys(ask.attributes if ask else (), TaskState.FILTERED)
    return reply


def read_completion(text: str, ask: Ask) -> Reply:
    """What the body of a reply with status 200 means."""
    try:
        completion = _Completion.model_validate_json(text)
    except ValidationError:
        said = "The server answered with something else than a chat completion."
        return Reply(AttemptState.ERROR, Next.RETRY, http_status=200, error=said, raw=text)
    choice = completion.choices[0]
    answers = _answers(choice, ask)
    ends = [answer for answer in answers.values() if isinstance(answer, TaskState)]
    state = _OF_TASK[ends[0]] if len(ends) == len(answers) else AttemptState.OK
    reply = Reply(state, answers=answers, http_status=200, raw=choice.message.refusal or choice.message.content or "")
    reply.returned_model, reply.fingerprint = completion.model, completion.system_fingerprint
    reply.service_tier = completion.service_tier
    if completion.usage is not None:
        details = completion.usage.prompt_tokens_details
        reply.input_tokens, reply.output_tokens = completion.usage.prompt_tokens, completion.usage.completion_tokens
        reply.cached_tokens = details.cached_tokens if details else None
    return reply


def _answers(choice: _Choice, ask: Ask) -> dict[Attribute, str | TaskState]:
    """The text for each attribute, or why there is none."""
    for_all: TaskState | None = None
    if choice.finish_reason == "content_filter":
        for_all = TaskState.FILTERED
    elif choice.message.refusal:
        for_all = TaskState.REFUSED
    elif choice.finish_reason == "length":
        for_all = TaskState.CUT
    if for_all is not None:
        return dict.fromkeys(ask.attributes, for_all)
    content = (choice.message.content or "").strip()
    if not ask.combined:
        return {ask.attributes[0]: _answer(content, ask.form)}
    try:
        found = json.loads(content)
    except ValueError:
        whole = _answer(content)  # some models refuse in prose, whatever form was asked for
        return dict.fromkeys(ask.attributes, whole if isinstance(whole, TaskState) else TaskState.INVALID)
    if not isinstance(found, dict):
        return dict.fromkeys(ask.attributes, TaskState.INVALID)
    return {attribute: _answer(found.get(attribute.value)) for attribute in ask.attributes}


def _answer(text: object, form: Form | None = None) -> str | TaskState:
    if not isinstance(text, str) or not text.strip() or not _is_whole(text):
        return TaskState.INVALID
    if form is not None and form.fits(text):
        return text.strip()
    if is_refusal(text):
        return TaskState.REFUSED
    return text.strip() if form is None else TaskState.INVALID


def _is_whole(text: str) -> bool:
    """Whether a text can be stored: JSON within an answer can escape one half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def retry_after(headers: Mapping[str, str]) -> float | None:
    """How long the server asks us to wait, in seconds; None where it does not say so."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) * unit)
    with suppress(KeyError, ValueError, TypeError):  # the other form that HTTP allows: a date
        return max(0.0, (parsedate_to_datetime(headers["retry-after"]) - datetime.now(UTC)).total_seconds())
    return None


def error_codes(body: object) -> tuple[str, ...]:
    """The server's own names for an error: its code and type."""
    if not isinstance(body, dict):
        return ()
    return tuple(str(body.get(name)) for name in ("code", "type") if body.get(name))
