"""The files of a Batch API: requests as lines to be sent, results as lines to be read.

    write(request_line(uuid, encoded(teacher.body(ask, url))))
    async for line in lines_of(chunks): result = read_result(line)

The surprising fact: a file is cut at line feeds alone. A line of JSON may hold other line separators of Unicode, at
which Python's `splitlines`, and with it the client's own reader of lines, would cut it in two.
"""

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from annotation.teaching.teacher import RAW_CHARS, Ask, Next, Reply, read_completion, read_failure

ENDPOINT: Final = "/v1/chat/completions"
FILLED: Final = 0.95  # of a provider's limits are used
LONGEST_LINE: Final = 4_000_000  # bytes of one result; a longer one is not read
SAID_CHARS: Final = 500
_HEAD: Final = b'{"custom_id":"'
_UUID_CHARS: Final = 36


@dataclass(frozen=True)
class FileLimits:
    """How much one file may hold, as the provider says: of this, FILLED is used."""

    requests: int = 50_000
    bytes: int = 200_000_000

    @property
    def most_requests(self) -> int:
        """Lines of a file."""
        return max(1, int(self.requests * FILLED))

    @property
    def most_bytes(self) -> int:
        """Bytes of a file."""
        return int(self.bytes * FILLED)


def batch_file(data_dir: Path, uuid: str) -> Path:
    """Where the requests of a batch lie until the provider has them."""
    return data_dir / "generation" / "batches" / f"{uuid}.jsonl"


def encoded(body: dict[str, Any]) -> bytes:
    """The body of a request as a part of its line."""
    return json.dumps(body, separators=(",", ":")).encode()


def request_line(uuid: str, body: bytes) -> bytes:
    """One request: `uuid` comes back with its result."""
    return b'%b%b","method":"POST","url":"%b","body":%b}\n' % (_HEAD, uuid.encode(), ENDPOINT.encode(), body)


def uuid_of(line: bytes) -> str:
    """The UUID of a line that `request_line` made."""
    return line[len(_HEAD) : len(_HEAD) + _UUID_CHARS].decode()


async def lines_of(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The lines of a file that comes in pieces; one above LONGEST_LINE comes cut short, so that it cannot be read."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        rest = rest[:LONGEST_LINE]
    yield rest


class _Answered(BaseModel):
    status_code: int
    request_id: str | None = None
    body: Any = None


class Result(BaseModel):
    """One line of an output or error file."""

    custom_id: str = Field(max_length=100)
    response: _Answered | None = None
    error: dict[str, Any] | None = None

    def reply(self, ask: Ask, without_key: Callable[[str], str]) -> Reply:
        """What it means as the reply to what was asked; the key does not stay in it."""
        answered = self.response
        if answered is not None and answered.status_code == 200:
            reply = read_completion(json.dumps(answered.body), ask)
        else:
            reply = self._failure(ask, without_key)
        reply.request_id = answered.request_id if answered else None
        reply.raw = without_key(reply.raw)[:RAW_CHARS]
        return reply

    def _failure(self, ask: Ask, without_key: Callable[[str], str]) -> Reply:
        """What the server says instead of an answer: in the reply's body, or about a request that it never made."""
        if self.response is None:
            reply = read_failure(500, self.error, _said(self.error, without_key), ask)
            reply.http_status = None
            if (self.error or {}).get("code") == "batch_cancelled":
                reply.next = Next.DONE  # somebody did not want it
            return reply
        body = self.response.body
        error = body.get("error", body) if isinstance(body, dict) else body
        return read_failure(self.response.status_code, error, _said(error, without_key), ask)


def read_result(line: bytes) -> Result | None:
    """A line of a provider's file; None where it is none."""
    try:
        return Result.model_validate_json(line)
    except ValidationError:
        return None


def _said(error: object, without_key: Callable[[str], str]) -> str:
    found = error.get("message") or error.get("code") if isinstance(error, dict) else error
    return without_key(" ".join(str(found or "").split()))[:SAID_CHARS]
