"""Draw the README's pictures: make screenshots

Starts the app on a fresh data directory, goes through the loop in headless Chromium as a newcomer would, with a short
training run, and saves docs/images/*.png at 1366×768. The teacher of the Dataset tab is the tests' server.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))
from teacher_server import TeacherServer  # noqa: E402 - after the path to it

IMAGES = ROOT / "docs" / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
TRAINING_LIMIT = 15 * 60 * 1000  # milliseconds


def main() -> None:
    """Start, walk, stop."""
    chromium = shutil.which("chromium") or sys.exit("No chromium was found; Debian has it as a package of that name.")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder, TeacherServer(latency_s=2.5, share_refused=0.03) as teacher:
        teachers = {"vLLM at home": {"base_url": teacher.base_url, "model": "teacher", "price": [0.2, 0.8]}}
        environment = os.environ | {"FACELLM_DATA_DIR": folder, "GRADIO_SERVER_PORT": port}
        environment["FACELLM_TEACHERS"] = json.dumps(teachers)
        command = [sys.executable, "app.py"]
        with (
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as app,
            sync_playwright() as playwright,
        ):
            try:
                assert app.stdout is not None
                url = app.stdout.readline().split()[-1]
                browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                walk(browser.new_page(viewport={"width": 1366, "height": 768}), url)
                browser.close()
            finally:
                app.terminate()


def walk(page: Any, url: str) -> None:
    """The loop, a picture at each stop."""
    page.goto(url)
    page.click("#chat-notice button")
    page.locator("#chat-faces .thumbnail-item").nth(3).click()
    page.wait_for_selector("#chat-box img")
    topics = page.locator("#chat-topics")
    for number, topic in enumerate(("Expression", "Pose")):
        topics.get_by_role("button", name=topic, disabled=False).click()
        page.locator("#chat-beside .chat-pane").first.locator("[data-testid=bot]").nth(number).wait_for()
        page.wait_for_selector("#chat-status:has-text('Answered')")
        page.wait_for_timeout(500)
    page.wait_for_timeout(1000)
    page.screenshot(path=IMAGES / "chat.png")

    page.get_by_role("tab", name="Review").click()
    page.locator("#review-desk").get_by_role("button", name="Accept").wait_for()
    page.select_option("#review-desk select.order", "most suspicious first")
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / "review.png")

    page.get_by_role("tab", name="Dataset").click()
    page.get_by_role("button", name="Generate", exact=True).click()
    page.get_by_text("left", exact=False).first.wait_for()
    page.wait_for_timeout(9000)
    page.screenshot(path=IMAGES / "dataset.png")
    page.get_by_role("button", name="Stop", exact=True).click()

    page.get_by_role("tab", name="Fine-tune").click()
    page.get_by_role("button", name="Fine-tune", exact=True).click()
    page.locator("#tune-head").get_by_text("finished").wait_for(timeout=TRAINING_LIMIT)
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / "fine-tune.png")


if __name__ == "__main__":
    main()
