"""The record of a vote: what it holds and what it refuses.

python -m pytest tests/test_votes.py
"""

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from made_votes import a_vote
from pydantic import ValidationError

from facellm.data import Attribute
from facellm.votes import Outcome, Vote, hash_prompt


def test_a_vote_survives_json() -> None:
    vote = a_vote(outcome="both bad", attribute="pose", image_sha256=["a" * 64, "b" * 64])
    assert Vote.model_validate_json(vote.model_dump_json()) == vote
    assert (vote.outcome, vote.attribute) == (Outcome.BOTH_BAD, Attribute.POSE)
    assert vote.image_sha256 == ("a" * 64, "b" * 64)
    assert abs((datetime.now(UTC) - vote.created_at).total_seconds()) < 60


def test_the_question_is_kept_as_its_hash_only() -> None:
    question = "Wie alt ist sie? – ungefähr"
    vote = a_vote(prompt_sha256=hash_prompt(question))
    assert vote.prompt_sha256 == hashlib.sha256(question.encode("utf-8")).hexdigest()
    assert question not in vote.model_dump_json()
    with pytest.raises(ValidationError, match="prompt"):
        a_vote(prompt=question)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"b": "base"}, "both are base"),
        ({"outcome": "A"}, "outcome"),
        ({"prompt_sha256": "Describe"}, "prompt_sha256"),
        ({"image_sha256": ["x"]}, "image_sha256"),
        ({"voter": ""}, "voter"),
        ({"a_source": ""}, "a_source"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"attribute": "colour"}, "attribute"),
        ({"created_at": datetime(2026, 1, 1)}, "created_at"),
    ],
)
def test_what_is_no_vote_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        a_vote(**fields)


def test_a_vote_never_changes() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        a_vote().outcome = Outcome.B
