"""What the page adds to an answer: python benchmarks/chat_page.py [--json] [--quick]

Serves the Chat tab with the embedded models, and presses a topic for one face after another in headless Chromium. In
the page: from the click until both panes show their first words. In the app: from the question reaching the model until
it has written the first words. The difference is the page's own: network, Gradio, rendering.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "0")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import tempfile  # noqa: E402 - after the path to this checkout

import gradio as gr  # noqa: E402
from support.chromium import laptop_page  # noqa: E402

from facellm.answerers import BASE, Answer, Answerers  # noqa: E402
from facellm.blind_tab import VoteBook  # noqa: E402
from facellm.chat_tab import build_chat_tab  # noqa: E402
from facellm.config import EMBEDDED_ADAPTER, EMBEDDED_BASE, load_settings  # noqa: E402
from facellm.conversation import Request  # noqa: E402
from facellm.faces import render, sample  # noqa: E402
from facellm.model import ChatModel  # noqa: E402

TARGET_MS = 100
ROOT = Path(__file__).resolve().parent.parent
PRESS = """() => new Promise(done => {
    const started = performance.now();
    const begun = () => [...document.querySelectorAll('#chat-beside .chat-pane')].filter(pane => pane.offsetParent)
        .map(pane => [...pane.querySelectorAll('[data-testid=bot]')].at(-1)?.innerText.trim() ?? '')
        .every(text => !['', '…'].includes(text));
    const watcher = new MutationObserver(() => {
        if (!begun()) return;
        watcher.disconnect();
        requestAnimationFrame(() => done(performance.now() - started));
    });
    watcher.observe(document.querySelector('#chat-beside'), {childList: true, subtree: true, characterData: true});
    document.querySelector('#chat-topics button').click();
})"""


class Timed(Answerers):
    """The app's answerers, noting how long the model itself takes to begin."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.milliseconds: list[float] = []

    def stream(self, requests: Sequence[Request], **kwargs: Any) -> Iterator[tuple[Answer, ...]]:
        """As Answerers.stream."""
        started, begun = time.perf_counter(), False
        for answers in super().stream(requests, **kwargs):
            if not begun and all(answer.text for answer in answers):
                begun = True
                self.milliseconds.append(1000 * (time.perf_counter() - started))
            yield answers


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="5 questions instead of 30")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ChatModel.load(EMBEDDED_BASE, device="cpu") as model:
        answerers = Timed(model, adapters=lambda: {"facellm-tiny": EMBEDDED_ADAPTER})
        faces = [Path(folder) / f"{number}.png" for number in range(6)]
        for number, path in enumerate(faces):
            render(sample(number), 384).save(path)
        page = ask_in_the_page(serve(answerers, faces), len(faces), 5 if options.quick else 30)
        result = summary(page, answerers.milliseconds)
    print(json.dumps(result) if options.json else "\n".join(f"{name:32}{value}" for name, value in result.items()))


def serve(answerers: Answerers, faces: list[Path]) -> str:
    """The tab's address."""
    book = VoteBook(lambda vote: None, list, lambda path: None, lambda request, what: "")
    with gr.Blocks(analytics_enabled=False) as app, gr.Tabs(elem_id="studio-tabs"), gr.Tab("Chat"):
        build_chat_tab(
            answerers,
            examples=faces,
            settings=load_settings(),
            first_choice=[BASE, "facellm-tiny"],
            send_to_review=lambda *_: "",
            book=book,
        )
    styles = [str(ROOT / "facellm" / name) for name in ("studio.css", "chat.css")]
    _, url, _ = app.launch(
        prevent_thread_lock=True,
        server_name="127.0.0.1",
        ssr_mode=False,
        run_history=False,
        quiet=True,
        css_paths=styles,
    )
    return url


def ask_in_the_page(url: str, faces: int, questions: int) -> list[float]:
    """Milliseconds from the click to the first words in both panes, for each question but the first two."""
    found = []
    with laptop_page() as page:
        page.goto(url)
        page.wait_for_selector("#chat-notice button")
        page.click("#chat-notice button")
        for number in range(questions + 2):
            page.click(f"#chat-faces .thumbnail-item >> nth={number % faces}")
            page.wait_for_selector("#chat-box img")
            page.wait_for_timeout(150)
            found.append(page.evaluate(PRESS))
            page.wait_for_selector("#chat-status:has-text('Answered')")
            page.click("#chat-clear")
            page.wait_for_selector(".chat-pane .placeholder")
    return found[2:]


def summary(page: list[float], model: list[float]) -> dict[str, Any]:
    """Medians, and what the page adds."""
    model = model[-len(page) :]
    added = [shown - own for shown, own in zip(page, model, strict=True)]
    return {
        "benchmark": "chat_page",
        "questions": len(page),
        "page_first_words_median_ms": round(statistics.median(page), 1),
        "model_first_words_median_ms": round(statistics.median(model), 1),
        "page_adds_median_ms": round(statistics.median(added), 1),
        "target_ms": TARGET_MS,
    }


if __name__ == "__main__":
    main()
