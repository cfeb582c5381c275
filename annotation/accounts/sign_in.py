"""Who sends a request: told by a signed cookie, or by Hugging Face's sign-in on a Space.

    sign_in = SignIn(store.accounts, settings)
    sign_in.who(request)  # of Gradio or Starlette

The one surprising fact: a request that a page of another site has sent is nobody's, whatever cookie comes with it. So
no other page can act in the name of who is signed in here, and calls without one, like /ask, stay open to all.
"""

import time
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request

from annotation.accounts.accounts import Accounts, folded_name
from annotation.accounts.identity import NOBODY, Identity
from annotation.accounts.sessions import Sessions, session_secret
from annotation.models import Reviewer, Role
from facellm.config import OAUTH_VARIABLES, Settings
from facellm.errors import ConfigError


class Way(StrEnum):
    """How people sign in."""

    NONE = "none"  # not at all: everybody is an admin
    LOCAL = "local"  # with name and password
    HUGGINGFACE = "huggingface"  # on a Space


class SignIn:
    """Tells who is asking; may be used from several threads."""

    def __init__(self, accounts: Accounts, settings: Settings) -> None:
        """Sign in as the settings say.

        Raises:
            ConfigError: they ask for Hugging Face where that is not to be had, or their session secret is too short.
        """
        self.accounts = accounts
        self._settings = settings
        self._has_accounts = False
        self._admins = {name.casefold() for name in settings.huggingface_admins}
        if settings.sign_in == "huggingface" and not settings.has_oauth:
            raise ConfigError(
                "The setting sign_in is huggingface, which works on a Hugging Face Space whose card says hf_oauth: "
                f"true; found no {', '.join(OAUTH_VARIABLES)} of one. Set sign_in to auto, local or none."
            )
        if settings.session_secret.get_secret_value():
            _ = self.sessions

    @cached_property
    def sessions(self) -> Sessions:
        """Cookies; their secret is made when it is first needed."""
        return Sessions(session_secret(self._settings.session_secret.get_secret_value(), self._settings.data_dir))

    def way(self) -> Way:
        """How people sign in now: the first account with a password changes it while the app runs."""
        if self._settings.sign_in != "auto":
            return Way(self._settings.sign_in)
        if self._settings.has_oauth:
            return Way.HUGGINGFACE
        if self._settings.is_on_space:
            return Way.LOCAL  # strangers must not be admins because hf_oauth is missing
        self._has_accounts = self._has_accounts or self.accounts.have_passwords()
        return Way.LOCAL if self._has_accounts else Way.NONE

    def who(self, request: Any) -> Identity:
        """Who sends a request of Gradio or Starlette; without one (None), nobody, unless everybody is an admin."""
        plain = getattr(request, "request", None) or request  # Gradio wraps Starlette's
        if plain is not None and is_cross_site(plain):
            return NOBODY
        match self.way():
            case Way.NONE:
                return Identity(self._settings.reviewer, Role.ADMIN)
            case Way.LOCAL:
                account = self.account(plain) if plain is not None else None
                return Identity(account.name, account.role) if account is not None else NOBODY
            case Way.HUGGINGFACE:
                return self._huggingface(plain.scope.get("session") or {}) if plain is not None else NOBODY

    def account(self, request: Request) -> Reviewer | None:
        """The account that a request's cookie names, if its session goes on."""
        cookie = request.cookies.get(self.sessions.cookie)
        session = self.sessions.read(cookie) if cookie else None
        return self.accounts.of_session(*session) if session is not None else None

    def _huggingface(self, session: Mapping[str, Any]) -> Identity:
        """Whoever Gradio's sign-in has noted in its own signed session."""
        noted = session.get("oauth_info") or {}
        user = noted.get("userinfo", {}).get("preferred_username", "")
        if not user or noted.get("expires_at", 0) < time.time():
            return NOBODY
        account = self.accounts.of_huggingface(user)
        if account is None and folded_name(user) in {folded_name(each.name) for each in self.accounts.all()}:
            return NOBODY  # somebody else has that name here
        name = account.name if account is not None else user
        if user.casefold() in self._admins:
            return Identity(name, Role.ADMIN)
        return Identity(name, account.role if account is not None and account.active else Role.VISITOR)


def is_cross_site(request: Request) -> bool:
    """Whether a page of another origin has sent it, by what browsers add; what is no browser adds nothing."""
    site = request.headers.get("sec-fetch-site")  # only over https, or to this machine
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")
