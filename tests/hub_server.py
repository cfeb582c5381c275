"""A small Hugging Face Hub on 127.0.0.1: the few endpoints by which a folder becomes a repository.

It keeps what was uploaded in memory, and refuses whoever has not the right token. The one surprising fact: the Hub says
for each file how it wants it, and this one wants all of them inside the commit.
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "t" * 20


@dataclass
class Hub:
    """What the server holds."""

    url: str = ""
    private: dict[str, bool] = field(default_factory=dict)  # by repository
    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 200  # of the answer to a commit
    requests: list[str] = field(default_factory=list)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve until the end of the block."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:  # noqa: N802 - the name that the base class calls
            hub.requests.append(f"GET {self.path}")
            self._reply(200, {"sha": "0" * 40, "id": "me/faces", "siblings": []})

        def do_POST(self) -> None:  # noqa: N802
            hub.requests.append(f"POST {self.path}")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._reply(401, {"error": "Invalid credentials"})
            elif self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                hub.private[name] = asked.get("private") is True or asked.get("visibility") == "private"
                place = f"datasets/{name}" if asked.get("type") == "dataset" else name
                self._reply(200, {"url": f"{hub.url}/{place}", "id": name})
            elif "/preupload/" in self.path:
                asked = json.loads(body)["files"]
                found = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]
                self._reply(200, {"files": found})
            elif "/commit/" in self.path:
                self._commit(body)
            else:
                self._reply(200, {"errors": [], "warnings": []})

        def _commit(self, body: bytes) -> None:
            if hub.status != 200:
                self._reply(hub.status, {"error": "no"})
                return
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._reply(200, {"commitUrl": f"{hub.url}/datasets/me/faces/commit/1", "commitOid": "1" * 40})

        def _reply(self, status: int, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
