"""The store on real SQLite: decisions as events, guards, snapshots, several threads and processes.

python -m pytest tests/test_store.py
"""

import io
import json
import multiprocessing
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from PIL import Image
from pydantic import ValidationError
from raw_sql import rows
from sqlmodel import Session, select

from annotation.decisions import replay
from annotation.models import Action, Decision, DecisionInput, ImageInput, Pair, PairInput, Reason, Status
from annotation.pair_filter import PairFilter
from annotation.store import PairView, Store
from facellm.data import Attribute, content_hash, read_examples
from facellm.errors import DataError, StaleError


def png(colour: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(out, "PNG")
    return out.getvalue()


def image_input(store: Store, number: int) -> ImageInput:
    data = png(number)
    sha256, path = store.put_image(data, ".png")
    return ImageInput(
        sha256=sha256,
        path=path,
        width=8,
        height=8,
        bytes=len(data),
        source=f"test:{number}",
        labels={"pose": "left", "hair": "grey"},
        label_source="test",
        pairs=tuple(
            PairInput(
                attribute=attribute,
                question=attribute.question,
                answer=f"Answer {number} about {attribute.topic}.",
                teacher="template",
                prompt_version="1",
            )
            for attribute in Attribute
        ),
    )


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    opened.ingest([image_input(opened, number) for number in range(3)])
    yield opened
    opened.close()


def decision(
    view: PairView,
    action: Action,
    *,
    text: str | None = None,
    reason: Reason | None = None,
    note: str | None = None,
    undoes: str | None = None,
    revision: int | None = None,
) -> DecisionInput:
    return DecisionInput(
        uuid=uuid4(),
        pair_id=view.pair.id or 0,
        image_sha256=view.image.sha256,
        revision=0 if revision is None else revision,
        action=action,
        reason=reason,
        note=note,
        text=text,
        milliseconds=1200,
        undoes=UUID(undoes) if undoes else None,
    )


def status_of(store: Store, view: PairView) -> Status:
    return store.pairs([view.pair.id or 0])[0].pair.status


def test_each_action_sets_its_status(store: Store) -> None:
    for action, status in {
        Action.ACCEPT: Status.ACCEPTED,
        Action.EDIT: Status.EDITED,
        Action.REJECT: Status.REJECTED,
        Action.SKIP: Status.SKIPPED,
    }.items():
        (view,) = store.browse(limit=1)
        text = "A better answer." if action is Action.EDIT else None
        store.decide("ana", decision(view, action, text=text))
        assert status_of(store, view) is status
    assert store.counts()[Attribute.DEMOGRAPHIC][Status.ACCEPTED] == 1


def test_enums_are_stored_as_their_values(store: Store, data_dir: Path) -> None:
    (view,) = store.browse(limit=1)
    store.decide("ana", decision(view, Action.REJECT, reason=Reason.CONTRADICTS))
    assert rows(data_dir, f"SELECT status FROM pairs WHERE id = {view.pair.id}") == [("rejected",)]
    assert rows(data_dir, "SELECT action, reason FROM decisions") == [("reject", "contradicts image")]


def test_foreign_keys_are_enforced_and_writes_are_durable(data_dir: Path) -> None:
    store = Store.open(data_dir)
    with store._engine.connect() as connection:
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS}
    assert pragmas == PRAGMAS
    store.close()


PRAGMAS = {"foreign_keys": 1, "journal_mode": "wal", "synchronous": 2, "busy_timeout": 30_000}


def test_a_page_may_be_open_for_months(store: Store) -> None:
    (view,) = store.browse(limit=1)
    slow = decision(view, Action.ACCEPT).model_dump(mode="json") | {"milliseconds": 10**10}
    assert store.decide("ana", DecisionInput.model_validate(slow)).milliseconds == 2**31 - 1


def test_reviewers_are_in_the_same_order_on_both(store: Store) -> None:
    names = ["Zoe", "ana", "Ben", "Änne", "_x"]
    for view, name in zip(store.browse(limit=5), names, strict=True):
        store.decide(name, decision(view, Action.ACCEPT))
    assert list(store.reviewer_counts()) == sorted(names)


def test_the_same_uuid_is_stored_once(store: Store) -> None:
    (view,) = store.browse(limit=1)
    accept = decision(view, Action.ACCEPT)
    first = store.decide("ana", accept)
    assert store.decide("ana", accept).id == first.id
    assert len(store.events(view.pair.id or 0)) == 1


def test_a_stale_decision_is_refused_and_changes_nothing(store: Store) -> None:
    (view,) = store.browse(limit=1)
    store.decide("ana", decision(view, Action.ACCEPT))
    with pytest.raises(StaleError, match="accepted by ana"):
        store.decide("ben", decision(view, Action.REJECT))
    assert status_of(store, view) is Status.ACCEPTED
    assert len(store.events(view.pair.id or 0)) == 1


def test_a_decision_about_another_data_set_is_refused(store: Store) -> None:
    first, *_, last = store.browse(limit=20)
    wrong = decision(first, Action.ACCEPT).model_copy(update={"image_sha256": last.image.sha256})
    with pytest.raises(DataError, match="another data set"):
        store.decide("ana", wrong)
    missing = decision(first, Action.ACCEPT).model_copy(update={"pair_id": 10_000})
    with pytest.raises(DataError, match="another data set"):
        store.decide("ana", missing)


def test_undo_brings_back_what_stood_before(store: Store) -> None:
    (view,) = store.browse(limit=1)
    accepted = store.decide("ana", decision(view, Action.ACCEPT))
    edited = store.decide("ana", decision(view, Action.EDIT, text="Better.", revision=1))
    assert store.pairs([view.pair.id or 0])[0].answer == "Better."
    store.decide("ana", decision(view, Action.UNDO, undoes=edited.uuid, revision=2))
    assert status_of(store, view) is Status.ACCEPTED
    store.decide("ana", decision(view, Action.UNDO, undoes=accepted.uuid, revision=3))
    assert status_of(store, view) is Status.PENDING
    assert store.pairs([view.pair.id or 0])[0].answer == view.pair.answer


def test_undo_is_refused_when_the_decision_no_longer_stands_or_is_anothers(store: Store) -> None:
    (view,) = store.browse(limit=1)
    accepted = store.decide("ana", decision(view, Action.ACCEPT))
    with pytest.raises(StaleError, match="only ana"):
        store.decide("ben", decision(view, Action.UNDO, undoes=accepted.uuid))
    store.decide("ana", decision(view, Action.REJECT, revision=1))
    with pytest.raises(StaleError, match="no longer stands"):
        store.decide("ana", decision(view, Action.UNDO, undoes=accepted.uuid, revision=2))
    assert status_of(store, view) is Status.REJECTED


def test_a_reason_given_afterwards_replaces_the_rejection_and_is_undone_with_it(store: Store) -> None:
    (view,) = store.browse(limit=1)
    plain = store.decide("ana", decision(view, Action.REJECT))
    reasoned = store.decide("ana", decision(view, Action.REJECT, reason=Reason.WRONG, undoes=plain.uuid, revision=1))
    assert [event.uuid for event in store.history("ana")] == [reasoned.uuid]
    store.decide("ana", decision(view, Action.UNDO, undoes=reasoned.uuid, revision=2))
    assert status_of(store, view) is Status.PENDING


def test_history_is_the_reviewers_own_newest_first_and_deep(store: Store) -> None:
    views = store.browse(limit=24)
    for view in views:
        store.decide("ana" if (view.pair.id or 0) % 2 else "ben", decision(view, Action.ACCEPT))
    history = store.history("ana")
    assert [event.pair_id for event in history] == sorted((event.pair_id for event in history), reverse=True)
    assert {event.reviewer for event in history} == {"ana"}
    assert len(history) == 12
    assert store.history("ana", limit=2) == history[:2]


@pytest.mark.parametrize("seed", range(3))
def test_replaying_the_events_reproduces_every_status(store: Store, seed: int) -> None:
    rng = random.Random(seed)
    store.project.set_overlap("carol", 2, 0.5)
    for _ in range(200):
        (view,) = store.pairs([rng.randint(1, 24)])
        reviewer = rng.choice(["ana", "ben", "carol"])
        action = rng.choice(list(Action))
        own = next((verdict for verdict in view.verdicts if verdict.reviewer == reviewer), None)
        if action is Action.UNDO and own is None:
            continue
        made = decision(
            view,
            action,
            text=rng.choice(["One.", "Two."]) if action is Action.EDIT else None,
            note="Is it?" if action is Action.FLAG else None,
            undoes=own.decision_uuid if own and (action is Action.UNDO or rng.random() < 0.3) else None,
            revision=store.own_revisions(reviewer, [view.pair.id or 0]).get(view.pair.id or 0, 0),
        )
        others = view.pair.revision - made.revision
        shown_closed = None if view.pair.status.is_open else others
        try:
            store.decide(reviewer, made.model_copy(update={"others": shown_closed}), may_settle=reviewer == "carol")
        except StaleError as error:
            assert "has settled" in str(error)  # noqa: PT017 - anything else is a bug
    for view in store.pairs(range(1, 25)):
        events = store.events(view.pair.id or 0)
        now = replay(events, view.pair.overlap)
        assert (now.status, now.text, now.verdicts) == (view.pair.status, view.pair.text, view.pair.verdicts)
        assert len(events) == view.pair.revision
    stands = {verdict.decision_uuid for view in store.pairs(range(1, 25)) for verdict in view.verdicts}
    assert stands == {event.uuid for name in ("ana", "ben", "carol") for event in store.history(name)}
    assert {view.pair.status for view in store.pairs(range(1, 25))} >= {Status.DISPUTED, Status.FLAGGED}


def test_input_is_validated_at_the_border(store: Store) -> None:
    (view,) = store.browse(limit=1)
    with pytest.raises(ValidationError, match="the edited answer is empty"):
        decision(view, Action.EDIT, text="  ")
    with pytest.raises(ValidationError, match="only a rejection has a reason"):
        decision(view, Action.ACCEPT, reason=Reason.WRONG)
    with pytest.raises(ValidationError, match="an undo names"):
        decision(view, Action.UNDO)
    with pytest.raises(ValidationError):
        Pair.model_validate({"image_id": 1, "attribute": "colour", "question": "", "answer": "x"})


def test_the_queue_filters_pages_and_excludes(store: Store) -> None:
    skin = store.browse(PairFilter(attribute=Attribute.SKIN))
    assert [view.pair.attribute for view in skin] == [Attribute.SKIN] * 3
    page = store.browse(limit=5)
    following = store.browse(limit=5, exclude=[view.pair.id or 0 for view in page])
    assert {view.pair.id for view in page}.isdisjoint(view.pair.id for view in following)
    assert store.browse(limit=1, exclude=[view.pair.id or 0 for view in page])[0].pair.id == following[0].pair.id
    assert [view.pair.image_id for view in store.browse(limit=8)] == [page[0].pair.image_id] * 8
    assert store.browse(PairFilter(status=(Status.ACCEPTED,))) == []
    assert page[0].labels == {"pose": "left", "hair": "grey"}


def test_ingest_twice_adds_nothing_and_keeps_decisions(store: Store) -> None:
    (view,) = store.browse(limit=1)
    store.decide("ana", decision(view, Action.ACCEPT))
    assert store.ingest([image_input(store, number) for number in range(4)]) == 8
    assert store.image_count() == 4
    assert status_of(store, view) is Status.ACCEPTED


def test_an_image_twice_in_one_call_is_stored_once(store: Store) -> None:
    """As two calls would store it: the first labels and pairs stand, and what the second adds comes in."""
    first = image_input(store, 7)
    other_pair = first.pairs[0].model_copy(update={"prompt_version": "2", "answer": "By another prompt."})
    second = first.model_copy(
        update={
            "source": "test:again",
            "labels": {"pose": "right", "age": "30-39"},
            "pairs": (first.pairs[0].model_copy(update={"answer": "Too late."}), other_pair, other_pair),
        }
    )
    assert store.ingest([first, second]) == 9
    assert store.image_count() == 4
    views = [view for view in store.browse(limit=100) if view.image.sha256 == first.sha256]
    assert [view.answer for view in views] == [*(pair.answer for pair in first.pairs), "By another prompt."]
    assert {view.image.source for view in views} == {"test:7"}
    assert views[0].labels == {"pose": "left", "hair": "grey", "age": "30-39"}


@pytest.mark.parametrize("name", ["what?", "what?mode=ro", "50%", "a#b", "ein Ordner"])
def test_the_database_is_in_its_data_directory_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    Store.open(tmp_path / name).close()
    assert (tmp_path / name / "studio.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_image_files_are_named_by_their_content(store: Store, data_dir: Path) -> None:
    (view,) = store.browse(limit=1)
    sha256 = view.image.sha256
    assert view.image.path == f"images/{sha256[:2]}/{sha256}.png"
    assert (data_dir / view.image.path).read_bytes() == png(0)
    assert not list(data_dir.rglob("*.partial"))


def test_a_snapshot_holds_what_was_curated(store: Store, data_dir: Path) -> None:
    accepted, edited, rejected = store.browse(limit=3)
    store.decide("ana", decision(accepted, Action.ACCEPT))
    store.decide("ana", decision(edited, Action.EDIT, text="An edited answer."))
    store.decide("ana", decision(rejected, Action.REJECT))
    snapshot = store.snapshot("first")
    path = data_dir / "snapshots" / "first" / "examples.jsonl"
    examples = list(read_examples(path))
    assert [example.answer for example in examples] == [accepted.pair.answer, "An edited answer."]
    assert snapshot.count == 2
    assert snapshot.sha256 == content_hash(examples) == content_hash(list(store.accepted_examples()))
    assert [example.images for example in store.accepted_examples()] == [example.images for example in examples]
    assert json.loads(snapshot.filter) == {"status": ["accepted", "edited"]}
    assert all(Path(image).read_bytes() for example in examples for image in example.images)
    provenance = examples[1].provenance
    assert (provenance.pair_id, provenance.status, provenance.reviewer) == (edited.pair.id, "edited", "ana")
    assert (provenance.image_sha256, provenance.labels) == ((edited.image.sha256,), edited.labels)
    assert store.accepted_counts()[Attribute.STRUCTURE] == 1


def test_the_same_state_has_the_same_hash_and_a_changed_one_another(store: Store) -> None:
    first, second = store.browse(limit=2)
    store.decide("ana", decision(first, Action.ACCEPT))
    assert store.snapshot("a").sha256 == store.snapshot("b").sha256
    store.decide("ana", decision(second, Action.ACCEPT))
    assert store.snapshot("c").sha256 != store.snapshots()[-1].sha256
    assert [snapshot.name for snapshot in store.snapshots()] == ["c", "b", "a"]
    assert store.snapshot("only-accepted", PairFilter(status=(Status.ACCEPTED,))).count == 2


@pytest.mark.parametrize("name", ["taken", "", "../outside", ".hidden", "a/b", "x" * 81])
def test_a_snapshots_name_must_be_new_and_a_folders(store: Store, data_dir: Path, name: str) -> None:
    (view,) = store.browse(limit=1)
    store.decide("ana", decision(view, Action.ACCEPT))
    store.snapshot("taken")
    content = (data_dir / "snapshots" / "taken" / "examples.jsonl").read_bytes()
    with pytest.raises(DataError, match="already" if name == "taken" else "cannot be the name"):
        store.snapshot(name)
    assert (data_dir / "snapshots" / "taken" / "examples.jsonl").read_bytes() == content
    assert [path.name for path in (data_dir / "snapshots").iterdir()] == ["taken"]


def test_a_snapshot_of_nothing_is_refused(store: Store, data_dir: Path) -> None:
    with pytest.raises(DataError, match="no accepted or edited pair"):
        store.snapshot("empty")
    assert store.snapshots() == []
    assert list((data_dir / "snapshots").iterdir()) == []


def test_two_snapshots_of_one_name_at_once_make_one(store: Store) -> None:
    (view,) = store.browse(limit=1)
    store.decide("ana", decision(view, Action.ACCEPT))
    outcomes: list[str] = []

    def take() -> None:
        try:
            outcomes.append(store.snapshot("same").name)
        except DataError as error:
            outcomes.append(str(error))

    _run_together([take] * 4)
    assert outcomes.count("same") == 1
    assert sum("already" in outcome for outcome in outcomes) == 3


def _run_together(functions: list) -> None:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_that_decide_the_same_pairs_never_overwrite(store: Store) -> None:
    views = store.browse(limit=24)
    stale: list[int] = []

    def review(reviewer: str) -> None:
        for view in views:
            try:
                store.decide(reviewer, decision(view, Action.ACCEPT))
            except StaleError:
                stale.append(view.pair.id or 0)

    _run_together([lambda name=name: review(name) for name in ("ana", "ben", "cleo", "dan")])
    assert len(stale) == 3 * 24
    assert all(len(store.events(view.pair.id or 0)) == 1 for view in views)


def _open_and_decide(data_dir: Path, database: str, reviewer: str, ids: list[int]) -> None:
    store = Store.open(data_dir, database)
    store.ingest([image_input(store, number) for number in range(3)])
    for view in store.pairs(ids):
        store.decide(reviewer, decision(view, Action.ACCEPT))
    store.close()


def test_processes_share_a_new_data_directory(data_dir: Path, database: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    halves = {"ana": list(range(1, 13)), "ben": list(range(13, 25))}
    processes = [
        spawn.Process(target=_open_and_decide, args=(data_dir, database, who, ids)) for who, ids in halves.items()
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    store = Store.open(data_dir, database)
    assert sum(of[Status.ACCEPTED] for of in store.counts().values()) == 24
    assert store.reviewer_counts() == {"ana": 12, "ben": 12}
    with Session(store._engine) as session:
        assert len(session.exec(select(Decision)).all()) == 24
    store.close()
