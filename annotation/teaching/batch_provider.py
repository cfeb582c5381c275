"""What a provider's Batch API is asked, and how its answers are read: files, batches, results.

    async with teacher.server.async_client() as client: remote = await BatchProvider(client).look(remote_id)

What goes wrong is raised as the client's own error, or as a `ValidationError` or `JSONDecodeError` where the answer is
none of a Batch API; `teacher.failure` tells what may pass. The surprising fact: the client builds its objects from any
JSON without a look at it, so every answer is validated here.
"""

from collections.abc import AsyncGenerator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import openai
from pydantic import BaseModel, ConfigDict, Field

from annotation.teaching.batch_files import ENDPOINT, lines_of
from annotation.teaching.teacher import error_codes

UPLOAD_TIMEOUT: Final = 600.0  # seconds until the provider has looked through a file
PAGE: Final = 100  # batches of a provider's list
CLOCKS: Final = 86_400  # seconds by which the provider's clock may be behind ours
TAG: Final = "facellm_batch"  # in the provider's metadata: our UUID
FAILED: Final = "failed"  # in the provider's words
FULL: Final = "token_limit_exceeded"


class _Lenient(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class _Error(_Lenient):
    code: str | None = None
    message: str | None = None
    line: int | None = None


class _Errors(_Lenient):
    data: list[_Error] | None = None


class _Counts(_Lenient):
    completed: int = 0
    failed: int = 0


class Remote(_Lenient):
    """A batch as the provider tells of it."""

    id: str = Field(min_length=1)
    status: str
    created_at: int | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: _Errors | None = None
    request_counts: _Counts | None = None
    metadata: dict[str, str] | None = None

    @property
    def found_no_room(self) -> bool:
        """Whether it failed because too much was queued, and may be sent again later."""
        return self.status == FAILED and any(error.code == FULL for error in self._errors)

    @property
    def said(self) -> str:
        """The provider's first words about what is wrong."""
        for error in self._errors:
            return f"{error.message or error.code}" + ("" if error.line is None else f" (line {error.line})")
        return "it does not say why."

    @property
    def done(self) -> int:
        """Requests that have ended."""
        return self.request_counts.completed + self.request_counts.failed if self.request_counts else 0

    @property
    def _errors(self) -> list[_Error]:
        return (self.errors.data or []) if self.errors else []


class _Page(BaseModel):
    data: list[Remote]
    has_more: bool = False


class _File(_Lenient):
    id: str = Field(min_length=1)


class BatchProvider:
    """The Batch API behind a client."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._client = client

    async def check(self) -> None:
        """Ask for something that only a Batch API has."""
        _Page.model_validate(await self._list({"limit": 1}))

    async def upload(self, path: Path, timeout_s: float) -> str:
        """Bring a file there, read from the disk piece by piece; returns its id."""
        with path.open("rb") as file:
            told = (path.name, file, "application/jsonl")
            found = await self._client.files.create(file=told, purpose="batch", timeout=max(timeout_s, UPLOAD_TIMEOUT))
        return _File.model_validate(found).id

    async def create(self, file_id: str, uuid: str) -> Remote:
        """Start a batch; where this raises for the network or the server, it may have been started all the same."""
        found = await self._client.batches.create(
            input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h", metadata={TAG: uuid}
        )
        return Remote.model_validate(found)

    async def look(self, remote_id: str) -> Remote:
        """How far a batch is."""
        return Remote.model_validate(await self._client.batches.retrieve(remote_id))

    async def find(self, uuid: str, since: datetime) -> Remote | None:
        """The batch that was started for this UUID; one that found no room only where there is no other.

        Args:
            uuid: of our batch.
            since: when it was made.
        """
        oldest = since.timestamp() - CLOCKS
        no_room = None
        params: dict[str, Any] = {"limit": PAGE}
        while True:
            page = _Page.model_validate(await self._list(params))
            for remote in page.data:
                if (remote.metadata or {}).get(TAG) == uuid:
                    if not remote.found_no_room:
                        return remote
                    no_room = remote
            if not page.has_more or not page.data or (page.data[-1].created_at or oldest) < oldest:
                return no_room
            params["after"] = page.data[-1].id

    async def lines(self, file_id: str) -> AsyncGenerator[bytes, None]:
        """The lines of a file of results, while it comes; nothing where the provider has deleted it."""
        try:
            async with self._client.files.with_streaming_response.content(file_id) as response:
                async for line in lines_of(response.iter_bytes()):
                    yield line
        except openai.NotFoundError:
            return

    async def _list(self, params: dict[str, Any]) -> object:
        options: Any = {"params": params}
        return await self._client.get("/batches", cast_to=object, options=options)


def is_full(error: openai.APIStatusError) -> bool:
    """Whether the provider has no room for so many requests in its queue."""
    return FULL in error_codes(error.body)
