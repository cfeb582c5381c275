"""The whole page of app.py, served in this process, without a model of its own."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

import app
from annotation.accounts.sign_in import SignIn
from annotation.store import Store
from facellm.answerers import Answerers
from facellm.config import Settings


@contextmanager
def served(settings: Settings, store: Store) -> Iterator[tuple[str, gr.Blocks]]:
    """The address of the page, and the page."""
    settings = settings.model_copy(update={"base_model": "none"})
    sign_in = SignIn(store.accounts, settings)
    page = app.build_app(settings, store, Answerers(None, adapters=dict, checkpoints={}, remotes=[]), sign_in)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page.launch(**app.launch_options(settings, sign_in) | {"server_name": "127.0.0.1", "server_port": port})
    try:
        yield str(page.local_url), page
    finally:
        page.close()
