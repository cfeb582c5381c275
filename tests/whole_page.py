"""The whole page of app.py, served in this process, without a model of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

import app
from annotation.accounts.sign_in import SignIn
from annotation.store import Store
from facellm.answerers import Answerers
from facellm.config import Settings
from tests import served_tab


@contextmanager
def served(settings: Settings, store: Store) -> Iterator[tuple[str, gr.Blocks]]:
    """The address of the page, and the page."""
    settings = settings.model_copy(update={"base_model": "none"})
    sign_in = SignIn(store.accounts, settings)
    page = app.build_app(settings, store, Answerers(None, adapters=dict, checkpoints={}, remotes=[]), sign_in)
    with served_tab.served(page, **app.launch_options(settings, sign_in)) as url:
        yield url, page
