"""A vote of the blind mode: one visitor's verdict on two answers whose models were hidden until then.

A plain record, like `facellm.data.Example`, without Gradio or torch. The one surprising fact: the question is kept as
its SHA-256 only, which tells equal questions apart from others and hides what cannot be guessed; one of the eight
attributes' own questions can be.
"""

import hashlib
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from facellm.data import Attribute

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # what a database's integer holds


class Outcome(StrEnum):
    """Which answer was the better one; the value is what is stored."""

    A = "a"
    B = "b"
    TIE = "tie"
    BOTH_BAD = "both bad"


class Vote(BaseModel):
    """One verdict on two answers to one question; a stood on the left of the page, b on the right."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uuid: UUID  # made with the vote: storing it twice stores it once
    prompt_sha256: Sha256  # `hash_prompt` of the question
    image_sha256: tuple[Sha256, ...] = ()  # of the pictures asked about
    a: Name  # as it was shown after the vote
    b: Name
    a_source: Name  # what identifies the weights, such as a checkpoint's or an adapter's id or hash
    b_source: Name
    seed: Seed
    temperature: float = Field(ge=0, allow_inf_nan=False)
    top_p: float = Field(gt=0, le=1)
    max_new_tokens: int = Field(ge=1, lt=2**31)
    order_seed: Seed  # of the draw that put a on the left
    outcome: Outcome
    attribute: Attribute | None = None
    voter: Name  # a name, or the random id of a session
    created_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))

    @model_validator(mode="after")
    def _two_models(self) -> "Vote":
        if self.a == self.b:
            raise ValueError(f"a vote is between two models, and both are {self.a}")
        return self


def hash_prompt(question: str) -> str:
    """The SHA-256 of a question's text: 64 hex digits."""
    return hashlib.sha256(question.encode()).hexdigest()
