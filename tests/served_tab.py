"""A page of Gradio on a free port of 127.0.0.1, served in this process."""

import socket
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
