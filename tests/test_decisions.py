"""What several reviewers' decisions about one pair add up to, and who may change it.

python -m pytest tests/test_decisions.py
"""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from annotation.models import Action, DecisionInput, Reason, Status
from annotation.store import PairView, Store
from facellm.errors import DataError, StaleError
from tests.made_team import add_faces, decide, see, status

A, E, R = Action.ACCEPT, Action.EDIT, Action.REJECT


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    opened.project.set_overlap("carol", 2)
    add_faces(opened, 2)
    yield opened
    opened.close()


def accept(seen: PairView, *, others: int | None = None) -> DecisionInput:
    """What a page sends that has shown the pair like that."""
    return DecisionInput(
        uuid=uuid4(),
        pair_id=seen.pair.id or 0,
        image_sha256=seen.image.sha256,
        revision=0,
        others=others,
        action=Action.ACCEPT,
    )


def test_a_pair_waits_for_as_many_reviewers_as_it_wants(store: Store) -> None:
    decide(store, "ana", 1, A)
    assert (status(store, 1), see(store, 1).pair.verdicts) == (Status.PENDING, 1)
    decide(store, "ben", 1, A)
    assert (status(store, 1), see(store, 1).pair.verdicts) == (Status.ACCEPTED, 2)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((A, {}), (R, {}), Status.DISPUTED),
        ((R, {"reason": Reason.WRONG}), (R, {"reason": Reason.LEAK}), Status.REJECTED),
        ((E, {"text": "One."}), (E, {"text": "Two."}), Status.DISPUTED),
        ((E, {"text": "One."}), (E, {"text": "One."}), Status.EDITED),
        ((A, {}), (E, {"text": "One."}), Status.DISPUTED),
        ((Action.SKIP, {}), (A, {}), Status.PENDING),
        ((Action.SKIP, {}), (Action.SKIP, {}), Status.SKIPPED),
        ((Action.FLAG, {"note": "Whose hand?"}), (A, {}), Status.FLAGGED),
    ],
)
def test_two_reviewers(store: Store, first: tuple, second: tuple, expected: Status) -> None:
    decide(store, "ana", 1, first[0], **first[1])
    decide(store, "ben", 1, second[0], closed=first[0] is Action.FLAG, **second[1])
    assert status(store, 1) is expected
    assert see(store, 1).answer == ("One." if expected is Status.EDITED else "demographic 0")


def test_a_dispute_is_settled_by_a_curator_and_by_nobody_else(store: Store) -> None:
    decide(store, "ana", 1, A)
    decide(store, "ben", 1, R)
    decide(store, "dan", 1, R, closed=True)
    assert status(store, 1) is Status.DISPUTED
    last_word = decide(store, "carol", 1, E, text="Settled.", closed=True, may_settle=True)
    assert (status(store, 1), see(store, 1).answer, last_word.settles) == (Status.EDITED, "Settled.", True)
    assert see(store, 1).decision is not None and see(store, 1).decision.reviewer == "carol"
    with pytest.raises(StaleError, match="carol has settled this pair"):
        decide(store, "dan", 1, A, closed=True)
    decide(store, "carol", 1, Action.UNDO, undoes=last_word.uuid)
    assert status(store, 1) is Status.DISPUTED


def test_a_curator_who_took_part_settles_too(store: Store) -> None:
    decide(store, "carol", 1, A, may_settle=True)
    decide(store, "ben", 1, R)
    assert status(store, 1) is Status.DISPUTED
    assert decide(store, "carol", 1, A, closed=True, may_settle=True).settles
    assert status(store, 1) is Status.ACCEPTED


def test_a_curator_who_has_not_seen_the_others_settles_nothing(store: Store) -> None:
    decide(store, "ben", 1, A)
    rejected = decide(store, "carol", 1, R, may_settle=True)
    with_reason = decide(store, "carol", 1, R, reason=Reason.WRONG, undoes=rejected.uuid, may_settle=True)
    assert (status(store, 1), with_reason.settles) == (Status.DISPUTED, False)


def test_a_curator_alone_settles_nothing(store: Store) -> None:
    assert not decide(store, "carol", 1, A, may_settle=True).settles
    assert status(store, 1) is Status.PENDING


def test_a_reviewer_who_thinks_otherwise_makes_a_dispute_of_a_closed_pair(store: Store) -> None:
    decide(store, "ana", 1, A)
    decide(store, "ben", 1, A)
    decide(store, "dan", 1, R, closed=True)
    assert status(store, 1) is Status.DISPUTED


def test_no_pair_gets_more_verdicts_than_it_wants_from_pages_that_show_it_open(store: Store) -> None:
    decide(store, "ana", 1, A)
    decide(store, "ben", 1, A)
    with pytest.raises(StaleError, match="accepted by ana and ben since you saw it"):
        decide(store, "dan", 1, A)
    with pytest.raises(StaleError, match="accepted by ana and ben since you saw it"):
        decide(store, "dan", 1, Action.SKIP)
    assert len(store.events(1)) == 2


def test_a_decision_about_what_others_have_changed_is_stale(store: Store) -> None:
    decide(store, "ana", 1, A)
    decide(store, "ben", 1, A)
    seen = see(store, 1)
    decide(store, "dan", 1, R, closed=True)
    with pytest.raises(StaleError, match="disputed by ana and ben and dan since"):
        store.decide("carol", accept(seen, others=2), may_settle=True)


def test_an_undo_is_ones_own_even_after_others_have_decided(store: Store) -> None:
    mine = decide(store, "ana", 1, A)
    decide(store, "ben", 1, A)
    decide(store, "ana", 1, Action.UNDO, undoes=mine.uuid)
    assert status(store, 1) is Status.PENDING


def test_the_overlap_of_decided_pairs_changes_only_on_demand(store: Store) -> None:
    decide(store, "ana", 1, A)
    decide(store, "ana", 2, R)
    assert store.project.set_overlap("carol", 1) == 16
    assert [status(store, 1), status(store, 2), status(store, 3)] == [Status.ACCEPTED, Status.REJECTED, Status.PENDING]
    assert store.project.set_overlap("carol", 3) == 14
    assert status(store, 1) is Status.ACCEPTED
    assert store.project.set_overlap("carol", 3, decided=True) == 2
    assert status(store, 1) is Status.PENDING


def test_flags_follow_the_text_when_a_decided_pair_is_opened_again(store: Store) -> None:
    store.project.set_overlap("carol", 1)
    add_faces(store, 1, first=50)
    decide(store, "ana", 17, E, text="I'm sorry, but I can't help with that.")
    edited = {flag.check for flag in see(store, 17).flags}
    assert "refusal" in edited
    store.project.set_overlap("carol", 2, decided=True)
    assert see(store, 17).answer == "demographic 50"
    assert "refusal" not in {flag.check for flag in see(store, 17).flags}


def test_a_share_of_the_overlap_reaches_new_pairs_and_always_the_same(store: Store) -> None:
    store.project.set_overlap("carol", 3, 0.5)
    add_faces(store, 40, first=2)
    views = store.pairs(range(1, 42 * 8 + 1))
    asked = {view.pair.id for view in views if view.pair.overlap == 3}
    assert {view.pair.overlap for view in views} == {1, 3}
    assert 0.4 < len(asked) / len(views) < 0.6
    store.project.set_overlap("carol", 3, 0.7)
    assert asked < {view.pair.id for view in store.pairs(range(1, 42 * 8 + 1)) if view.pair.overlap == 3}


@pytest.mark.parametrize(("reviewers", "share"), [(0, 1.0), (11, 1.0), (2, -0.1), (2, 1.1)])
def test_an_overlap_outside_its_range_is_refused(store: Store, reviewers: int, share: float) -> None:
    with pytest.raises(DataError, match="cannot be the project's overlap"):
        store.project.set_overlap("carol", reviewers, share)
    assert store.project.read().overlap == 2


def test_several_are_decided_together_or_not_at_all(store: Store) -> None:
    decisions = [accept(view) for view in store.pairs([1, 2, 3])]
    store.decide_lot("ana", decisions[:2])
    assert len(store.decide_lot("ana", decisions)) == 3  # two of them were stored before
    late = [accept(view) for view in store.pairs([1, 4])][::-1]
    with pytest.raises(StaleError):
        store.decide_lot("ana", late)
    assert store.events(4) == []
