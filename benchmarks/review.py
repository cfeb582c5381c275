"""How fast the review desk is among 87,632 pairs: from the key to the next pair painted, and to the decision stored.

    make setup                                          installs Playwright, which the app does not need
    python benchmarks/review.py [--json] [--quick] [--others 7]

Starts a small app on a free port of 127.0.0.1 with a data set of its own, and presses A and R in headless Chromium,
alone and beside other reviewers, who claim and decide over HTTP, one decision a second each.
Times are taken inside the page: from the key event's own time stamp until the next face is decoded and its frame
painted, and until the server has acknowledged the decision (which by then is synced to disk).
"""

import argparse
import io
import json
import os
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "0")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gradio as gr  # noqa: E402 - after the path to this checkout
import sqlalchemy as sa  # noqa: E402
from review_safety import Client, Server  # noqa: E402
from support.chromium import laptop_page  # noqa: E402
from team import fill  # noqa: E402

from annotation.accounts.identity import Identity  # noqa: E402
from annotation.database import writing  # noqa: E402
from annotation.models import Image, Role  # noqa: E402
from annotation.review_tab import build_review_tab  # noqa: E402
from annotation.store import Store  # noqa: E402
from facellm import faces  # noqa: E402

TARGET_MS, TARGET_P95_MS = 40, 100  # from key to paint
PICTURES = 60  # rendered faces, which all pairs share
FACES = {"quick": 500, "full": 10_954}  # a fifth of them pending, eight pairs each
PAUSE = 1.0  # seconds between two decisions of each of the others
KEYS = {"quick": 60, "full": 300}

# Listens before the desk does. A message sent in an animation frame arrives after that frame was painted.
MEASURE = """() => {
    window.measured = [];
    const desk = document.querySelector('.desk');
    const face = () => document.querySelector('.face img');
    const painted = () => new Promise(done => requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = done;
        channel.port2.postMessage(null);
    }));
    const stored = () => new Promise(done => {
        new MutationObserver((_, observer) => {
            if (desk.dataset.unsent !== '0') return;
            observer.disconnect();
            done(performance.now());
        }).observe(desk, {attributeFilter: ['data-unsent']});
    });
    document.addEventListener('keydown', async event => {
        const [pair, image, acknowledged] = [desk.dataset.pair, face(), stored()];
        await painted();
        await face().decode();
        await painted();
        const paint = performance.now() - event.timeStamp;
        const next = desk.dataset.pair;
        if (next === pair || !next) throw new Error('no next pair was shown');
        measured.push({paint, ack: await acknowledged - event.timeStamp, newFace: face() !== image});
    }, true);
}"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help=f"{KEYS['quick']} keys instead of {KEYS['full']}")
    parser.add_argument("--others", type=int, default=7, help="reviewers beside the one who is measured")
    options = parser.parse_args()
    size = "quick" if options.quick else "full"
    with served_desk(FACES[size]) as (url, component):
        alone = summary(press_keys(url, KEYS[size]), FACES[size], 0)
        with crowd(url, component, options.others) as done:
            together = summary(press_keys(url, KEYS[size]), FACES[size], options.others)
        together["others_decided"] = sum(done)
    results = [alone, together]
    print(json.dumps({"benchmark": "review", "runs": results}) if options.json else "\n\n".join(map(table, results)))


@contextmanager
def served_desk(number: int) -> Iterator[tuple[str, int]]:
    """A desk on a store in a temporary directory: its address, and the number of its component."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder))
        fill(store, number)
        give_pictures(store)
        with gr.Blocks(analytics_enabled=False) as app:
            build_review_tab(store, named)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        app.launch(
            server_name="127.0.0.1",
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            run_history=False,
        )
        yield app.local_url, next(number for number, block in app.blocks.items() if block.elem_id == "review-desk")
        app.close(verbose=False)
        store.close()


def give_pictures(store: Store) -> None:
    """Rendered faces for all images to share."""
    paths = []
    for number in range(PICTURES):
        out = io.BytesIO()
        faces.render(faces.sample(number), 448).save(out, "PNG")
        paths.append(store.put_image(out.getvalue(), ".png")[1])
    with writing(store._engine) as session:
        for number, path in enumerate(paths):
            session.execute(sa.update(Image).where(Image.id % PICTURES == number).values(path=path))


def named(request: gr.Request | None) -> Identity:
    """Whoever the header names; the browser sends none."""
    return Identity(request.headers.get("x-name", "benchmark") if request else "benchmark", Role.REVIEWER)


@contextmanager
def crowd(url: str, component: int, others: int) -> Iterator[list[int]]:
    """Others who review meanwhile; how many decisions each has made is known at the end."""
    server = Server(Path(), "", int(url.rstrip("/").rpartition(":")[2]), component)
    stop, done = threading.Event(), [0] * others

    def review(place: int) -> None:
        client = Client(server, f"other-{place}", random.Random(place))
        while not stop.is_set():
            for view in client.claim():
                if stop.wait(PAUSE):
                    return
                client.decide(view, until=time.monotonic() + 30)
                done[place] += 1

    threads = [threading.Thread(target=review, args=(place,)) for place in range(others)]
    for thread in threads:
        thread.start()
    yield done
    stop.set()
    for thread in threads:
        thread.join()


def press_keys(url: str, count: int) -> list[dict[str, Any]]:
    """Press A and R in turn, each after the one before was measured: [{paint, ack, newFace}], milliseconds."""
    with laptop_page() as page:
        page.goto(url)
        page.wait_for_selector(".desk[data-state=showing]")
        page.evaluate(MEASURE)
        for number in range(count):
            press(page, "ar"[number % 2], number + 1)
        measured: list[dict[str, Any]] = page.evaluate("measured")
    return measured


def press(page: Any, key: str, expected: int) -> None:
    """Press a key and wait until it was measured."""
    page.keyboard.press(key)
    page.wait_for_function("count => measured.length === count", arg=expected, timeout=10_000)


def summary(measured: list[dict[str, Any]], images: int, others: int) -> dict[str, Any]:
    """The figures of all keys."""
    paint = spread([one["paint"] for one in measured])
    return {
        "others": others,
        "keys": len(measured),
        "pairs": images * 8,
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 1),
        "paint_ms": paint,
        "paint_new_face_ms": spread([one["paint"] for one in measured if one["newFace"]]),
        "stored_ms": spread([one["ack"] for one in measured]),
        "target_paint_median_ms": TARGET_MS,
        "target_paint_p95_ms": TARGET_P95_MS,
        "target_met": paint["median"] <= TARGET_MS and paint["p95"] <= TARGET_P95_MS,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum."""
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return {"median": round(statistics.median(values), 1), "p95": round(cuts[-1], 1), "max": round(max(values), 1)}


def table(result: dict[str, Any]) -> str:
    """The same for reading."""
    rows = {
        "key to next pair painted": result["paint_ms"],
        "  where the face changes": result["paint_new_face_ms"],
        "key to decision stored": result["stored_ms"],
    }
    who = f"beside {result['others']} others" if result["others"] else "alone"
    about = f"{result['pairs']:,} pairs, {result['cores']} cores, load {result['load_1min']}"
    lines = [f"{who}: {result['keys']} keys, {about}"]
    lines.append(f"{'milliseconds':28}{'median':>9}{'p95':>9}{'max':>9}")
    lines += [f"{name:28}{row['median']:>9}{row['p95']:>9}{row['max']:>9}" for name, row in rows.items()]
    met = "met" if result["target_met"] else "MISSED"
    lines.append(f"target to paint: median {TARGET_MS} ms, 95th percentile {TARGET_P95_MS} ms: {met}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
