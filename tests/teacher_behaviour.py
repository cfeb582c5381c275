"""What the teacher server may be told to do, and what it remembers of each request."""

from dataclasses import dataclass, field, fields
from typing import Any

REFUSED, SAID_NO, FILTERED, CUT = "refused", "said no", "filtered", "cut"
EMPTY, INVALID_JSON, BAD_ATTRIBUTE = "empty", "invalid json", "bad attribute"
OUTCOMES = ("ok", REFUSED, SAID_NO, FILTERED, CUT, EMPTY, INVALID_JSON, BAD_ATTRIBUTE)  # of answers, with status 200
FAULTS_5XX = (500, 502, 503)


@dataclass
class Behaviour:
    """What the server does; every field may be changed while it runs. Shares are from 0 to 1."""

    latency_s: float = 0.0  # of an answer; errors come at once
    seed: int = 0
    # What another attempt may be spared.
    share_429: float = 0.0
    share_5xx: float = 0.0
    share_hang: float = 0.0  # silent until the client goes
    share_hang_up: float = 0.0  # the connection ends in the place of an answer
    cap_per_s: float | None = None  # requests that are let through; it is announced nowhere
    retry_after_s: float | None = None  # sent with every 429
    retry_after_ms: float | None = None
    # What an answer is.
    share_refused: float = 0.0
    refused_images: list[str] = field(default_factory=list)  # SHA-256
    share_said_no: float = 0.0  # a refusal as text
    share_filtered: float = 0.0
    share_cut: float = 0.0
    share_empty: float = 0.0
    share_invalid_json: float = 0.0  # only where a schema was asked for, as the next
    share_bad_attribute: float = 0.0
    usage: bool = True  # whether answers say how many tokens they took
    share_cached: float = 0.0  # of answers whose input is half billed as cached
    # What ends a run.
    api_key: str | None = None  # None takes any, or none
    models: dict[str, str] = field(default_factory=lambda: {"teacher": "teacher-2026-01-01"})  # asked for → returned
    quota: int | None = None  # answers until insufficient_quota
    status: int | None = None  # of every chat request
    redirect_to: str | None = None  # where every request is sent on to
    says: str = ""  # an error's words; {key} stands for the key that was sent
    image_tokens: int | None = None  # of any picture, as a server of one's own counts; None: OpenAI's tiles
    # The Batch API.
    batch_seconds: float = 0.0  # until a batch has ended
    batch_share_done: float = 1.0  # of its rows; below 1 it expires
    batch_share_missing: float = 0.0  # of its rows, in no file
    batch_share_errors: float = 0.0  # of its rows, in the error file
    batch_max_requests: int = 50_000
    batch_max_bytes: int = 200_000_000
    batch_queued_tokens: int | None = None  # of all batches that have not ended

    def change(self, **told: Any) -> None:
        """Set fields by their names.

        Raises:
            KeyError: there is no such field.
        """
        if unknown := told.keys() - {each.name for each in fields(self)}:
            raise KeyError(", ".join(sorted(unknown)))
        for name, value in told.items():
            setattr(self, name, value)


@dataclass(slots=True)
class Record:
    """One chat request, or one row of a batch, and what became of it."""

    number: int
    received: float  # seconds since 1970
    key: str
    attempt: int  # 1 when this content came for the first time
    image: str
    attributes: tuple[str, ...]
    model: str
    outcome: str  # one of OUTCOMES; "hang", "hang up" or "redirect"; or an HTTP status
    status: int
    batch: str = ""
    request_id: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    answer: str = ""
    ended: float | None = None  # None: still waiting
    gone: bool = False  # the client left before it was answered
