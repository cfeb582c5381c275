"""Calls to a running app as its page makes them, over HTTP: events through the queue, server functions, signing in.

A `Caller` is one visitor's browser: it has cookies and a session. The one surprising fact: a page sends what its
components hold, so an event must have been allowed its inputs before, as by a load of the page.
"""

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2 as httpx


@dataclass
class Outcome:
    """What came of an event."""

    data: list[Any] | None  # of its last message; None where it failed
    told: list[str]  # warnings and the error, as the page shows them


@dataclass
class Caller:
    """One visitor."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    session: str = field(default_factory=lambda: uuid4().hex[:11])

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.url, timeout=60, headers=self.headers)

    def post(self, route: str, **content: Any) -> httpx.Response:
        """POST JSON to a route of ours."""
        return self.http.post(f"/account/{route}", json=content)

    def event(self, number: int, data: list[Any]) -> Outcome:
        """Let a dependency of this number run with these inputs."""
        body = {"data": data, "fn_index": number, "session_hash": self.session, "trigger_id": None, "event_data": None}
        joined = self.http.post("/gradio_api/queue/join", json=body)
        joined.raise_for_status()
        told, query = [], {"session_hash": self.session}
        with self.http.stream("GET", "/gradio_api/queue/data", params=query) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                match message.get("msg"):
                    case "log":
                        told.append(message["log"])
                    case "process_completed" if message["success"]:
                        return Outcome(message["output"]["data"], told)
                    case "process_completed":
                        return Outcome(None, [*told, message["output"].get("error") or ""])
        raise AssertionError(f"event {number} did not end: {told}")

    def server_function(self, component: int, name: str, request: dict[str, Any]) -> Any:
        """Call server.NAME(request) of a `gr.HTML`."""
        body = {"data": request, "component_id": component, "fn_name": name, "session_hash": self.session}
        return self.http.post("/gradio_api/component_server", json=body)
