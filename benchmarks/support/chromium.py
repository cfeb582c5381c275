"""The system's Chromium, for benchmarks that drive a page.

The one surprising fact: Playwright's own browser builds are not used, so that what is measured is what is installed.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def laptop_page() -> Iterator[Any]:
    """A page of a laptop's size; ends the program with a sentence where no browser can be driven."""
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - part of the development tools only
    except ModuleNotFoundError:
        sys.exit("Playwright is not installed, and without it no browser can be driven. Install it: make setup")
    where = next((found for name in NAMES if (found := shutil.which(name))), None)
    if where is None:
        sys.exit("No Chromium was found, and without a browser nothing can be measured (Debian: apt install chromium).")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=where, args=FLAGS)
        yield browser.new_page(viewport={"width": 1366, "height": 768})
        browser.close()
