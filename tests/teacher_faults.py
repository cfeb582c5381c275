"""Which trouble the teacher server makes of a request: chosen by the request, how often it came, and the seed."""

import time

from teacher_answers import Asked, chance
from teacher_behaviour import (
    BAD_ATTRIBUTE,
    CUT,
    EMPTY,
    FAULTS_5XX,
    FILTERED,
    INVALID_JSON,
    REFUSED,
    SAID_NO,
    Behaviour,
)
from teacher_http import Reply, Request, error_reply


def key_of(request: Request) -> str:
    """The key that a client has sent."""
    return request.headers.get("authorization", "").removeprefix("Bearer ")


class Bucket:
    """Lets through so many a second, and at most a second's worth at once."""

    def __init__(self) -> None:
        self._left = 1.0
        self._filled_at = 0.0

    def takes(self, per_s: float) -> bool:
        """Whether one more is let through now."""
        now = time.monotonic()
        self._left = min(max(per_s, 1.0), self._left + (now - self._filled_at) * per_s)
        self._filled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Faults:
    """The trouble of one server."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._bucket = Bucket()

    def instead_of_answer(self, asked: Asked, key: str, attempt: int, answers: int) -> tuple[str, Reply] | None:
        """Why there is no answer, if there is none: for good, for now, or by chance.

        Args:
            asked: the request.
            key: that the client has sent.
            attempt: 1 when this content comes for the first time.
            answers: that the server has given so far.
        """
        now = self._behaviour
        if now.status is not None:
            return str(now.status), error_reply(now.status, now.says.replace("{key}", key) or "Something is wrong.")
        if asked.model not in now.models:
            said = f"The model `{asked.model}` does not exist or you do not have access to it."
            return "404", error_reply(404, said, code="model_not_found")
        if now.quota is not None and answers >= now.quota:
            said = "You exceeded your current quota, please check your plan and billing details."
            return "quota", error_reply(429, said, code="insufficient_quota", kind="insufficient_quota")
        if now.cap_per_s is not None and not self._bucket.takes(now.cap_per_s):
            return "cap", self._too_fast()
        return self._by_chance(chance(now.seed, asked.key, attempt))

    def _by_chance(self, draw: float) -> tuple[str, Reply] | None:
        now = self._behaviour
        if draw < now.share_429:
            return "429", self._too_fast()
        draw -= now.share_429
        if draw < now.share_5xx:
            status = FAULTS_5XX[int(draw / now.share_5xx * len(FAULTS_5XX))]
            said = "The server had an error while processing your request. Sorry about that!"
            return str(status), error_reply(status, said)
        draw -= now.share_5xx
        if draw < now.share_hang:
            return "hang", Reply(0, silent=True)
        if draw < now.share_hang + now.share_hang_up:
            return "hang up", Reply(0, hang_up=True)
        return None

    def _too_fast(self) -> Reply:
        reply = error_reply(
            429, "Rate limit reached. Please try again later.", code="rate_limit_exceeded", kind="requests"
        )
        if self._behaviour.retry_after_s is not None:
            reply.headers["Retry-After"] = f"{self._behaviour.retry_after_s:g}"
        if self._behaviour.retry_after_ms is not None:
            reply.headers["retry-after-ms"] = f"{self._behaviour.retry_after_ms:g}"
        return reply

    def of_answer(self, asked: Asked) -> str:
        """Which of OUTCOMES the answer has: the same for the same request, however often it comes."""
        now = self._behaviour
        if asked.image in now.refused_images:
            return REFUSED
        shares = {
            REFUSED: now.share_refused,
            SAID_NO: now.share_said_no,
            FILTERED: now.share_filtered,
            CUT: now.share_cut,
            EMPTY: now.share_empty,
        }
        if asked.schema:
            shares |= {INVALID_JSON: now.share_invalid_json, BAD_ATTRIBUTE: now.share_bad_attribute}
        draw = chance(now.seed, asked.key, "answer")
        for outcome, share in shares.items():
            if draw < share:
                return outcome
            draw -= share
        return "ok"
