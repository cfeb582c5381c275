"""Traps: when they come, that they are bad, and that they are nowhere but in their own table.

python -m pytest tests/test_traps.py
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlmodel import select

from annotation.checks.findings import Finding
from annotation.database import reading, writing
from annotation.models import Action, DecisionInput, Reviewer, Role, Severity, Status, Trap
from annotation.seed import seed
from annotation.statistics.stats import stats
from annotation.store import PairView, Store
from annotation.team.trap_making import Source, TrapKind, is_wrong_about, make_trap
from annotation.team.traps import FIRST_ID, is_trap, trap_places
from facellm import face_text, faces
from facellm.data import Attribute
from facellm.errors import DataError, StaleError
from tests.made_team import add_faces, decide, see

A, R, E, S, F, U = Action.ACCEPT, Action.REJECT, Action.EDIT, Action.SKIP, Action.FLAG, Action.UNDO
FACES = 40


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Rendered faces, of which the demo reviewer has decided two thirds; only read, but for traps and leases."""
    store = Store.open(tmp_path_factory.mktemp("seeded") / "data")
    seed(store, FACES)
    yield store
    store.close()


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    add_faces(opened, 20, gender="Male", age="20-29", race="Black")
    for pair_id in range(81, 161):
        decide(opened, "ben", pair_id, A)
    yield opened
    opened.close()


def trapped(store: Store, who: str = "ana", share: float = 0.2) -> tuple[list[PairView], list[PairView]]:
    """What a reviewer is shown of 40 pairs, and the traps in it."""
    shown = store.traps.mix(who, store.claim(who, "window", limit=40), share)
    return shown, [view for view in shown if is_trap(view.pair.id or 0)]


def answer(view: PairView, action: Action, own: int = 0, **more: object) -> DecisionInput:
    """What a page sends that has shown the trap."""
    return DecisionInput(
        uuid=uuid4(), pair_id=view.pair.id, image_sha256=view.image.sha256, revision=own, action=action, **more
    )


def source(attribute: Attribute, text: str, image: int = 1, **labels: str) -> Source:
    return Source(image, image, attribute, attribute.question, text, labels)


# When they come


def test_traps_come_as_often_as_asked_at_random_gaps(store: Store) -> None:
    """Of the places alone, with the pairs of 20 faces shown to 400 reviewers in the order by attribute."""
    views = sorted(store.pairs(range(1, 81)), key=lambda view: (view.pair.attribute, view.pair.id))
    for share in (0.02, 0.1, 0.2):
        counts, gaps = [], set()
        for number in range(400):
            places = sorted(trap_places(f"reviewer {number}", views, share))
            counts.append(len(places))
            gaps |= {after - before for before, after in zip(places, places[1:], strict=False)}
        found = sum(counts) / (sum(counts) + 400 * len(views))
        assert found == pytest.approx(share, rel=0.15)
        assert len(gaps) > 10
    assert trap_places("ana", views, 0.0) == {}


def test_never_two_in_a_row_and_only_between_faces(seeded: Store) -> None:
    for number in range(12):
        who = f"reviewer {number}"
        shown = seeded.traps.mix(who, seeded.claim(who, "w", limit=60), 0.2)
        seeded.release(who)
        traps = [place for place, view in enumerate(shown) if is_trap(view.pair.id or 0)]
        assert traps, "a fifth of 60"
        assert all(after - before > 1 for before, after in zip(traps, traps[1:], strict=False))
        for place in traps:
            assert 0 < place < len(shown) - 1
            assert shown[place - 1].image.id != shown[place + 1].image.id
            assert shown[place].image.id not in {view.image.id for view in shown if not is_trap(view.pair.id or 0)}
        images = [shown[place].image.id for place in traps]
        assert len(set(images)) == len(images), "never the same face twice"


def test_a_reload_shows_the_same_ones_and_a_decided_one_never_again(store: Store) -> None:
    shown, traps = trapped(store)
    again, same = trapped(store)
    assert [view.pair.id for view in again] == [view.pair.id for view in shown]
    assert [view.answer for view in same] == [view.answer for view in traps]
    assert len(traps) > 1
    store.decide("ana", answer(traps[0], R))
    assert [view.pair.id for view in trapped(store)[1]] == [view.pair.id for view in traps[1:]]
    _, others = trapped(store, "cho")
    assert not {view.pair.id for view in others} & {view.pair.id for view in traps}
    views = store.claim("ana", "window", limit=40)
    excluded = store.traps.mix("ana", views, 0.2, exclude=[view.pair.id for view in traps])
    assert [view.pair.id for view in excluded] == [view.pair.id for view in views]
    ids = [view.pair.id or 0 for view in again]
    store.release("ana", "window", [ids[-1], traps[0].pair.id or 0])
    assert [view.pair.id for view in store.claim("ana", "window", exclude=ids[:-1], limit=1)] == [ids[-1]]


def test_none_where_pairs_have_flags_or_are_closed(store: Store) -> None:
    closed = store.pairs(range(81, 161))
    assert trap_places("ana", closed, 0.2) == {}
    open_pairs = store.pairs(range(1, 81))
    flags = [store_flag(store, view) for view in open_pairs]
    assert all(flags)
    assert trap_places("ana", store.pairs(range(1, 81)), 0.2) == {}


def store_flag(store: Store, view: PairView) -> bool:
    found = {view.pair.id or 0: [Finding("hedging", Severity.INFO, "Look.")]}
    return not store.replace_flags(["hedging"], found, {view.pair.id or 0: view.pair.revision})


def test_only_where_several_may_review(store: Store) -> None:
    assert store.traps.share() == 0
    with writing(store._engine) as session:
        for name, role, active in (("a", Role.ADMIN, True), ("v", Role.VISITOR, True), ("g", Role.CURATOR, False)):
            session.add(Reviewer.model_validate({"name": name, "role": role, "active": active}))
    assert store.traps.share() == 0
    with writing(store._engine) as session:
        session.add(Reviewer.model_validate({"name": "r", "role": Role.REVIEWER}))
    assert store.traps.share() == 0.02
    store.project.set_trap_share("a", 0.1)
    assert store.traps.share() == 0.1


# What they are


def test_a_trap_looks_like_a_pair(store: Store) -> None:
    shown, (trap, *_) = trapped(store)
    pair = next(view for view in shown if not is_trap(view.pair.id or 0))
    assert set(vars(trap)) == set(vars(pair))
    assert trap.pair.model_dump().keys() == pair.pair.model_dump().keys()
    assert (trap.pair.status, trap.flags, trap.verdicts, trap.decision) == (Status.PENDING, (), (), None)
    assert trap.labels == {"gender": "Male", "age": "20-29", "race": "Black"}
    assert (trap.pair.race, trap.pair.gender, trap.pair.age) == ("Black", "Male", "20-29")
    assert trap.pair.teacher == pair.pair.teacher
    assert trap.pair.id is not None
    assert FIRST_ID < trap.pair.id < 2**31


def test_made_of_faces_whose_labels_are_all_known(seeded: Store) -> None:
    """The rendered faces' own judge finds each of them wrong."""
    kinds = {}
    for number in range(40):
        who = f"maker {number}"
        for view in seeded.traps.mix(who, seeded.claim(who, "w", limit=40), 0.2):
            if is_trap(view.pair.id or 0):
                kinds[view.pair.id] = view
        seeded.release(who)
    with reading(seeded._engine) as session:
        rows = {FIRST_ID + (trap.id or 0): trap for trap in session.exec(select(Trap))}
    assert {rows[trap_id].kind for trap_id in kinds} == {kind.value for kind in TrapKind}
    for trap_id, view in kinds.items():
        face = faces.Face(**view.labels, seed=0)
        assert view.pair.attribute is not None
        leaks = rows[trap_id].kind == TrapKind.LEAK
        assert leaks or not face_text.is_right(face, view.pair.attribute, view.answer), (view.answer, view.labels)


def test_what_is_wrong_with_another_face_can_be_seen() -> None:
    man = {"gender": "Male", "age": "20-29", "race": "White"}
    old = man | {"age": "60-69"}
    host = source(Attribute.DEMOGRAPHIC, "A young man.", **man)

    def wrong(text: str, **labels: str) -> bool:
        return is_wrong_about(host, source(Attribute.DEMOGRAPHIC, text, 2, **labels))

    assert wrong("The woman looks about 25 years old.", **man | {"gender": "Female"})
    assert wrong("He is in his sixties.", **old)
    assert not wrong("He is in his thirties.", **man | {"age": "30-39"}), "neighbours look alike"
    assert not wrong("The light is even.", **old), "says nothing of it"
    assert wrong("A Black man in his twenties.", **man | {"race": "Black"})
    assert not wrong("A Middle Eastern man in his twenties.", **man | {"race": "Middle Eastern"}), "cannot be seen"
    baby = source(Attribute.DEMOGRAPHIC, "A baby boy.", gender="Male", age="0-2")
    girl = source(Attribute.DEMOGRAPHIC, "A baby girl.", 2, gender="Female", age="0-2")
    assert not is_wrong_about(baby, girl)


def test_there_is_always_some_trap_to_be_made() -> None:
    host = source(Attribute.DETAIL, "Something.")
    kinds = {made.kind for seed in range(60) if (made := make_trap(host, [], [], random.Random(seed)))}
    assert kinds == {TrapKind.LEAK, TrapKind.REFUSAL}, "without labels and other answers"


# Deciding about them


def test_decided_undone_and_recalled_like_a_pair(store: Store) -> None:
    _, (trap, *_) = trapped(store)
    trap_id = trap.pair.id or 0
    first = answer(trap, R, reason="wrong")
    event = store.decide("ana", first)
    assert (event.uuid, event.pair_id, event.revision) == (str(first.uuid), trap_id, 1)
    assert store.decide("ana", first).uuid == event.uuid, "the same again changes nothing"
    assert store.own_revisions("ana", [trap_id, 1]) == {trap_id: 1}
    seen = see(store, trap_id)
    assert (seen.pair.status, seen.pair.revision) == (Status.REJECTED, 1)
    assert seen.decision is not None
    assert (seen.decision.reviewer, seen.decision.reason) == ("ana", "wrong")
    assert [each.pair_id for each in store.history("ana")] == [trap_id]
    undone = store.decide("ana", answer(trap, U, own=1, undoes=event.uuid))
    assert undone.revision == 2
    assert see(store, trap_id).pair.status is Status.PENDING
    assert store.history("ana") == []
    edited = store.decide("ana", answer(trap, E, own=2, text="Better.", others=0))
    assert (see(store, trap_id).answer, edited.revision) == ("Better.", 3)
    assert store.renew("ana", "window", [trap_id, 7777]) == {trap_id}
    assert store.renew("ben", "window", [trap_id]) == set()


def test_history_is_in_the_order_of_time(store: Store) -> None:
    shown, traps = trapped(store)
    pairs = [view for view in shown if view not in traps]
    order = [pairs[0], traps[0], pairs[1], traps[1]]
    for view in order:
        store.decide("ana", answer(view, A))
    assert [each.pair_id for each in store.history("ana")] == [view.pair.id for view in order[::-1]]
    assert [each.pair_id for each in store.history("ana", limit=2)] == [view.pair.id for view in order[:1:-1]]


def test_what_cannot_be_stored_is_refused(store: Store) -> None:
    _, (trap, *_) = trapped(store)
    with pytest.raises(DataError, match="another data set"):
        store.decide("ben", answer(trap, A))
    with pytest.raises(DataError, match="another data set"):
        store.decide("ana", answer(trap, A).model_copy(update={"image_sha256": "0" * 64}))
    done = store.decide("ana", answer(trap, A))
    with pytest.raises(StaleError, match="in another window"):
        store.decide("ana", answer(trap, R))
    with pytest.raises(StaleError, match="no longer stands"):
        store.decide("ana", answer(trap, U, own=1, undoes=uuid4()))
    assert store.decide("ana", answer(trap, U, own=1, undoes=done.uuid))


def test_a_lot_with_a_trap_is_stored_as_a_whole_or_not_at_all(store: Store) -> None:
    shown, (trap, *_) = trapped(store)
    pair, lot = next(view for view in shown if not is_trap(view.pair.id or 0)), uuid4()
    wrong = answer(pair, A, own=3)
    with pytest.raises(StaleError):
        store.decide_lot("ana", [answer(trap, A, lot=lot), wrong])
    assert see(store, trap.pair.id or 0).pair.status is Status.PENDING
    done = store.decide_lot("ana", [answer(trap, A, lot=lot), answer(pair, A, lot=lot)])
    assert [event.lot for event in done] == [str(lot)] * 2
    assert {event.lot for event in store.history("ana")} == {str(lot)}


# That they are nowhere else


def test_a_trap_never_gets_out(store: Store) -> None:
    before = everything(store)
    _, traps = trapped(store)
    for view, action in zip(traps, (A, R, E, F), strict=False):
        more = {"text": "Better."} if action is E else {"note": "Look."} if action is F else {}
        store.decide("ana", answer(view, action, **more))
    assert everything(store) == before
    taken = store.snapshot("s")
    lines = (store.data_dir / "snapshots" / "s" / "examples.jsonl").read_text().splitlines()
    assert taken.count == len(lines) == 80
    texts = {json.loads(line)["answer"] for line in lines}
    assert not texts & {view.answer for view in traps if view.answer not in before["texts"]}
    assert "Better." not in texts
    assert store.audits.draw("carol", 1000) == 80
    assert store.team.replay().differing == 0


def everything(store: Store) -> dict[str, object]:
    """All that is counted, but for how many traps somebody has answered."""
    return {
        "stats": stats(store),
        "progress": store.team.progress(),
        "texts": {view.answer for view in store.pairs(range(1, 161))},
        "events": [store.events(pair_id) for pair_id in range(1, 161)],
        "actions": [each.actions for each in store.team.reviewers() if each.actions],
        "replay": store.team.replay(),
    }


def test_caught_is_what_was_not_accepted(store: Store) -> None:
    _, traps = trapped(store)
    assert len(traps) >= 4
    caught, missed, skipped, changed = traps[:4]
    store.decide("ana", answer(caught, F, note="Is this right?"))
    store.decide("ana", answer(missed, A))
    store.decide("ana", answer(skipped, S))
    first = store.decide("ana", answer(changed, A))
    store.decide("ana", answer(changed, U, own=1, undoes=first.uuid))
    store.decide("ana", answer(changed, E, own=2, text="Better."))
    (ana,) = [each for each in store.team.reviewers() if each.name == "ana"]
    assert ana.caught is not None
    assert (ana.caught.count, ana.caught.of) == (2, 3)
    assert ana.decisions == 0
