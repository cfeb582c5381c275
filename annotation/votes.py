"""Votes as rows of the database, and back as records.

The one surprising fact: a vote comes back with its time in UTC; it is the same moment, so the record is equal.
"""

import json

from sqlmodel import Session, col, func, select

from annotation.models import StoredVote
from facellm.votes import Vote


def insert_vote(session: Session, vote: Vote) -> bool:
    """Add a vote unless its UUID is there; return whether it was new."""
    if session.exec(select(StoredVote.id).where(StoredVote.uuid == str(vote.uuid))).first() is not None:
        return False
    fields = vote.model_dump(mode="json")
    session.add(StoredVote.model_validate(fields | {"image_sha256": json.dumps(fields["image_sha256"])}))
    return True


def read_votes(session: Session) -> list[Vote]:
    """All votes, oldest first."""
    rows = session.exec(select(StoredVote).order_by(col(StoredVote.created_at), col(StoredVote.id)))
    return [
        Vote.model_validate(row.model_dump(exclude={"id"}) | {"image_sha256": json.loads(row.image_sha256)})
        for row in rows
    ]


def count_votes(session: Session) -> int:
    """How many votes there are."""
    return session.exec(select(func.count()).select_from(StoredVote)).one()
