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


@contextmanager
def settled(page: Any, timeout: float = 30) -> Iterator[None]:
    """A page of Playwright: do what the block does, and then wait until all events that it has caused have ended.

    Events may follow from each other, and what they change need not show. While there is one, the page has a request
    of the queue open; seconds of nothing are not needed, since the next event is sent before the stream of the last
    one is closed, or within a moment of it.
    """
    going: set[Any] = set()

    def begins(request: Any) -> None:
        if "/queue/" in request.url:
            going.add(request)

    def ends(request: Any) -> None:
        going.discard(request)

    def leaves(frame: Any) -> None:
        if frame == page.main_frame:  # of the page that is left no end is told
            going.clear()

    listeners = {"request": begins, "requestfinished": ends, "requestfailed": ends, "framenavigated": leaves}
    for name, listener in listeners.items():
        page.on(name, listener)
    try:
        yield
        end, quiet = time.monotonic() + timeout, 0
        while quiet < 4:
            assert time.monotonic() < end, f"still going after {timeout} s: {[request.url for request in going]}"
            page.wait_for_timeout(50)
            quiet = 0 if going else quiet + 1
    finally:
        for name, listener in listeners.items():
            page.remove_listener(name, listener)
