"""Whether many reviewers at once are safe: python benchmarks/review_safety.py [--quick] [--json]

Serves the review desk from a process of its own and lets eight clients decide over HTTP as fast as they can, with
filters and all orders: no pair may get more verdicts than it wants. Then one client races while another holds pairs and
does nothing. Then the server is killed (SIGKILL) at random moments while all decide: what it had acknowledged must be
there, once. At last all events are replayed. The surprising fact: a client that was not answered sends the same again,
as the desk does; only so can it know, and only the UUID keeps that from counting twice.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import httpx2 as httpx  # noqa: E402 - after the path to this checkout
import sqlalchemy as sa  # noqa: E402
from team import fill  # noqa: E402

from annotation.database import reading  # noqa: E402
from annotation.models import Decision, Pair, Verdict  # noqa: E402
from annotation.review_queue import Order  # noqa: E402
from annotation.store import Store  # noqa: E402
from facellm.data import Attribute  # noqa: E402

CLIENTS = 8
FACES = {"full": 21_908, "quick": 2_000}  # more than can be decided meanwhile
SECONDS = {"full": 120, "quick": 10}
BURSTS = {"full": 20, "quick": 3}
SERVE = """
import sys
from pathlib import Path
import gradio as gr
from annotation.accounts.identity import Identity
from annotation.models import Role
from annotation.review_tab import build_review_tab
from annotation.store import Store
store = Store.open(Path(sys.argv[1]), sys.argv[3])
def who(request):
    return Identity(request.headers.get("x-name", "nobody") if request else "nobody", Role.REVIEWER)
with gr.Blocks(analytics_enabled=False) as app:
    build_review_tab(store, who)
print(next(number for number, block in app.blocks.items() if block.elem_id == "review-desk"), flush=True)
app.launch(server_name="127.0.0.1", server_port=int(sys.argv[2]), quiet=True, ssr_mode=False)
"""


@dataclass
class Server:
    """The desk in a process of its own, which can be killed and started again at the same address."""

    folder: Path
    database: str
    port: int
    component: int = 0
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Serve; returns once it answers."""
        command = [sys.executable, "-W", "ignore", "-c", SERVE, str(self.folder), str(self.port), self.database]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRADIO_ANALYTICS_ENABLED": "0"}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.component = int(self.process.stdout.readline())
        for _ in range(600):
            with suppress(httpx.HTTPError):
                httpx.get(f"http://127.0.0.1:{self.port}/", timeout=1)
                return
            time.sleep(0.05)
        sys.exit("error: the server did not start")

    def kill(self) -> None:
        """As a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@dataclass
class Client:
    """A reviewer in a window."""

    server: Server
    name: str
    rng: random.Random
    acknowledged: list[str] = field(default_factory=list)
    refused: int = 0

    def __post_init__(self) -> None:
        self.http = httpx.Client(timeout=30, headers={"x-name": self.name})

    def call(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """A server function of the desk."""
        body = {"data": request, "component_id": self.server.component, "fn_name": name, "session_hash": self.name}
        reply = self.http.post(f"http://127.0.0.1:{self.server.port}/gradio_api/component_server", json=body)
        reply.raise_for_status()
        return reply.json()

    def claim(self, limit: int = 20, *, narrow: bool = True) -> list[dict[str, Any]]:
        """The next pairs, by an order at random, and by a filter where it is to be `narrow`."""
        which: dict[str, Any] = {"status": ["pending"]}
        if narrow and self.rng.random() < 0.5:
            which["attribute"] = self.rng.choice(list(Attribute))
        if narrow and self.rng.random() < 0.3:
            which["gender"] = self.rng.choice(["Female", "Male"])
        request = {"filter": which, "order": self.rng.choice(list(Order)), "holder": self.name, "exclude": []}
        return self.call("claim", request | {"limit": limit, "known": []})["pairs"]

    def decide(self, view: dict[str, Any], *, until: float) -> None:
        """Decide, and send the same again while the server is away."""
        decision = {
            "uuid": str(uuid4()),
            "pair_id": view["id"],
            "image_sha256": view["image"],
            "revision": view["revision"],
            "others": view["others"],
            "action": self.rng.choice(["accept", "accept", "reject"]),
        }
        while time.monotonic() < until:
            try:
                reply = self.call("decide", decision)
            except httpx.HTTPError:
                time.sleep(0.2)
                continue
            if reply.get("ok"):
                self.acknowledged.append(decision["uuid"])
            else:
                self.refused += 1
            return

    def work(self, seconds: float) -> None:
        """Claim and decide until the time is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                views = self.claim()
            except httpx.HTTPError:
                time.sleep(0.2)
                continue
            for view in views:
                if time.monotonic() > until:
                    return
                self.decide(view, until=until + 20)


def main() -> None:
    """Run the three parts and print; fails if one decision is lost or one pair has too many."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="fewer pairs, seconds and bursts")
    parser.add_argument("--database", default="", help="an empty PostgreSQL database instead of SQLite")
    options = parser.parse_args()
    size = "quick" if options.quick else "full"
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder), options.database)
        fill(store, FACES[size])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = Server(Path(folder), options.database, port)
        server.start()
        try:
            result = together(store, server, SECONDS[size]) | kills(store, server, BURSTS[size])
        finally:
            server.kill()
        result["differing_after_replay"] = store.team.replay().differing
        store.close()
    print(json.dumps(result) if options.json else "\n".join(f"{name:32} {value}" for name, value in result.items()))
    bad = ("above_overlap", "starved", "acknowledged_lost", "stored_twice", "differing_after_replay")
    if any(result[name] for name in bad):
        sys.exit("error: " + ", ".join(name for name in bad if result[name]))


def together(store: Store, server: Server, seconds: int) -> dict[str, Any]:
    """Eight at once; then one that is fast beside one that is idle."""
    clients = run([Client(server, f"client-{n}", random.Random(n)) for n in range(CLIENTS)], seconds)
    for client in clients:
        store.release(client.name)  # as their windows do when they close
    decided = sum(len(client.acknowledged) for client in clients)
    idle, fast = Client(server, "idle", random.Random(98)), Client(server, "fast", random.Random(99))
    held = {view["id"] for view in idle.claim()}
    run([fast], min(seconds, 20))
    free = {view["id"] for view in fast.claim(100, narrow=False)}
    views = store.browse(limit=10_000)
    his = {view.pair.id for view in views if "fast" in {verdict.reviewer for verdict in view.verdicts}}
    left = {view.pair.id for view in views} - held - his
    return {
        "clients": CLIENTS,
        "seconds": seconds,
        "decisions_per_second": round(decided / seconds, 1),
        "above_overlap": above_overlap(store),
        "refused": sum(client.refused for client in clients),
        "fast_one_decided": len(fast.acknowledged),
        "starved": int(bool(left) and not free),
    }


def run(clients: list[Client], seconds: float) -> list[Client]:
    """Let them work side by side."""
    threads = [threading.Thread(target=client.work, args=(seconds,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return clients


def above_overlap(store: Store) -> int:
    """Pairs with more verdicts than they want."""
    number = sa.func.count()
    verdicts = sa.select(Verdict.pair_id, number.label("number")).where(
        Verdict.action.in_(("accept", "edit", "reject"))
    )
    of = verdicts.group_by(Verdict.pair_id).subquery()
    query = sa.select(number).select_from(of).join(Pair, Pair.id == of.c.pair_id).where(of.c.number > Pair.overlap)
    with reading(store._engine) as session:
        return session.execute(query).scalar_one()


def kills(store: Store, server: Server, bursts: int) -> dict[str, Any]:
    """Kill the server while eight decide, and start it again."""
    rng = random.Random(7)
    acknowledged: list[str] = []
    for burst in range(bursts):
        clients = [Client(server, f"burst-{burst}-{n}", random.Random(100 * burst + n)) for n in range(CLIENTS)]
        worker = threading.Thread(target=run, args=(clients, 4))
        worker.start()
        time.sleep(0.5 + 2 * rng.random())
        server.kill()
        server.start()
        worker.join()
        acknowledged += [uuid for client in clients for uuid in client.acknowledged]
    with reading(store._engine) as session:
        stored = Counter(session.scalars(sa.select(Decision.uuid)))
    return {
        "bursts": bursts,
        "acknowledged_in_bursts": len(acknowledged),
        "acknowledged_lost": sum(uuid not in stored for uuid in acknowledged),
        "stored_twice": sum(number > 1 for number in stored.values()) + above_overlap(store),
    }


if __name__ == "__main__":
    main()
