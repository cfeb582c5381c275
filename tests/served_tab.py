"""A page of Gradio on a free port of 127.0.0.1, served in this process."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr


@contextmanager
def served(page: gr.Blocks, **options: Any) -> Iterator[str]:
    """Its address, without a slash at the end; `options` go to its launch."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    plain = {"prevent_thread_lock": True, "ssr_mode": False, "run_history": False, "quiet": True}
    try:
        _, url, _ = page.launch(**plain | options | {"server_name": "127.0.0.1", "server_port": port})
        yield url.rstrip("/")
    finally:
        page.close()


QUIET, LONG_QUIET = 0.3, 3.0  # seconds


@contextmanager
def settled(page: Any, timeout: float = 30) -> Iterator[None]:
    """A page of Playwright: do what the block does, and then wait until the events that it has caused have ended.

    Events may follow from each other, and what they change need not show. While there is one, the page has a request
    of the queue open, and the next event is sent before the stream of the last one is closed, or within a moment of
    it. The end of a stream that the page itself breaks off is not always told, so what is open counts as ended, too,
    once nothing has been asked for and nothing on the page has changed for `LONG_QUIET`.
    """
    going: set[Any] = set()
    changed = time.monotonic()

    def begins(request: Any) -> None:
        nonlocal changed
        if "/queue/" in request.url:
            going.add(request)
            changed = time.monotonic()

    def ends(request: Any) -> None:
        nonlocal changed
        if request in going:
            going.discard(request)
            changed = time.monotonic()

    listeners = {"request": begins, "requestfinished": ends, "requestfailed": ends}
    for name, listener in listeners.items():
        page.on(name, listener)
    try:
        yield
        end, shown = time.monotonic() + timeout, ""
        while time.monotonic() - changed < (LONG_QUIET if going else QUIET):
            assert time.monotonic() < end, f"still going after {timeout} s: {[request.url for request in going]}"
            page.wait_for_timeout(50)
            if (now := page.evaluate("document.body.innerHTML")) != shown:
                shown, changed = now, time.monotonic()
    finally:
        for name, listener in listeners.items():
            page.remove_listener(name, listener)
