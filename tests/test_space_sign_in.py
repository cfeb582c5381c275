"""Signing in with Hugging Face, as on a Space: the real app with Gradio's real OAuth, and a provider on this machine.

python -m pytest tests/test_space_sign_in.py
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2 as httpx
import pytest
from openid_provider import OpenIdProvider, openid_provider

from annotation.models import Role
from annotation.store import Store

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "correct horse battery"


@dataclass
class Space:
    """The app, which takes itself for a Space of the user `owner`."""

    url: str
    data_dir: Path
    provider: OpenIdProvider

    def sign_in(self, user: str) -> dict[str, str]:
        """Go through all redirects as a browser would; the cookies at their end."""
        self.provider.user = user
        address, cookies = f"{self.url}/login/huggingface?_target_url=/", dict[str, str]()
        with httpx.Client() as http:
            for _ in range(6):
                sent = "; ".join(f"{name}={value}" for name, value in cookies.items())
                reply = http.get(address, headers={"Cookie": sent} if address.startswith(self.url) else {})
                for line in reply.headers.get_list("set-cookie"):  # its own jar would keep Secure ones to https
                    name, _, value = line.split(";")[0].partition("=")
                    cookies[name] = value
                if "location" not in reply.headers:
                    return cookies
                address = urljoin(address, reply.headers["location"])
                if address == f"{self.url}/":
                    return cookies
        raise AssertionError(f"too many redirects, the last to {address}")

    def me(self, cookies: dict[str, str], **headers: str) -> Any:
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()), **headers}
        with httpx.Client(base_url=self.url, headers=sent) as http:
            components = http.get("/config").json()["components"]
            bar = next(each["id"] for each in components if each["props"].get("elem_id") == "account-bar")
            body = {"data": {}, "component_id": bar, "fn_name": "me", "session_hash": "s"}
            return http.post("/gradio_api/component_server", json=body).json()


@pytest.fixture
def space(data_dir: Path) -> Iterator[Space]:
    port = os.environ["GRADIO_SERVER_PORT"]
    with openid_provider() as provider:
        environment = {"SYSTEM": "spaces", "SPACE_ID": "owner/studio", "SPACE_AUTHOR_NAME": "owner"}
        environment |= {"FACELLM_BASE_MODEL": "none", "FACELLM_SEED_FACES": "3", "GRADIO_SERVER_NAME": "127.0.0.1"}
        with subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env=os.environ | environment | provider.environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                lines = iter(process.stdout)  # type: ignore[arg-type]
                assert any(f"http://127.0.0.1:{port}" in line for line in lines), "it has ended"
                yield Space(f"http://127.0.0.1:{port}", data_dir, provider)
            finally:
                process.terminate()


def test_who_signs_in_with_hugging_face_has_the_role_of_that_account(space: Space) -> None:
    store = Store.open(space.data_dir)
    assert space.me({}) == {"name": "", "role": "visitor", "way": "huggingface"}
    owner, anna, stranger = (space.sign_in(user) for user in ("owner", "Anna-HF", "stranger"))
    assert space.me(owner) == {"name": "owner", "role": "admin", "way": "huggingface"}
    assert space.me(anna)["role"] == space.me(stranger)["role"] == "visitor"
    store.accounts.add("anna", Role.CURATOR, huggingface="anna-hf")
    assert space.me(anna) == {"name": "anna", "role": "curator", "way": "huggingface"}
    assert space.me(anna, **{"Sec-Fetch-Site": "cross-site"})["role"] == "visitor"
    store.accounts.add("boss", Role.ADMIN, huggingface="boss")
    store.accounts.set_active("anna", False)
    assert space.me(anna) == {"name": "anna", "role": "visitor", "way": "huggingface"}
    store.accounts.add("Stranger", Role.ADMIN, password="a good password")
    assert space.me(stranger)["name"] == "", "somebody else has that name here"
    forged = {name: value[:-4] + "AAAA" for name, value in anna.items()}
    assert space.me(forged)["name"] == ""
    with httpx.Client(base_url=space.url) as http:
        reply = http.post("/account/sign-in", json={"name": "boss", "password": PASSWORD})
        assert reply.status_code == 404, "passwords are another way"
    store.close()


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
def test_the_button_signs_in_and_out(browser: Any, space: Space) -> None:
    space.provider.user = "owner"
    page = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
    page.goto(space.url)
    page.get_by_role("button", name="Sign in with Hugging Face").click()
    page.locator("#account-bar .who").get_by_text("admin").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Sign in with Hugging Face").wait_for()
    assert not page.locator("#account-bar .who").is_visible()
    page.context.close()
