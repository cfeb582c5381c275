"""A real HTTP server that speaks as OpenAI and vLLM do, for tests: on 127.0.0.1, in threads of this process.

    with OpenAIServer(tokens=20, delay_s=0.01) as server:
        server.base_url, server.received, server.failure = ...

Its answers are words that follow from the messages, the model and the sampling alone: `expected_text` says which. It
keeps everything that it got. The one surprising fact: a server notices that a client has gone only when it looks, so
this one looks at the connection while it waits between two tokens.
"""

import hashlib
import json
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BASE_MODEL = "face-base"
LOGPROB_SHIFT = 0.25  # what a working adapter adds to the base's log-probabilities

# Ways to fail in the middle of a stream, after half of its tokens.
MIDWAY = ("cut", "end early", "stall", "bad json", "error event")
# Ways to fail instead of answering.
INSTEAD = ("html", "bad json body", "silence", "hang up", "redirect")


@dataclass
class Received:
    """One request as it came, and what became of its answer."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    tokens_sent: int = 0
    disconnected: bool = False  # the client went before the end
    ended: threading.Event = field(default_factory=threading.Event)


def sampling_of(body: dict[str, Any]) -> list[Any]:
    """What an answer depends on besides messages and model: greedy answers on nothing."""
    if not body.get("temperature"):
        return []
    return [body.get("temperature"), body.get("top_p"), body.get("seed")]


class OpenAIServer:
    """The server; its attributes may be changed while it runs.

    Args:
        tokens: of a complete answer.
        delay_s: between two tokens.
        api_key: the key that it wants; None takes any, or none.
    """

    def __init__(self, *, tokens: int = 8, delay_s: float = 0.0, api_key: str | None = None) -> None:
        self.tokens = tokens
        self.delay_s = delay_s
        self.api_key = api_key
        self.models = {BASE_MODEL: "/weights/base"}  # name → where from
        self.shifts: dict[str, float] = {BASE_MODEL: 0.0}  # name → how far its log-probabilities are from the base's
        self.failure: str | int | None = None  # one of MIDWAY or INSTEAD, or an HTTP status
        self.failing_text = ""  # only requests that hold this text fail
        self.failure_message = "Something is wrong."
        self.redirect_to = ""
        self.finish_reason = "stop"
        self.refusal: str | None = None
        self.answer: Callable[[dict[str, Any]], str] | None = None  # of a request's body; words unless given
        self.reasoning_only = False  # as a model that thinks until its tokens are used up
        self.logprobs: str = "yes"  # "no" leaves them out, "refuse" answers 400 to who asks for them
        self.cold_noise = 0.0  # added to log-probabilities when a prompt comes for the first time
        self.runtime_lora = True
        self.missing_endpoint: Any = {"detail": "Not Found"}
        self.adapter_shift = LOGPROB_SHIFT  # of adapters loaded from now on; 0 is the silent no-op
        self.received: list[Received] = []
        self.seen: set[str] = set()
        self._http = _Threads(("127.0.0.1", 0), _handler(self))
        self._closing = threading.Event()

    def __enter__(self) -> "OpenAIServer":
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def base_url(self) -> str:
        return f"{self.host}/v1"

    def asked(self, path: str = "/v1/chat/completions") -> list[Received]:
        """What came to a path so far."""
        return [received for received in self.received if received.path == path]

    def failure_of(self, received: Received) -> str | int | None:
        """How this request is to fail, if it is."""
        return self.failure if self.failing_text in json.dumps(received.body) else None

    def words(self, body: dict[str, Any]) -> list[str]:
        """The complete answer to a request, token by token."""
        shift = self.shifts.get(body["model"], 0.0)
        voice = body["model"] if abs(shift) > 0.01 else BASE_MODEL  # a small shift does not change what is likeliest
        start = json.dumps([voice, body["messages"], sampling_of(body)], sort_keys=True)
        count = min(self.tokens, body.get("max_tokens") or self.tokens)
        return [f"wörd{hashlib.sha256(f'{start}{number}'.encode()).hexdigest()[:4]} " for number in range(count)]

    def expected_text(self, body: dict[str, Any]) -> str:
        return "".join(self.words(body))

    def wait(self, connection: socket.socket, seconds: float) -> bool:
        """Whether the client is still there after some time."""
        until = time.monotonic() + seconds
        while True:
            left = max(0.0, until - time.monotonic())
            readable, _, _ = select.select([connection], [], [], min(left, 0.02))
            if readable and not connection.recv(1, socket.MSG_PEEK):
                return False
            if not left:
                return True
            if self._closing.is_set():
                return False


class _Threads(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _handler(server: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Silent: tests read `received`."""

        def do_GET(self) -> None:
            self._serve(None)

        def do_POST(self) -> None:
            self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _serve(self, body: Any) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            received = Received(self.command, self.path, headers, body)
            server.received.append(received)
            self.close_connection = True
            try:
                self._answer(received)
            except OSError:
                received.disconnected = True
            finally:
                received.ended.set()

        def _answer(self, received: Received) -> None:
            if self._failed_instead(received):
                return
            routes: dict[str, Callable[[Received], None]] = {
                "/v1/models": self._models,
                "/v1/chat/completions": self._chat,
            }
            if server.runtime_lora:
                routes |= {"/v1/load_lora_adapter": self._load, "/v1/unload_lora_adapter": self._unload}
            route = routes.get(self.path)
            if route is None:
                self._json(404, server.missing_endpoint)
            elif server.api_key is not None and received.headers.get("authorization") != f"Bearer {server.api_key}":
                given = received.headers.get("authorization", "none")
                self._error(401, f"Incorrect API key provided: {given}.")
            else:
                route(received)

        def _failed_instead(self, received: Received) -> bool:
            failure = server.failure_of(received)
            if isinstance(failure, int):
                self._error(failure, server.failure_message)
            elif failure == "html":
                self._send(200, b"<html><body>Welcome to nginx!</body></html>", "text/html")
            elif failure == "bad json body":
                self._send(200, b'{"choices": [', "application/json")
            elif failure == "silence":
                received.disconnected = not server.wait(self.connection, 30)
            elif failure == "hang up":
                self.connection.shutdown(socket.SHUT_RDWR)
            elif failure == "redirect":
                self._send(307, b"", "text/plain", {"Location": server.redirect_to + self.path})
            else:
                return False
            return True

        def _models(self, _: Received) -> None:
            cards = [
                {"id": name, "object": "model", "created": 1, "owned_by": "vllm", "root": root}
                for name, root in server.models.items()
            ]
            self._json(200, {"object": "list", "data": cards})

        def _load(self, received: Received) -> None:
            name, path = received.body["lora_name"], received.body["lora_path"]
            if name in server.models:
                self._error(400, f"The lora adapter '{name}' has already been loaded.")
            elif "missing" in path:
                self._error(404, f"Loading lora {name} failed: No adapter found for {path}")
            else:
                server.models[name], server.shifts[name] = path, server.adapter_shift
                self._send(200, f"Success: LoRA adapter '{name}' added successfully.".encode(), "text/plain")

        def _unload(self, received: Received) -> None:
            name = received.body["lora_name"]
            if server.models.pop(name, None) is None:
                self._error(404, f"The lora adapter '{name}' cannot be found.")
            else:
                self._send(200, f"Success: LoRA adapter '{name}' removed successfully.".encode(), "text/plain")

        def _chat(self, received: Received) -> None:
            body = received.body
            if body["model"] not in server.models:
                self._error(404, f"The model `{body['model']}` does not exist.")
            elif body.get("logprobs") and server.logprobs == "refuse":
                self._error(400, "logprobs are not supported.")
            elif body.get("stream"):
                self._stream(received)
            else:
                words = server.words(body)
                content = server.answer(body) if server.answer else "".join(words)
                message = {"role": "assistant", "content": content, "refusal": server.refusal}
                choice = {"index": 0, "message": message, "finish_reason": self._finish(body, words), "logprobs": None}
                if body.get("logprobs") and server.logprobs == "yes":
                    choice["logprobs"] = {"content": self._logprobs(body, words)}
                answer = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
                usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
                self._json(200, answer | {"choices": [choice], "usage": usage})

        def _logprobs(self, body: dict[str, Any], words: list[str]) -> list[dict[str, Any]]:
            prompt = json.dumps([body["model"], body["messages"]])
            shift = server.shifts[body["model"]] + (0.0 if prompt in server.seen else server.cold_noise)
            server.seen.add(prompt)
            found = []
            for word in words:
                likely = [(word, -0.1 - shift), *((f"other{rank} ", -1.0 - rank + shift) for rank in range(4))]
                tops = [{"token": token, "logprob": value, "bytes": None} for token, value in likely]
                found.append({**tops[0], "top_logprobs": tops[: body["top_logprobs"]]})
            return found

        def _finish(self, body: dict[str, Any], words: list[str]) -> str:
            return "length" if len(words) < server.tokens and body.get("max_tokens") else server.finish_reason

        def _stream(self, received: Received) -> None:
            words = server.words(received.body)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Connection", "close")
            self.end_headers()
            self._choice({"role": "assistant", "content": ""})
            for number, word in enumerate(words):
                if not server.wait(self.connection, server.delay_s):
                    received.disconnected = True
                    return
                if number == len(words) // 2 and server.failure_of(received) in MIDWAY:
                    self._fail_midway(received)
                    return
                self._choice({"reasoning_content" if server.reasoning_only else "content": word})
                received.tokens_sent += 1
            if server.refusal:
                self._choice({"refusal": server.refusal})
            self._choice({}, self._finish(received.body, words))
            self._event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
            self._raw(b"data: [DONE]\n\n")
            self._raw(b"")

        def _fail_midway(self, received: Received) -> None:
            if server.failure == "cut":
                self.connection.shutdown(socket.SHUT_RDWR)
            elif server.failure == "end early":
                self._raw(b"")
            elif server.failure == "stall":
                received.disconnected = not server.wait(self.connection, 30)
            elif server.failure == "bad json":
                self._raw(b"data: {oops\n\n")
                self._raw(b"")
            else:
                self._event({"error": {"message": server.failure_message, "type": "server_error", "code": 500}})
                self._raw(b"")

        def _choice(self, delta: dict[str, Any], finish_reason: str | None = None) -> None:
            self._event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})

        def _event(self, data: dict[str, Any]) -> None:
            whole = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", **data}
            self._raw(b"data: " + json.dumps(data if "error" in data else whole).encode() + b"\n\n")

        def _raw(self, data: bytes) -> None:
            """One chunk; an empty one is the end."""
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

        def _error(self, status: int, message: str) -> None:
            self._json(status, {"error": {"message": message, "type": "Error", "param": None, "code": status}})

        def _json(self, status: int, data: Any) -> None:
            self._send(status, json.dumps(data).encode(), "application/json")

        def _send(self, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            more = {"Content-Type": kind, "Content-Length": str(len(data)), "Connection": "close"} | (headers or {})
            for name, value in more.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    return Handler
