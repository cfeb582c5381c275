"""A teacher to test against: a real HTTP server that speaks as OpenAI does, is paid by the token, and fails on demand.

    python tests/teacher_server.py [--port 0] [--log FILE] [--set latency_s=0.5 --set share_429=0.05]
    with TeacherServer(latency_s=0.5) as server:
        server.base_url, server.behaviour.share_429, server.records = ...

It carries hundreds of connections on a fraction of a core. What it does with a request follows from the request, from
how often it came before, and from `seed`; so a run can be repeated. It knows two kinds of trouble: what a later attempt
may be spared (429, 5xx, silence, hang-ups), and what an answer is (a refusal, a cut, invalid JSON), which stays the
same however often one asks. The one surprising fact: as its own process it is steered and read over the same port, at
/control and /control/records.
"""

import argparse
import asyncio
import json
import threading
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from teacher_answers import Answer, Asked, BadRequestError, chance, input_tokens, read, write
from teacher_batches import Batches
from teacher_behaviour import Behaviour, Record
from teacher_faults import Faults, key_of
from teacher_http import Connection, Reply, Request, error_body, error_reply, json_reply


class TeacherServer:
    """The server, on a thread of this process.

    Args:
        port: 0 takes a free one.
        log: a file to which each request is appended when it has ended, a JSON object a line.
        behaviour: fields of Behaviour.
    """

    def __init__(self, *, port: int = 0, log: Path | None = None, **behaviour: Any) -> None:
        self.behaviour = Behaviour()
        self.behaviour.change(**behaviour)
        self.records: list[Record] = []
        self.port = port
        self._log_path = log
        self._log: TextIO | None = None
        self._seen: Counter[str] = Counter()
        self._answers = 0
        self._faults = Faults(self.behaviour)
        self._connections: set[Connection] = set()
        self._batches = Batches(self.behaviour, self._batch_row)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self.serve(),), daemon=True)

    def __enter__(self) -> "TeacherServer":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()
        self._loop.close()

    @property
    def base_url(self) -> str:
        """Such as http://127.0.0.1:8000/v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    def answered(self) -> list[Record]:
        """The requests that got an answer, of whatever use."""
        return [record for record in self.records if record.status == 200 and record.ended and not record.gone]

    async def serve(self) -> None:
        """Serve until `__exit__`."""
        loop = asyncio.get_running_loop()
        http = await loop.create_server(self._connection, "127.0.0.1", self.port, backlog=512)
        self.port = http.sockets[0].getsockname()[1]
        with open(self._log_path or "/dev/null", "a", buffering=1, encoding="utf-8") as self._log:
            self._ready.set()
            await self._closing.wait()
            http.close()
            for connection in list(self._connections):
                connection.close()

    def _connection(self) -> Connection:
        return Connection(self._respond, self._connections)

    def _respond(self, request: Request) -> Reply:
        if request.path.startswith("/control"):
            return self._control(request)
        if self.behaviour.redirect_to is not None:
            return Reply(307, headers={"Location": self.behaviour.redirect_to + request.path})
        chat = request.path == "/v1/chat/completions"
        if (refused := self._key_is_wrong(request)) is not None:
            return self._tracked(self._record("", None, "401", 401), refused) if chat else refused
        if chat:
            return self._chat(request)
        if request.path == "/v1/models":
            cards = [{"id": name, "object": "model", "created": 1, "owned_by": "test"} for name in self._models]
            return json_reply(200, {"object": "list", "data": cards})
        return self._batches.respond(request) or error_reply(404, f"Invalid URL ({request.method} {request.path})")

    @property
    def _models(self) -> dict[str, str]:
        return self.behaviour.models

    def _key_is_wrong(self, request: Request) -> Reply | None:
        if self.behaviour.api_key in (None, key_of(request)):
            return None
        return error_reply(401, f"Incorrect API key provided: {key_of(request)}.", code="invalid_api_key")

    def _chat(self, request: Request) -> Reply:
        try:
            asked = read(request.body, self.behaviour.image_tokens)
        except BadRequestError as bad:
            return self._tracked(self._record("", None, "400", 400), error_reply(400, str(bad), code=bad.code))
        self._seen[asked.key] += 1
        attempt = self._seen[asked.key]
        fault = self._faults.instead_of_answer(asked, key_of(request), attempt, self._answers)
        if fault is not None:
            outcome, reply = fault
            record = self._record(asked.key, asked, outcome, reply.status)
            return self._tracked(record, reply)
        self._answers += 1
        answer = write(asked, self._faults.of_answer(asked), self.behaviour.seed)
        record = self._record(asked.key, asked, answer.outcome, 200)
        reply = json_reply(200, self._completion(asked, answer, record))
        reply.delay_s = self.behaviour.latency_s
        return self._tracked(record, reply)

    def _completion(self, asked: Asked, answer: Answer, record: Record) -> dict[str, Any]:
        record.input_tokens = input_tokens(asked)
        if chance(self.behaviour.seed, asked.key, "cached") < self.behaviour.share_cached:
            record.cached_tokens = record.input_tokens // 2 // 128 * 128
        record.output_tokens = answer.tokens
        record.answer = answer.refusal or answer.content or ""
        usage = {
            "prompt_tokens": record.input_tokens,
            "completion_tokens": record.output_tokens,
            "total_tokens": record.input_tokens + record.output_tokens,
            "prompt_tokens_details": {"cached_tokens": record.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }
        message = {"role": "assistant", "content": answer.content, "refusal": answer.refusal}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
        return {
            "id": f"chatcmpl-{record.number}",
            "object": "chat.completion",
            "created": int(record.received),
            "model": self._models[asked.model],
            "choices": [choice],
            **({"usage": usage} if self.behaviour.usage else {}),
            "service_tier": "default",
            "system_fingerprint": "fp_teacher",
        }

    def _record(self, key: str, asked: Asked | None, outcome: str, status: int, batch: str = "") -> Record:
        record = Record(
            number=len(self.records),
            received=time.time(),
            key=key,
            attempt=self._seen[key] if key else 1,
            image=asked.image if asked else "",
            attributes=asked.attributes if asked else (),
            model=asked.model if asked else "",
            outcome=outcome,
            status=status,
            batch=batch,
            request_id=f"req_{len(self.records):08d}",
        )
        self.records.append(record)
        return record

    def _tracked(self, record: Record, reply: Reply) -> Reply:
        """The reply, which names the request and ends its record."""

        def end(delivered: bool) -> None:
            self._end(record, delivered)

        reply.headers["x-request-id"] = record.request_id
        reply.on_end = end
        return reply

    def _end(self, record: Record, delivered: bool) -> None:
        record.ended, record.gone = time.time(), not delivered
        if self._log is not None:
            print(json.dumps(asdict(record)), file=self._log)

    def _batch_row(self, batch: str, body: bytes) -> tuple[int, dict[str, Any], str]:
        """One row of a batch that is carried out: its status, its body, its request's id."""
        try:
            asked = read(body, self.behaviour.image_tokens)
        except BadRequestError as bad:
            record = self._record("", None, "400", 400, batch)
            self._end(record, True)
            return 400, {"error": {"message": str(bad), "code": bad.code}}, record.request_id
        self._seen[asked.key] += 1
        draw = chance(self.behaviour.seed, asked.key, self._seen[asked.key], "batch")
        failed = draw < self.behaviour.batch_share_errors
        answer = write(asked, self._faults.of_answer(asked), self.behaviour.seed)
        record = self._record(asked.key, asked, "500" if failed else answer.outcome, 500 if failed else 200, batch)
        said = error_body("The server had an error.") if failed else self._completion(asked, answer, record)
        self._end(record, True)
        return record.status, said, record.request_id

    def _control(self, request: Request) -> Reply:
        """GET: behaviour and counts; POST: change the behaviour; GET /control/records?since=N: from the Nth on."""
        if request.path == "/control/records":
            since = int(request.query.get("since", 0))
            return json_reply(200, [asdict(record) for record in self.records[since:]])
        if request.method == "POST":
            try:
                self.behaviour.change(**json.loads(request.body))
            except KeyError as unknown:
                return error_reply(400, f"There is no such behaviour: {unknown}")
        counts = Counter(record.outcome for record in self.records)
        waiting = sum(record.ended is None for record in self.records[-2000:])
        told = {"behaviour": asdict(self.behaviour), "requests": len(self.records), "in_flight": waiting}
        return json_reply(200, told | {"outcomes": counts, "now": time.time()})


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--log", type=Path, help="append each request to this file, a JSON object a line")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="a field of Behaviour")
    options = parser.parse_args()
    told = {name: json.loads(value) for name, _, value in (each.partition("=") for each in options.set)}
    with TeacherServer(port=options.port, log=options.log, **told) as server:
        print(server.base_url, flush=True)  # noqa: T201
        threading.Event().wait()


if __name__ == "__main__":
    main()
