"""Votes as tests need them: one that says what matters, and many from known strengths."""

import random
from typing import Any
from uuid import UUID

from facellm.votes import Outcome, Vote, hash_prompt


def a_vote(
    a: str = "base", b: str = "tuned", outcome: str = "a", *, rng: random.Random | None = None, **fields: Any
) -> Vote:
    """A vote between two models; whatever else is to be special comes by name."""
    draw = rng or random.Random()
    usual = {
        "uuid": UUID(int=draw.getrandbits(128), version=4),
        "prompt_sha256": hash_prompt("Describe this image."),
        "image_sha256": ("0" * 64,),
        "a": a,
        "b": b,
        "a_source": f"hub/{a}",
        "b_source": f"hub/{b}",
        "seed": 7,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_new_tokens": 160,
        "order_seed": 1,
        "outcome": outcome,
        "voter": "ana",
    }
    return Vote.model_validate(usual | fields)


def drawn_votes(scores: dict[str, float], count: int, *, seed: int = 0) -> list[Vote]:
    """Votes as models of these scores would get them: random pairs and sides, no ties."""
    rng = random.Random(seed)
    votes = []
    for _ in range(count):
        a, b = rng.sample(sorted(scores), 2)
        wins = rng.random() < 1 / (1 + 10 ** ((scores[b] - scores[a]) / 400))
        votes.append(a_vote(a, b, Outcome.A if wins else Outcome.B, rng=rng))
    return votes
