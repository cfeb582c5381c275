"""The HTTP side of signing in with a password: POST account/sign-in, account/sign-out and account/password.

Each takes and returns JSON; what was refused is told as {"error": sentence}. The one surprising fact: they are mounted
beside Gradio's own routes, since a Gradio event cannot set a cookie.
"""

import json
from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from annotation.accounts.attempts import Attempts
from annotation.accounts.sign_in import SignIn, Way, is_cross_site
from annotation.models import Reviewer
from facellm.errors import FaceLLMError

LONGEST_BODY: Final = 8192
WRONG: Final = "Name and password do not go together. Check both; an admin can set a new password."
Answer = Callable[[Request, Any], Response]  # the body is whatever JSON was sent


class _Credentials(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    password: str = Field(min_length=1, max_length=1000)


class _NewPassword(BaseModel):
    model_config = ConfigDict(extra="forbid")

    password: str = Field(max_length=1000)
    new: str = Field(max_length=1000)


def sign_in_routes(sign_in: SignIn) -> list[Route]:
    """The routes, for `app_kwargs={"routes": …}` of Gradio's launch."""
    doors = _Doors(sign_in)
    answers = {"sign-in": doors.sign_in, "sign-out": doors.sign_out, "password": doors.change_password}
    return [Route(f"/account/{name}", _endpoint(sign_in, answer), methods=["POST"]) for name, answer in answers.items()]


class _Doors:
    """What the routes do; the failed attempts are all that is kept between two requests."""

    def __init__(self, sign_in: SignIn) -> None:
        self._sign_in = sign_in
        self._accounts = sign_in.accounts
        self._attempts = Attempts()

    def sign_in(self, request: Request, body: Any) -> Response:
        """Name and password in, a cookie out."""
        given = _Credentials.model_validate(body)
        return self._checked(request, given.name, given.password, lambda account: account)

    def sign_out(self, request: Request, _body: Any) -> Response:
        """End all sessions of whoever asks: a copy of the cookie is worth nothing afterwards."""
        account = self._sign_in.account(request)
        if account is not None:
            self._accounts.end_sessions(account.name)
        response = _json({})
        response.delete_cookie(self._sign_in.sessions.cookie, httponly=True, samesite="lax", secure=_is_https(request))
        return response

    def change_password(self, request: Request, body: Any) -> Response:
        """The old password and a new one; all other sessions of this account end."""
        given = _NewPassword.model_validate(body)
        account = self._sign_in.account(request)
        if account is None:
            return _refused("You are not signed in any more. Sign in, and change it then.", 401)
        name = account.name
        return self._checked(request, name, given.password, lambda _: self._accounts.set_password(name, given.new))

    def _checked(self, request: Request, name: str, password: str, then: Callable[[Reviewer], Reviewer]) -> Response:
        """If it is the right password, do what is to follow and hand out a cookie of the account as it is then."""
        address = request.client.host if request.client else ""
        wait = self._attempts.begin(name, address)
        if wait > 0:
            return _refused(f"There were too many attempts. Wait {_duration(wait)}, then try again.", 429)
        account = self._accounts.check(name, password)
        if account is None:
            return _refused(WRONG, 401)
        self._attempts.succeeded(name, address)
        return self._signed_in(request, then(account))

    def _signed_in(self, request: Request, account: Reviewer) -> Response:
        response = _json({"name": account.name, "role": account.role.value})
        sessions = self._sign_in.sessions
        response.set_cookie(
            sessions.cookie,
            sessions.sign(account),
            max_age=sessions.seconds,
            httponly=True,
            samesite="lax",
            secure=_is_https(request),
        )
        return response


def _endpoint(sign_in: SignIn, answer: Answer) -> Callable[[Request], Any]:
    """What all of them have in common: who may ask at all, what is read, and how a refusal looks."""

    async def endpoint(request: Request) -> Response:
        if is_cross_site(request) or not request.headers.get("content-type", "").startswith("application/json"):
            return _refused("This can only be asked from the page itself. Open it, and try there.", 403)
        if await run_in_threadpool(sign_in.way) is not Way.LOCAL:
            return _refused("Nobody signs in with a password here. Reload the page.", 404)
        data = b""
        async for part in request.stream():
            data += part
            if len(data) > LONGEST_BODY:
                return _refused("That is longer than any name and password. Check what you have pasted.", 413)
        try:
            body = json.loads(data)
            return await run_in_threadpool(answer, request, body)
        except (json.JSONDecodeError, UnicodeDecodeError, ValidationError):
            return _refused("Name or password are missing or too long. Fill in both.", 400)
        except FaceLLMError as error:
            return _refused(str(error), 400)

    return endpoint


def _is_https(request: Request) -> bool:
    """Whether the browser's own connection is encrypted; a proxy says so for it."""
    told = request.headers.get("x-forwarded-proto", request.url.scheme)
    return told.split(",")[0].strip() == "https"


def _refused(sentence: str, status: int) -> Response:
    return _json({"error": sentence}, status)


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(content, status, headers={"Cache-Control": "no-store"})


def _duration(seconds: float) -> str:
    whole = max(1, round(seconds + 0.5))
    return f"{whole} s" if whole < 120 else f"{whole // 60} min"
