"""A review desk on a real server, and what a reviewer sees and does there, for tests in a browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import gradio as gr

from annotation.accounts.identity import NOBODY, Identity
from annotation.models import Role
from annotation.review_tab import build_review_tab
from annotation.store import Store
from tests import served_tab

ROOT = Path(__file__).resolve().parent.parent
SERVER_CALLS = "**/component_server/**"
DESKTOP = {"width": 1366, "height": 768}
PHONE = {"width": 390, "height": 844}


def who(request: Any) -> Identity:
    """Somebody by the cookie `name`: carol is a curator, vic a visitor, nobody is not signed in, others review."""
    name = request.cookies.get("name", "ana") if request is not None else "ana"
    if name == "nobody":
        return NOBODY
    return Identity(name, {"carol": Role.CURATOR, "vic": Role.VISITOR}.get(name, Role.REVIEWER))


@contextmanager
def served(store: Store) -> Iterator[str]:
    """The address of a page with the desk, and with another tab."""
    with gr.Blocks(analytics_enabled=False) as app, gr.Tabs(elem_id="studio-tabs"):
        with gr.Tab("Other"):
            gr.Textbox(label="Text")
        with gr.Tab("Review"):
            build_review_tab(store, who)
    script = (ROOT / "facellm" / "studio.js").read_text(encoding="utf-8")
    with served_tab.served(app, css_paths=ROOT / "facellm" / "studio.css", js=script) as url:
        yield url


class Desk:
    """What one reviewer sees and does, in a window of his own."""

    def __init__(self, browser: Any, url: str, name: str = "ana", **context: Any) -> None:
        """`name`: see `who`; `context`: of Playwright."""
        self.url = url
        self.context = browser.new_context(**{"viewport": DESKTOP} | context)
        self.context.add_cookies([{"name": "name", "value": name, "url": url}])
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, review: str = "", state: str = "showing") -> "Desk":
        """Load the page, by a link to what `review` says; wait until it is there."""
        self.page.goto(f"{self.url}/?review={quote_plus(review)}")
        self.wait_for_state(state)
        return self

    def close(self) -> None:
        """Close the window; fails if a script has."""
        self.context.close()
        assert self.errors == []

    def wait_for_state(self, state: str) -> None:
        """Of the desk: loading, showing, empty, editing, flagging."""
        self.page.wait_for_selector(f".desk[data-state={state}]", timeout=20_000)

    def wait_until_saved(self) -> None:
        """Until the server has echoed every decision."""
        self.page.wait_for_selector(".desk[data-unsent='0']", timeout=20_000)

    def wait_for_pair(self, pair_id: int) -> None:
        """Until this pair is on screen."""
        self.page.wait_for_selector(f".desk[data-pair='{pair_id}']", timeout=20_000)

    def wait_for_text(self, selector: str, text: str) -> None:
        """Until an element has a text somewhere."""
        self.page.locator(selector, has_text=text).first.wait_for(timeout=20_000)

    @property
    def state(self) -> str:
        """See `wait_for_state`."""
        return str(self.page.get_attribute(".desk", "data-state"))

    @property
    def pair(self) -> int:
        """The pair on screen."""
        return int(self.page.get_attribute(".desk", "data-pair"))

    @property
    def unsent(self) -> int:
        """Decisions that the server has not echoed."""
        return int(self.page.get_attribute(".desk", "data-unsent"))

    @property
    def kept(self) -> list[str]:
        """What the browser keeps beyond this page."""
        found: list[str] = self.page.evaluate(
            "Object.keys(localStorage).filter(key => key.startsWith('facellm.review'))"
        )
        return found

    def press(self, *keys: str) -> int:
        """Press keys; return the pair that was shown before."""
        shown = self.pair
        for key in keys:
            self.page.keyboard.press(key)
        return shown

    def filter(self, name: str, value: str) -> None:
        """Choose a filter from its list."""
        self.page.select_option(f"[data-filter={name}]", value)

    def edit(self, text: str) -> int:
        """Edit the answer and save; return the pair."""
        pair = self.press("e")
        self.page.fill(".editor", text)
        self.page.keyboard.press("Control+Enter")
        return pair

    def text(self, selector: str) -> str:
        """What is to be read there."""
        return str(self.page.locator(selector).inner_text())

    def ask(self, function: str, **request: Any) -> Any:
        """Call a server function as the page does, and as anybody could."""
        call = """async ([name, request]) => {
            const config = window.gradio_config;
            const id = config.components.find(each => each.props.elem_id === 'review-desk').id;
            const body = {data: request, fn_name: name, component_id: id, session_hash: 'test'};
            const headers = {'Content-Type': 'application/json'};
            const reply = await fetch(config.root + config.api_prefix + '/component_server/',
                {method: 'POST', headers, body: JSON.stringify(body)});
            return reply.ok ? reply.json() : {http: reply.status};
        }"""
        return self.page.evaluate(call, [function, request])
