"""A store with some pairs, and short ways to decide about them, for tests of what teams do."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from annotation.models import Action, Decision, DecisionInput, ImageInput, PairInput, Status
from annotation.store import PairView, Store
from facellm.data import Attribute


def add_faces(store: Store, number: int, *, first: int = 0, **labels: str) -> None:
    """Images without files, each with a pair for every attribute; the ids of pairs count up from 1."""
    store.ingest([face(index, labels) for index in range(first, first + number)])


def face(number: int, labels: dict[str, str], answers: Mapping[Attribute, str] | None = None) -> ImageInput:
    """An image without a file; its pairs have answers like `pose 7` unless others are given."""
    if answers is None:
        answers = {attribute: f"{attribute} {number}" for attribute in Attribute}
    return ImageInput(
        sha256=f"{number:064x}",
        path=f"images/{number}.png",
        width=1,
        height=1,
        bytes=1,
        source=f"test:{number}",
        labels=labels,
        label_source="test",
        pairs=tuple(
            PairInput(attribute=attribute, question="Which?", answer=answer, teacher="t", prompt_version="1")
            for attribute, answer in answers.items()
        ),
    )


def see(store: Store, pair_id: int) -> PairView:
    """The pair as it is now."""
    (view,) = store.pairs([pair_id])
    return view


def status(store: Store, pair_id: int) -> Status:
    """Its status now."""
    return see(store, pair_id).pair.status


def decide(
    store: Store, who: str, pair_id: int, action: Action, *, may_settle: bool = False, closed: bool = False, **more: Any
) -> Decision:
    """Decide as a page would that shows the pair as it is now: blind, or `closed`, with what others have said."""
    view = see(store, pair_id)
    own = store.own_revisions(who, [pair_id]).get(pair_id, 0)
    decision = DecisionInput(
        uuid=uuid4(),
        pair_id=pair_id,
        image_sha256=view.image.sha256,
        revision=own,
        others=view.pair.revision - own if closed else None,
        action=action,
        **more,
    )
    return store.decide(who, decision, may_settle=may_settle)
