"""The Batch API of the teacher server: files, batches, and what comes of them when their time has passed.

Rows come back shuffled; some are in no file, some in the error file, and a batch may expire with part of its rows done,
as `Behaviour` says. The one surprising fact: nothing runs in the background, a batch is carried out when somebody looks
at it after its time.
"""

import itertools
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from teacher_answers import input_tokens, read
from teacher_behaviour import Behaviour
from teacher_http import Reply, Request, error_reply, json_reply

ENDPOINT = "/v1/chat/completions"
ENDED = ("completed", "expired", "failed", "cancelled")
Row = Callable[[str, bytes], tuple[int, dict[str, Any], str]]


@dataclass
class _File:
    id: str
    name: str
    purpose: str
    data: bytes
    created: int

    def card(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.data),
            "created_at": self.created,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass
class _Batch:
    id: str
    file: _File
    metadata: dict[str, str] | None
    created: float
    lines: list[dict[str, Any]]
    tokens: int  # that are queued; counted only where there is a cap
    status: str = "in_progress"
    errors: list[dict[str, Any]] = field(default_factory=list)
    output: _File | None = None
    failed: _File | None = None
    done: int = 0
    ended: float | None = None

    def card(self) -> dict[str, Any]:
        ended = None if self.ended is None else int(self.ended)
        ended_as = {f"{status}_at": ended if self.status == status else None for status in ENDED}
        failed = self.failed.data.count(b"\n") if self.failed else 0
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": ENDPOINT,
            "completion_window": "24h",
            "input_file_id": self.file.id,
            "status": self.status,
            "created_at": int(self.created),
            "expires_at": int(self.created) + 86_400,
            "metadata": self.metadata,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "output_file_id": self.output.id if self.output else None,
            "error_file_id": self.failed.id if self.failed else None,
            "request_counts": {"total": len(self.lines), "completed": self.done, "failed": failed},
            **ended_as,
        }


class Batches:
    """The files and batches of one server.

    Args:
        behaviour: of the server.
        row: carries out one row: (the batch's id, a request's body) → status, body, request id.
    """

    def __init__(self, behaviour: Behaviour, row: Row) -> None:
        self._behaviour = behaviour
        self._row = row
        self._files: dict[str, _File] = {}
        self._batches: dict[str, _Batch] = {}
        self._numbers = itertools.count(1)

    def respond(self, request: Request) -> Reply | None:
        """Answer a request about files or batches; None where it is about neither."""
        self._carry_out()
        match [request.method, *request.path.removeprefix("/v1/").split("/")]:
            case ["POST", "files"]:
                return self._upload(request)
            case ["GET", "files"]:
                return _page([file.card() for file in self._files.values()], request)
            case [method, "files", file_id, *what] if file_id in self._files:
                return self._file(method, self._files[file_id], what)
            case ["POST", "batches"]:
                return self._create(request)
            case ["GET", "batches"]:
                return _page([batch.card() for batch in self._batches.values()], request)
            case [method, "batches", batch_id, *what] if batch_id in self._batches:
                return self._batch(method, self._batches[batch_id], what)
            case [_, "files" | "batches", unknown, *_]:
                return error_reply(404, f"No such object: {unknown}")
        return None

    def _upload(self, request: Request) -> Reply:
        parts = _parts(request)
        name, data = parts["file"]
        if len(data) > self._behaviour.batch_max_bytes:
            return error_reply(400, f"The file is larger than the {self._behaviour.batch_max_bytes} bytes allowed.")
        return json_reply(200, self._add_file(name, data, parts["purpose"][1].decode()).card())

    def _add_file(self, name: str, data: bytes, purpose: str) -> _File:
        file = _File(f"file-{next(self._numbers)}", name, purpose, data, int(time.time()))
        self._files[file.id] = file
        return file

    def _file(self, method: str, file: _File, what: list[str]) -> Reply:
        if method == "DELETE":
            del self._files[file.id]
            return json_reply(200, {"id": file.id, "object": "file", "deleted": True})
        return (
            Reply(200, file.data, "application/octet-stream") if what == ["content"] else json_reply(200, file.card())
        )

    def _create(self, request: Request) -> Reply:
        told = json.loads(request.body)
        file = self._files.get(told["input_file_id"])
        if file is None or file.purpose != "batch":
            return error_reply(400, f"Invalid file: {told['input_file_id']}. Expected one with the purpose batch.")
        if told["endpoint"] != ENDPOINT or told["completion_window"] != "24h":
            return error_reply(400, "Invalid endpoint or completion_window.")
        batch = _Batch(f"batch_{next(self._numbers)}", file, told.get("metadata"), time.time(), [], 0)
        self._batches[batch.id] = batch
        batch.errors = self._mistakes(batch)
        if batch.errors:
            batch.status, batch.ended = "failed", time.time()
        return json_reply(200, batch.card())

    def _mistakes(self, batch: _Batch) -> list[dict[str, Any]]:
        """What OpenAI finds while it validates a batch."""
        lines = batch.file.data.splitlines()
        if len(lines) > self._behaviour.batch_max_requests:
            return [
                _mistake("too_many_tasks", f"The batch has more than {self._behaviour.batch_max_requests} requests.")
            ]
        seen: set[str] = set()
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                named, model = row["custom_id"], row["body"]["model"]
            except (ValueError, KeyError, TypeError):
                return [_mistake("invalid_json_line", "This line is not parseable as valid JSON.", number)]
            if named in seen:
                return [_mistake("duplicate_custom_id", f"The custom_id {named} is used twice.", number)]
            if row["method"] != "POST" or row["url"] != ENDPOINT:
                return [_mistake("invalid_url", "The URL does not match the batch's endpoint.", number)]
            if model not in self._behaviour.models:
                return [_mistake("model_not_found", f"The model {model} does not exist.", number)]
            seen.add(named)
            batch.lines.append(row)
        most = self._behaviour.batch_queued_tokens
        if most is None:
            return []
        batch.tokens = sum(self._tokens(row) for row in batch.lines)
        if sum(other.tokens for other in self._batches.values() if other.status not in ENDED) > most:
            said = f"Enqueued token limit reached. Limit: {most:,} enqueued tokens. Please try again once some "
            return [_mistake("token_limit_exceeded", said + "in_progress batches have been completed.")]
        return []

    def _tokens(self, row: dict[str, Any]) -> int:
        return input_tokens(read(json.dumps(row["body"]).encode(), self._behaviour.image_tokens))

    def _batch(self, method: str, batch: _Batch, what: list[str]) -> Reply:
        if (method, what) == ("POST", ["cancel"]):
            if batch.status in ENDED:
                return error_reply(409, f"Cannot cancel a batch with status '{batch.status}'.")
            share = min(1.0, (time.time() - batch.created) / max(self._behaviour.batch_seconds, 1e-9))
            self._end(batch, "cancelled", share)
        return json_reply(200, batch.card())

    def _carry_out(self) -> None:
        """End the batches whose time has passed."""
        for batch in self._batches.values():
            if batch.status not in ENDED and time.time() >= batch.created + self._behaviour.batch_seconds:
                share = self._behaviour.batch_share_done
                self._end(batch, "completed" if share >= 1 else "expired", share)

    def _end(self, batch: _Batch, status: str, share_done: float) -> None:
        rng = random.Random(f"{self._behaviour.seed}{batch.id}")
        rows = rng.sample(batch.lines, len(batch.lines))
        done = round(share_done * len(rows))
        good: list[bytes] = []
        bad: list[bytes] = []
        for row in rows[:done]:
            if rng.random() < self._behaviour.batch_share_missing:
                continue
            status_code, body, request_id = self._row(batch.id, json.dumps(row["body"]).encode())
            response = {"status_code": status_code, "request_id": request_id, "body": body}
            (good if status_code == 200 else bad).append(_line(batch, row, response, None))
        code = f"batch_{status}"
        said = "This request could not be executed before the completion window expired."
        bad += [_line(batch, row, None, {"code": code, "message": said}) for row in rows[done:]]
        batch.output = self._add_file("output.jsonl", b"".join(good), "batch_output") if good else None
        batch.failed = self._add_file("errors.jsonl", b"".join(bad), "batch_output") if bad else None
        batch.done, batch.status, batch.ended = len(good), status, time.time()


def _line(batch: _Batch, row: dict[str, Any], response: dict[str, Any] | None, error: dict[str, Any] | None) -> bytes:
    told = {"id": f"{batch.id}_row", "custom_id": row["custom_id"], "response": response, "error": error}
    return json.dumps(told).encode() + b"\n"


def _mistake(code: str, message: str, line: int | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "line": line, "param": None}


def _page(cards: list[dict[str, Any]], request: Request) -> Reply:
    """A page of a list, newest first, as `limit` and `after` ask for it."""
    newest = cards[::-1]
    ids = [card["id"] for card in newest]
    start = ids.index(request.query["after"]) + 1 if request.query.get("after") in ids else 0
    page = newest[start : start + int(request.query.get("limit", 20))]
    more = start + len(page) < len(newest)
    last = page[-1]["id"] if page else None
    return json_reply(200, {"object": "list", "data": page, "has_more": more, "last_id": last})


def _parts(request: Request) -> dict[str, tuple[str, bytes]]:
    """The parts of a multipart form: name → file name, content."""
    boundary = request.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    found = {}
    for part in request.body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        told = head.decode()
        names = [told.partition(f'; {key}="')[2].partition('"')[0] for key in ("name", "filename")]
        found[names[0]] = (names[1], content.removesuffix(b"\r\n"))
    return found
