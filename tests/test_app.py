"""The whole loop as a newcomer goes through it: `python app.py` and a browser, nothing else.

A real server, the embedded model, a real training subprocess. One small seeded data set serves the module.
"""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from annotation.models import Status
from annotation.store import Store
from facellm import faces
from facellm.training import jobs

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("app")]


@dataclass
class Studio:
    """A running app: where it is, and its data."""

    url: str
    data_dir: Path


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    data_dir = tmp_path_factory.mktemp("studio") / "data"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"FACELLM_DATA_DIR": str(data_dir), "FACELLM_SEED_FACES": "24", "GRADIO_SERVER_PORT": str(port)}
    with subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()  # type: ignore[union-attr]
        assert f"http://127.0.0.1:{port}" in line, line
        yield Studio(f"http://127.0.0.1:{port}", data_dir)
        process.terminate()


@pytest.fixture
def page(studio: Studio, browser: Any) -> Iterator[Any]:
    """A page at laptop size; the test fails if it asked anything of another machine or its scripts failed."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    page = context.new_page()
    strangers: list[str] = []
    failures: list[str] = []
    page.on("request", lambda request: strangers.append(request.url) if is_foreign(request.url) else None)
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(studio.url)
    page.get_by_role("tab", name="Chat").wait_for()
    yield page
    context.close()
    assert strangers == [], "the page works without a network"
    assert failures == []


def is_foreign(url: str) -> bool:
    return re.match(r"(data|blob):|http://127\.0\.0\.1[:/]", url) is None


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def ask_expression(page: Any) -> list[str]:
    """Pick the first example face, ask for its expression; the newest answer of each pane that is shown."""
    page.locator("#chat-faces .thumbnail-item").first.click()
    page.wait_for_selector("#chat-box img")
    page.locator("#chat-topics").get_by_role("button", name="Expression").click()
    page.locator(".chat-pane:visible [data-testid=bot]").first.wait_for()  # it comes with the status "Answering"
    page.wait_for_selector("#chat-status:has-text('Answered')", timeout=60_000)
    panes = page.locator(".chat-pane:visible")
    return [panes.nth(index).locator("[data-testid=bot]").last.inner_text().strip() for index in range(panes.count())]


def test_the_whole_loop(page: Any, studio: Studio) -> None:
    before, after = ask_expression(page)
    assert before
    assert after
    assert before != after

    open_tab(page, "Review")
    review_three_pairs(page)
    assert decided(studio.data_dir) == {Status.ACCEPTED: 1, Status.EDITED: 1, Status.REJECTED: 1}

    open_tab(page, "Fine-tune")
    page.locator("#tune-settings").get_by_label("Name").fill("first")
    page.locator("#tune-settings").get_by_label("Epochs").fill("2")
    page.get_by_role("button", name="Fine-tune", exact=True).click()
    page.locator("#tune-head").get_by_text("finished").wait_for(timeout=180_000)
    page.locator("#tune-curve canvas, #tune-curve svg").first.wait_for()
    run = jobs.status(studio.data_dir / "runs" / "first")
    assert run.first_loss is not None
    assert run.loss is not None
    assert run.loss < run.first_loss
    answers = [json.loads(line)["answer"] for line in (run.path / "train.jsonl").read_text().splitlines()]
    assert any("A newcomer wrote this." in answer for answer in answers), "the edited text is what is learnt"

    page.get_by_role("button", name="Chat with it").click()
    page.locator("#chat-beside").get_by_text("first", exact=True).first.wait_for(timeout=10_000)
    base, tuned = ask_expression(page)
    assert base == before, "fine-tuning leaves the base as it was"
    assert tuned not in ("", base)

    page.reload()
    open_tab(page, "Fine-tune")
    page.locator("#tune-runs").get_by_text("first · finished").wait_for()


def review_three_pairs(page: Any) -> None:
    """Accept one, edit one, reject one, by key; each key acts on what is shown."""
    for key in ("a", "e", "r"):
        page.wait_for_selector(".desk[data-state=showing]")
        pair = page.locator(".desk").get_attribute("data-pair")
        page.keyboard.press(key)
        if key == "e":
            page.locator(".desk .editor").wait_for()
            page.keyboard.press("Control+End")
            page.keyboard.type(" A newcomer wrote this.")
            page.keyboard.press("Control+Enter")
        page.wait_for_selector(f".desk:not([data-pair='{pair}'])")
    page.wait_for_selector(".desk[data-unsent='0']")


def decided(data_dir: Path) -> dict[Status, int]:
    """Status → pairs, of what the app's own reviewer decided."""
    store = Store.open(data_dir)
    try:
        events = store.history("reviewer")
        found = [view.pair.status for view in store.pairs([event.pair_id for event in events])]
        return {status: found.count(status) for status in set(found)}
    finally:
        store.close()


@pytest.mark.parametrize("name", ["Chat", "Dataset", "Review", "Fine-tune", "Team"])
def test_a_phone_shows_all_of_it(studio: Studio, browser: Any, name: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(studio.url)
    page.get_by_role("tab", name="Chat").wait_for()
    open_tab(page, name)
    page.wait_for_timeout(500)
    width = page.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert width <= 390, "nothing is cut off or scrolls sideways"


def test_a_reload_opens_the_tab_that_was_open(page: Any) -> None:
    open_tab(page, "Review")
    page.wait_for_selector(".desk:visible")
    page.reload()
    page.wait_for_selector(".desk:visible")
    assert page.get_by_role("tab", name="Review").get_attribute("aria-selected") == "true"


def test_the_dataset_tab_counts_what_there_is_when_it_is_opened(page: Any, studio: Studio) -> None:
    open_tab(page, "Dataset")
    page.locator("#data-summary").get_by_text("24 images · 192 pairs").wait_for()
    page.locator("#data-plot svg").get_by_text("structure").wait_for()
    store = Store.open(studio.data_dir)
    pending = store.counts()[None][Status.PENDING]
    store.add_exchange(
        [faces.render(faces.sample(1), 64)],
        "Who?",
        "A face.",
        attribute=None,
        teacher="t",
        teacher_source="t",
        parameters="{}",
    )
    assert store.counts()[None][Status.PENDING] == pending + 1
    store.close()
    open_tab(page, "Review")
    open_tab(page, "Dataset")
    page.locator("#data-summary").get_by_text("25 images · 193 pairs").wait_for()


def test_a_taken_port_is_one_line_before_anything_is_written(studio: Studio, data_dir: Path) -> None:
    """Gradio alone would take the next port, and a second app would share the data directory unseen."""
    port = studio.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=os.environ | {"FACELLM_DATA_DIR": str(data_dir), "GRADIO_SERVER_PORT": port},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: The port {port} is taken by another process")
    assert done.stderr.count("\n") == 1
    assert not data_dir.exists()


def test_private_things_are_not_endpoints(studio: Studio) -> None:
    with urllib.request.urlopen(f"{studio.url}/gradio_api/info") as response:
        endpoints = json.load(response)["named_endpoints"]
    assert list(endpoints) == ["/ask", "/compare"]


@pytest.mark.parametrize("pattern", ["studio.db", "seed_truth.jsonl", "images/*/*.png"])
def test_data_files_are_not_served(studio: Studio, pattern: str) -> None:
    """The Review tab's pictures neither: they come within its server function's reply."""
    path = next(studio.data_dir.glob(pattern))
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{studio.url}/gradio_api/file={path}")
