"""Signing in and out over HTTP and in a browser: cookies, sessions that end, requests of other sites.

python -m pytest tests/test_sign_in.py
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio_calls import Caller
from whole_page import served

from annotation.accounts.attempts import NAME_AND_ADDRESS
from annotation.accounts.sign_in import SignIn
from annotation.models import Role
from annotation.seed import seed
from annotation.store import Store
from facellm.config import load_settings
from facellm.errors import ConfigError

PASSWORD = "correct horse battery"
NOBODY = {"name": "", "role": "visitor", "way": "local"}
ANN = {"name": "ann", "role": "admin", "way": "local"}
DESKTOP = {"width": 1366, "height": 768}
PHONE = {"width": 390, "height": 844}


@dataclass
class Served:
    """The whole page, and the store behind it."""

    url: str
    page: gr.Blocks
    store: Store

    def me(self, caller: Caller) -> Any:
        bar = next(number for number, block in self.page.blocks.items() if block.elem_id == "account-bar")
        return caller.server_function(bar, "me", {}).json()

    def signed_in(self, name: str = "ann", password: str = PASSWORD) -> Caller:
        caller = Caller(self.url)
        assert caller.post("sign-in", name=name, password=password).status_code == 200
        return caller


@pytest.fixture
def alone(data_dir: Path) -> Iterator[Served]:
    """Without accounts."""
    store = Store.open(data_dir)
    seed(store, 3)
    with served(load_settings(), store) as (url, page):
        yield Served(url, page, store)
    store.close()


@pytest.fixture
def team(alone: Served) -> Served:
    """An admin, ann, and a reviewer, bob; they came while the app was running."""
    alone.store.accounts.add("ann", Role.ADMIN, password=PASSWORD)
    alone.store.accounts.add("bob", Role.REVIEWER, password=PASSWORD)
    return alone


def test_alone_everybody_is_the_admin_of_the_settings_until_there_is_an_account(alone: Served) -> None:
    caller = Caller(alone.url)
    assert alone.me(caller) == {"name": "reviewer", "role": "admin", "way": "none"}
    assert caller.post("sign-in", name="ann", password=PASSWORD).status_code == 404
    assert not (alone.store.data_dir / "session_secret").exists()
    stranger = Caller(alone.url, {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"})
    assert alone.me(stranger)["role"] == "visitor", "a page of another site, in the researcher's own browser"
    alone.store.accounts.add("ann", Role.ADMIN, password=PASSWORD)
    assert alone.me(caller) == NOBODY


def test_a_session_from_its_beginning_to_its_end(team: Served) -> None:
    caller = Caller(team.url)
    reply = caller.post("sign-in", name=" ANN ", password=PASSWORD)
    assert reply.json() == {"name": "ann", "role": "admin"}
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert re.search(r"SameSite=lax", cookie, re.IGNORECASE)
    assert "Max-Age=1209600" in cookie
    assert "Secure" not in cookie, "over http a browser would not keep it"
    assert reply.headers["cache-control"] == "no-store"
    assert team.me(caller) == ANN
    copied = Caller(team.url, {"Cookie": cookie.split(";")[0]})
    assert team.me(copied) == ANN
    assert caller.post("sign-out").status_code == 200
    assert team.me(caller) == NOBODY
    assert team.me(copied) == NOBODY, "a copy of the cookie is worth nothing either"


def test_the_cookie_is_for_https_alone_where_there_is_https(team: Served) -> None:
    behind = Caller(team.url, {"X-Forwarded-Proto": "https"})
    assert "Secure" in behind.post("sign-in", name="ann", password=PASSWORD).headers["set-cookie"]


def test_what_ends_sessions_and_what_does_not(team: Served) -> None:
    accounts = team.store.accounts
    laptop, phone = team.signed_in("bob"), team.signed_in("bob")
    accounts.set_role("bob", Role.CURATOR)
    assert team.me(phone) == {"name": "bob", "role": "curator", "way": "local"}, "a new role holds at once"
    wrong = laptop.post("password", password="not the old one", new="a whole new one")
    assert wrong.status_code == 401
    weak = laptop.post("password", password=PASSWORD, new="short")
    assert weak.json()["error"].startswith("The password has 5 characters")
    assert laptop.post("password", password=PASSWORD, new="a whole new one").status_code == 200
    assert team.me(laptop)["name"] == "bob"
    assert team.me(phone) == NOBODY
    assert Caller(team.url).post("sign-in", name="bob", password=PASSWORD).status_code == 401
    accounts.set_active("bob", False)
    assert team.me(laptop) == NOBODY
    assert Caller(team.url).post("sign-in", name="bob", password="a whole new one").status_code == 401
    accounts.set_active("bob", True)
    assert team.me(laptop) == NOBODY, "the old session does not come back"
    assert Caller(team.url).post("password", password=PASSWORD, new="x" * 12).status_code == 401


def test_unknown_names_and_wrong_passwords_are_told_alike_and_pause(team: Served) -> None:
    caller = Caller(team.url)
    unknown = caller.post("sign-in", name="carl", password=PASSWORD)
    replies = [caller.post("sign-in", name="ann", password=f"wrong {number}") for number in range(7)]
    assert unknown.json() == replies[0].json()
    states = [reply.status_code for reply in replies]
    assert states == [401] * NAME_AND_ADDRESS.free + [429] * (7 - NAME_AND_ADDRESS.free)
    assert re.search(r"Wait \d s", replies[-1].json()["error"])
    assert team.signed_in("bob"), "others from the same address can sign in"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
    ],
)
def test_other_sites_act_in_nobodys_name(team: Served, headers: dict[str, str]) -> None:
    ann = team.signed_in()
    ann.http.headers.update(headers)
    assert team.me(ann) == NOBODY, "whatever cookie comes with it"
    assert ann.post("sign-out").status_code == 403
    assert Caller(team.url, headers).post("sign-in", name="ann", password=PASSWORD).status_code == 403
    for name in headers:
        del ann.http.headers[name]
    assert team.me(ann) == ANN
    ann.http.headers["Origin"] = team.url.rstrip("/")
    assert team.me(ann) == ANN


def test_what_is_no_form_of_ours_is_refused_in_a_sentence(team: Served) -> None:
    http = Caller(team.url).http
    form = http.post("/account/sign-in", data={"name": "ann", "password": PASSWORD})
    assert form.status_code == 403
    json = {"Content-Type": "application/json"}
    for content in (b"", b"{", b"[]", b'{"name": "ann"}', b'{"name": 1, "password": []}', b"\xff\xfe"):
        assert http.post("/account/sign-in", content=content, headers=json).status_code == 400
    assert http.post("/account/sign-in", content=b" " * 9000, headers=json).status_code == 413
    assert http.get("/account/sign-in").status_code in (404, 405)


def test_the_settings_can_close_and_open_the_door(data_dir: Path) -> None:
    store = Store.open(data_dir)
    settings = load_settings()
    assert SignIn(store.accounts, settings.model_copy(update={"sign_in": "local"})).who(None).role is Role.VISITOR
    store.accounts.add("ann", Role.ADMIN, password=PASSWORD)
    assert SignIn(store.accounts, settings.model_copy(update={"sign_in": "none"})).who(None).role is Role.ADMIN
    with pytest.raises(ConfigError, match="works on a Hugging Face Space"):
        SignIn(store.accounts, settings.model_copy(update={"sign_in": "huggingface"}))
    store.close()


def test_a_space_without_oauth_leaves_nobody_an_admin(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACE_ID", "ann/studio")
    store = Store.open(data_dir)
    assert SignIn(store.accounts, load_settings()).who(None).role is Role.VISITOR
    store.close()


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_signing_in_and_out_in_a_browser(browser: Any, team: Served, viewport: dict[str, int], theme: str) -> None:
    context = browser.new_context(viewport=viewport)
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(f"{team.url}?__theme={theme}")
    wide = viewport == DESKTOP  # a phone does not show all tabs
    tab = page.get_by_role("tab", name="Fine-tune" if wide else "Review")
    tab.click()
    if wide:
        page.get_by_text("Only a curator can fine-tune a model; you are not signed in.").wait_for()
        assert page.locator("#tune-begin").is_disabled()

    page.locator("#account-bar").get_by_role("button", name="Sign in").click()
    dialog = page.locator("dialog.sign-in[open]")
    dialog.get_by_label("Name").fill("ann")
    dialog.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    dialog.get_by_text("Name and password do not go together").wait_for()
    box = dialog.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= viewport["width"]
    assert contrast(page, "dialog.sign-in .error") >= 4.5
    assert contrast(page, "dialog.sign-in label") >= 4.5
    dialog.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.locator("#account-bar").get_by_text("ann · admin").wait_for()
    page.locator("[role=tab][aria-selected=true]").get_by_text("Fine-tune" if wide else "Review").wait_for()
    if wide:
        page.wait_for_selector("#tune-begin:not([disabled])")
    assert page.evaluate("document.cookie") == "", "no script can read it"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    page.locator("#account-bar").get_by_text("ann · admin").click()
    page.locator("dialog.own[open]").get_by_role("button", name="Sign out").click()
    page.locator("#account-bar").get_by_role("button", name="Sign in").wait_for()
    if wide:
        page.wait_for_selector("#tune-begin[disabled]")
    context.close()
    assert failures == []


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
def test_from_alone_to_a_team_in_the_page(browser: Any, alone: Served) -> None:
    """The first account from the panel, its password shown once, signing in, adding somebody, changing the password."""
    page = browser.new_context(viewport=DESKTOP).new_page()
    page.goto(alone.url)
    page.get_by_role("tab", name="Team").click()
    page.get_by_text("There are no accounts yet.").wait_for()
    assert not page.locator("#account-bar .open").is_visible()
    add_account(page, "ann", "admin")
    made = page.locator("#accounts-told code").inner_text()
    page.reload()
    page.locator("#account-bar").get_by_role("button", name="Sign in").click()
    page.locator("dialog.sign-in").get_by_label("Name").fill("ann")
    page.locator("dialog.sign-in").get_by_label("Password").fill(made)
    page.keyboard.press("Enter")
    page.locator("#account-bar").get_by_text("ann · admin").wait_for()
    page.wait_for_selector("#accounts-list td:has-text('ann')")
    add_account(page, "bob", "reviewer")
    page.wait_for_selector("#accounts-list td:has-text('bob')")

    page.locator("#account-bar").get_by_text("ann · admin").click()
    own = page.locator("dialog.own[open]")
    own.get_by_text("Change password").click()
    own.get_by_label("Present password").fill(made)
    own.get_by_label("New password").fill(PASSWORD)
    own.get_by_role("button", name="Change it").click()
    own.get_by_text("Changed. You are signed out everywhere else.").wait_for()
    page.context.close()
    assert alone.store.accounts.check("ann", PASSWORD) is not None
    assert {each.name: each.role for each in alone.store.accounts.all()} == {"ann": Role.ADMIN, "bob": Role.REVIEWER}


def add_account(page: Any, name: str, role: str) -> None:
    form = page.locator("#accounts-add")
    form.get_by_label("New account").fill(name)
    form.get_by_label("Role").click()
    page.get_by_role("option", name=role, exact=True).click()
    form.get_by_role("button", name="Add", exact=True).click()
    page.locator("#accounts-told").get_by_text(name, exact=True).wait_for()


def contrast(page: Any, selector: str) -> float:
    """The contrast ratio (WCAG) of a text against the dialog behind it."""
    return float(
        page.evaluate(
            """(selector) => {
              const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
              const paint = (colours) => {
                for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
                return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
              };
              const light = (rgb) => rgb
                .map((value) => value / 255)
                .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
                .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
              const text = document.querySelector(selector);
              const back = getComputedStyle(text.closest('dialog')).backgroundColor;
              const both = [light(paint([back])), light(paint([back, getComputedStyle(text).color]))];
              const [high, low] = both.sort((a, b) => b - a);
              return (high + 0.05) / (low + 0.05);
            }""",
            selector,
        )
    )
