"""An answer as a draft: a pair that is added unless it is there.

The one surprising fact: the same answer may be stored twice, by a run that died after its write and by the next one;
the pair's identity decides, and the second time its id is looked up.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlmodel import Session, col, select

from annotation.checks.flags import check_again
from annotation.models import Pair, PairInput
from annotation.teaching.ledger import Identity
from facellm.data import Attribute


def add_pair(session: Session, image_id: int, attribute: Attribute, answer: str, identity: Identity) -> int:
    """Add a pair unless it is there, checked as every answer is at once; return its id."""
    pair = PairInput(
        attribute=attribute,
        question=attribute.question,
        answer=answer,
        teacher=identity.teacher,
        prompt_version=identity.prompt_version,
        parameters=identity.parameters,
    )
    row = Pair.model_validate({"image_id": image_id} | pair.model_dump(exclude={"decision"}))
    statement: sa.Insert = insert(Pair).values(row.model_dump(exclude={"id"})).on_conflict_do_nothing()
    is_new = session.exec(statement).rowcount == 1
    found = select(Pair.id).where(
        Pair.image_id == image_id,
        Pair.attribute == attribute,
        Pair.prompt_version == identity.prompt_version,
        col(Pair.teacher) == identity.teacher,
        Pair.parameters == identity.parameters,
    )
    pair_id = session.exec(found).one() or 0
    if is_new:
        check_again(session, [pair_id])
    return pair_id
