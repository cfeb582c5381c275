"""An answer as a draft: a pair that is added unless it is there.

The one surprising fact: the same answer may be stored twice, by a run that died after its write and by the next one;
the pair's identity decides, and the second time its id is looked up.
"""

from sqlmodel import Session, col, select

from annotation.checks.findings import Facts
from annotation.checks.flags import check_new
from annotation.database import insert_new
from annotation.models import Pair, PairInput
from annotation.new_pairs import Newcomers
from annotation.teaching.ledger import Identity
from facellm.data import Attribute


def add_pair(
    session: Session,
    image_id: int,
    labels: dict[str, str],
    attribute: Attribute,
    answer: str,
    identity: Identity,
    run_id: int | None,
) -> int:
    """Add a pair unless it is there, checked as every answer is at once; return its id."""
    pair = PairInput(
        attribute=attribute,
        question=attribute.question,
        answer=answer,
        teacher=identity.teacher,
        prompt_version=identity.prompt_version,
        parameters=identity.parameters,
    )
    row = Newcomers(session, {image_id: labels}).row(image_id, pair, run_id)
    added = insert_new(session, Pair, row.model_dump(exclude={"id"}))
    if added is not None:
        check_new(session, added, Facts(attribute, pair.question, answer, labels))
        return added
    found = select(Pair.id).where(
        Pair.image_id == image_id,
        Pair.attribute == attribute,
        Pair.prompt_version == identity.prompt_version,
        col(Pair.teacher) == identity.teacher,
        Pair.parameters == identity.parameters,
    )
    return session.exec(found).one() or 0
