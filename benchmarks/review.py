"""How fast the review desk is: from the key to the next pair painted, and to the decision stored.

    make setup                                          installs Playwright, which the app does not need
    python benchmarks/review.py [--json] [--quick]

Starts a small app on a free port of 127.0.0.1 with a data set of its own, and presses A and R in headless Chromium.
Times are taken inside the page: from the key event's own time stamp until the next face is decoded and its frame
painted, and until the server has acknowledged the decision (which by then is synced to disk).
"""

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "0")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gradio as gr  # noqa: E402 - after the path to this checkout
from support.chromium import laptop_page  # noqa: E402

from annotation.accounts.identity import Identity  # noqa: E402
from annotation.models import Role  # noqa: E402
from annotation.review_tab import build_review_tab  # noqa: E402
from annotation.seed import seed  # noqa: E402
from annotation.store import Store  # noqa: E402

TARGET_MS = 150  # median from key to paint
FACES = {"quick": 36, "full": 150}  # a third of them pending, eight pairs each
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
    options = parser.parse_args()
    size = "quick" if options.quick else "full"
    with served_desk(FACES[size]) as url:
        result = summary(press_keys(url, KEYS[size]), FACES[size])
    print(json.dumps(result) if options.json else table(result))


@contextmanager
def served_desk(faces: int) -> Iterator[str]:
    """A desk on a seeded store in a temporary directory; the address."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder))
        seed(store, faces)
        with gr.Blocks(analytics_enabled=False) as app:
            build_review_tab(store, lambda _: Identity("benchmark", Role.REVIEWER))
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
        yield app.local_url
        app.close(verbose=False)
        store.close()


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


def summary(measured: list[dict[str, Any]], faces: int) -> dict[str, Any]:
    """The figures of all keys."""
    paint = spread([one["paint"] for one in measured])
    return {
        "benchmark": "review",
        "keys": len(measured),
        "pairs": faces * 8,
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 1),
        "paint_ms": paint,
        "paint_new_face_ms": spread([one["paint"] for one in measured if one["newFace"]]),
        "stored_ms": spread([one["ack"] for one in measured]),
        "target_paint_median_ms": TARGET_MS,
        "target_met": paint["median"] <= TARGET_MS,
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
    lines = [f"{result['keys']} keys, {result['pairs']} pairs, {result['cores']} cores, load {result['load_1min']}"]
    lines.append(f"{'milliseconds':28}{'median':>9}{'p95':>9}{'max':>9}")
    lines += [f"{name:28}{row['median']:>9}{row['p95']:>9}{row['max']:>9}" for name, row in rows.items()]
    lines.append(f"target: median of {TARGET_MS} ms to paint: {'met' if result['target_met'] else 'MISSED'}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
