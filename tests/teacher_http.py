"""HTTP/1.1 for the teacher server: one asyncio protocol with keep-alive, so that hundreds of clients cost little.

    server = await loop.create_server(lambda: Connection(respond, live), "127.0.0.1", 0)

The one surprising fact: a client that gives up is noticed at once, also while its answer waits for its time, because
the transport reports it; so what a client has abandoned can be counted.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(slots=True)
class Request:
    """One request, complete."""

    method: str
    path: str  # without the query
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes


def _nothing(_: bool) -> None:
    """For replies that nobody counts."""


@dataclass(slots=True)
class Reply:
    """What becomes of a request. `on_end` is told whether the client was still there to get it."""

    status: int = 200
    body: bytes = b""
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    silent: bool = False  # never answered, until the client goes
    hang_up: bool = False  # the connection ends in the place of an answer
    on_end: Callable[[bool], None] = _nothing


def json_reply(status: int, data: Any) -> Reply:
    """A reply in JSON."""
    return Reply(status, json.dumps(data).encode())


def error_reply(status: int, message: str, *, code: str | None = None, kind: str = "invalid_request_error") -> Reply:
    """An error as OpenAI words it."""
    return json_reply(status, error_body(message, code, "server_error" if status >= 500 else kind))


def error_body(message: str, code: str | None = None, kind: str = "server_error") -> dict[str, Any]:
    """The JSON of an error."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


class Connection(asyncio.Protocol):
    """One client's connection; its requests are answered one after another.

    Args:
        respond: says what becomes of a request.
        live: holds the connection as long as it is open.
    """

    def __init__(self, respond: Callable[[Request], Reply], live: "set[Connection]") -> None:
        self._respond = respond
        self._live = live
        self._buffer = bytearray()
        self._head: Request | None = None  # of the request whose body is still coming
        self._missing = 0  # bytes of that body
        self._reply: Reply | None = None  # the one that waits to be sent
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._live.add(self)

    def close(self) -> None:
        """End it at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._reply is None:
            self._serve()

    def connection_lost(self, _: Exception | None) -> None:
        self._live.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._end(False)

    def _serve(self) -> None:
        """Answer what has come completely."""
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = _head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            self._missing = int(self._head.headers.get("content-length", 0))
        if len(self._buffer) < self._missing:
            return
        request, self._head = self._head, None
        request.body = bytes(self._buffer[: self._missing])
        del self._buffer[: self._missing]
        chunked = "transfer-encoding" in request.headers  # no client of ours sends that
        self._reply = Reply(411, hang_up=True) if chunked else self._respond(request)
        if not self._reply.silent:
            self._timer = asyncio.get_running_loop().call_later(self._reply.delay_s, self._send)

    def _send(self) -> None:
        reply, self._timer = self._reply, None
        assert reply is not None
        if reply.hang_up:
            self._end(True)
            self._transport.abort()
            return
        lines = [
            f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
            f"Content-Type: {reply.kind}",
            f"Content-Length: {len(reply.body)}",
            *(f"{name}: {value}" for name, value in reply.headers.items()),
        ]
        self._transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + reply.body)
        self._end(True)
        self._serve()

    def _end(self, delivered: bool) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.on_end(delivered)


def _head(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    parts = urlsplit(target)
    named = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in named}
    return Request(method, parts.path, dict(parse_qsl(parts.query)), headers, b"")
