"""How an OpenAI-compatible server is spoken to: one key, one place, one sentence for each way to fail.

The one surprising fact: the openai client reads keys and organisations from the environment, follows redirects, tries
again by itself, and quotes the server in its errors, where the key may be. So here exactly one key is sent, to exactly
one place, once, and what a server says is shown without the key.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from pydantic import BaseModel, ValidationError

from facellm.errors import BusyError, FaceLLMError, ModelError

CONNECT_TIMEOUT = 5.0  # seconds
BUSY = (429, 503)
SAID_CHARS = 300  # of a server's own words


class _OneKey(httpx2.Auth):
    """Sends the key that was given, or none, whatever the environment and ~/.netrc hold."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def auth_flow(self, request: httpx2.Request) -> Iterator[httpx2.Request]:  # type: ignore[override]
        for name in ("Authorization", "OpenAI-Organization", "OpenAI-Project"):
            request.headers.pop(name, None)
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        yield request


class _ModelCard(BaseModel):
    id: str
    root: str | None = None  # vLLM: where the weights came from


class _ModelList(BaseModel):
    data: list[_ModelCard]


class Server:
    """Where the server is and how it is spoken to. Has no state, so any thread may use it.

    Args:
        base_url: such as `http://127.0.0.1:8000/v1`.
        api_key: None for a server that needs none.
        timeout_s: the longest wait for the next byte.

    Raises:
        ModelError: the address or the key cannot be one.
    """

    def __init__(self, base_url: str, api_key: str | None, timeout_s: float) -> None:
        if not _is_address(base_url):
            raise ModelError(
                "The address of the model server is not usable. Expected something like http://127.0.0.1:8000/v1, "
                "without a user, a password or a question mark; a key is given apart."
            )
        if api_key is not None and (not api_key.isascii() or not api_key.isprintable() or api_key.split() != [api_key]):
            raise ModelError(
                f"The key for {base_url} is empty, or has a blank, a line break or a letter outside ASCII in it. "
                "Give the key alone."
            )
        self.base_url = base_url.rstrip("/")
        self.api_key = api_key
        self.timeout_s = timeout_s

    def client(self) -> openai.OpenAI:
        """A client for one thread; close it after use."""
        return openai.OpenAI(http_client=openai.DefaultHttpxClient(**self._http()), **self._openai())

    def async_client(self) -> openai.AsyncOpenAI:
        """A client for one event loop; close it after use."""
        return openai.AsyncOpenAI(http_client=openai.DefaultAsyncHttpxClient(**self._http()), **self._openai())

    def _http(self) -> dict[str, Any]:
        timeout = httpx2.Timeout(self.timeout_s, connect=min(self.timeout_s, CONNECT_TIMEOUT))
        return {"auth": _OneKey(self.api_key), "follow_redirects": False, "timeout": timeout}

    def _openai(self) -> dict[str, Any]:
        """The client insists on a key; `_OneKey` replaces it by the real one."""
        return {"base_url": self.base_url, "api_key": "see _OneKey", "max_retries": 0}

    def models(self) -> dict[str, str | None]:
        """The models that there are, each with the place it was loaded from, where the server says so.

        Raises:
            ModelError, BusyError: it does not answer, or not with a list of models.
        """
        with self.explained("its list of models"), self.client() as client:
            answer = client.get("/models", cast_to=object)
        try:
            return {card.id: card.root for card in _ModelList.model_validate(answer).data}
        except ValidationError:
            raise self._no_api() from None

    @contextmanager
    def explained(self, wanted: str) -> Iterator[None]:
        """Turn every failure of the client into one sentence; `wanted` says what was asked for, such as a model.

        The client's own error is left out of the traceback: it quotes the server, which may quote the key.
        """
        try:
            yield
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._explain(error, wanted) from None
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise self._no_api() from None

    def said(self, error: openai.APIError) -> str:
        """The server's own words, shortened and without the key."""
        found = error.body
        if isinstance(found, dict):
            found = found.get("message") or found.get("detail") or found
        text = " ".join(str(found or error.message).split())
        return self.without_key(text)[:SAID_CHARS]

    def without_key(self, text: str) -> str:
        """The text with the key blotted out."""
        return text.replace(self.api_key, "[key]") if self.api_key else text

    def _explain(self, error: Exception, wanted: str) -> FaceLLMError:
        if isinstance(error, openai.APIStatusError):
            return self._explain_status(error, wanted)
        if isinstance(error, openai.APITimeoutError) and isinstance(error.__cause__, httpx2.ConnectTimeout):
            return ModelError(f"{self.base_url} cannot be reached: no connection in time. Check the address.")
        if isinstance(error, openai.APITimeoutError):
            return ModelError(
                f"{self.base_url} sent nothing for {self.timeout_s:g} s while {wanted} was waited for. "
                "Ask again, or look whether the server is still at work."
            )
        if isinstance(error.__cause__, httpx2.ConnectError):
            return ModelError(f"{self.base_url} cannot be reached. Check the address, and that the server runs.")
        if isinstance(error, openai.APIConnectionError):
            return ModelError(f"{self.base_url} broke off the connection while {wanted} was waited for. Ask again.")
        if isinstance(error, openai.APIError):
            return ModelError(f"{self.base_url} broke off {wanted}, and says: {self.said(error)}")
        return ModelError(f"{self.base_url} cannot be asked ({type(error).__name__}). Check the address.")

    def _explain_status(self, error: openai.APIStatusError, wanted: str) -> FaceLLMError:
        where, code, said = self.base_url, error.status_code, self.said(error)
        if code in BUSY:
            return BusyError(f"{where} is too busy for {wanted} ({code}): {said} Try again in a minute.")
        if code < 400:
            target = urlsplit(error.response.headers.get("location", "")).netloc or "another address"
            return ModelError(
                f"{where} sends us on to {self.without_key(target)} ({code}), which is not followed, since key and "
                "pictures would go there. If that is right, give the new address."
            )
        if code == 401:
            key = "the key that was given" if self.api_key else "to be asked without a key"
            return ModelError(f"{where} refuses {key} (401): {said} Give the key of that server.")
        if code == 403:
            return ModelError(f"{where} does not let this key use {wanted} (403): {said} Ask whoever runs the server.")
        if code == 404:
            return ModelError(
                f"{where} does not have {wanted} (404): {said} Check the model's name, and the address, which mostly "
                "ends in /v1."
            )
        if code >= 500:
            return ModelError(f"{where} failed at {wanted} ({code}): {said} Ask again, or look into the server's log.")
        return ModelError(f"{where} does not take the question to {wanted} ({code}): {said}")

    def _no_api(self) -> ModelError:
        return ModelError(
            f"{self.base_url} answered with something else than the JSON of an OpenAI-compatible server. "
            "Check the address, which mostly ends in /v1."
        )


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        plain = "@" not in parts.netloc and not parts.query and parts.port != 0  # a bad port raises here
    except ValueError:
        return False
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname)
