"""Leases: nobody gets what somebody else has before him, and nobody starves.

python -m pytest tests/test_leases.py
"""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from annotation.database import writing
from annotation.models import Action, Lease, Status
from annotation.pair_filter import PairFilter
from annotation.store import Store
from facellm.data import Attribute
from tests.made_team import add_faces, decide, status


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    add_faces(opened, 6)
    yield opened
    opened.close()


def claim(store: Store, who: str, window: str = "w", **how) -> set[int]:  # noqa: ANN003
    return {view.pair.id or 0 for view in store.claim(who, window, **how)}


def expire(store: Store) -> None:
    wait(store, timedelta(minutes=10, seconds=1))


def wait(store: Store, time: timedelta) -> None:
    """As if all leases had been taken so long ago."""
    with writing(store._engine) as session:
        session.execute(sa.update(Lease).values(expires_at=datetime.now(UTC) + timedelta(minutes=10) - time))


def test_two_reviewers_and_two_windows_get_different_pairs(store: Store) -> None:
    first, second = claim(store, "ana", "1"), claim(store, "ben", "1")
    third = claim(store, "ana", "2")
    assert [len(first), len(second), len(third)] == [20, 20, 8]
    assert not first & second and not first & third and not second & third


def test_a_window_gets_its_own_again_and_more_beyond_them(store: Store) -> None:
    first = claim(store, "ana")
    assert claim(store, "ana") == first
    assert not claim(store, "ana", exclude=first) & first


def test_what_a_closed_window_held_is_soon_free_for_the_same_person_alone(store: Store) -> None:
    first = claim(store, "ana", "closed", limit=48)
    wait(store, timedelta(minutes=2))
    assert claim(store, "ana", "new", limit=48) == set()
    wait(store, timedelta(minutes=4))
    assert claim(store, "ben", "w", limit=48) == set()
    assert claim(store, "ana", "new", limit=48) == first
    assert store.renew("ana", "closed", first) == set()


def test_a_window_that_is_left_gives_its_pairs_back_unless_it_is_loaded_anew(store: Store) -> None:
    first = claim(store, "ana", "1", limit=48)
    store.leave("ana", "1")
    assert claim(store, "ben") == set()
    assert claim(store, "ana", "1", limit=48) == first
    store.leave("ana", "1")
    with writing(store._engine) as session:
        (until,) = set(session.scalars(sa.select(Lease.expires_at)))
    assert until - datetime.now(UTC) < timedelta(seconds=21)


def test_a_lease_ends_by_itself_or_when_it_is_given_back(store: Store) -> None:
    first = claim(store, "ana", limit=48)
    assert claim(store, "ben") == set()
    store.release("ana", "w", [1, 2])
    assert claim(store, "ben") == {1, 2}
    expire(store)
    assert claim(store, "ben", limit=48) == first
    assert store.renew("ana", "w", [1, 2, 3]) == set()


def test_a_sign_of_life_keeps_a_lease(store: Store) -> None:
    claim(store, "ana", limit=2)
    assert claim(store, "ben", limit=1) == {3}
    assert store.renew("ana", "w", [1, 2, 3]) == {1, 2}
    assert store.renew("ana", "another", [1]) == set()


def test_a_decision_gives_the_lease_back_and_what_was_decided_does_not_come_again(store: Store) -> None:
    claim(store, "ana", limit=1)
    decide(store, "ana", 1, Action.SKIP)
    assert status(store, 1) is Status.SKIPPED
    assert 1 not in claim(store, "ana", limit=48)
    store.release("ana")
    assert 1 in claim(store, "ben", limit=48)


def test_with_overlap_two_may_have_a_pair_and_not_three(store: Store) -> None:
    store.project.set_overlap("carol", 2)
    assert claim(store, "ana", limit=4) == claim(store, "ben", limit=4) == {1, 2, 3, 4}
    assert not claim(store, "dan", limit=4) & {1, 2, 3, 4}
    decide(store, "ana", 1, Action.ACCEPT)
    store.release("dan")
    assert 1 not in claim(store, "dan", limit=4)


@pytest.mark.parametrize("overlap", [1, 2])
def test_eight_at_once_never_decide_more_than_was_asked_and_finish_all(store: Store, overlap: int) -> None:
    store.project.set_overlap("carol", overlap)
    stale: list[str] = []

    def review(who: str) -> None:
        rng = random.Random(who)
        while True:
            attribute = rng.choice([*Attribute, None, None])
            views = store.claim(who, "w", PairFilter(attribute=attribute), limit=3)
            if not views and attribute is None:
                return
            for view in views:
                decide(store, who, view.pair.id or 0, Action.ACCEPT)

    threads = [threading.Thread(target=review, args=(f"r{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdicts = Counter(verdict.pair_id for view in store.pairs(range(1, 49)) for verdict in view.verdicts)
    assert stale == []
    assert set(verdicts.values()) == {overlap} and len(verdicts) == 48


def test_a_pair_that_is_open_again_is_leased_by_the_next_sign_of_life(store: Store) -> None:
    claim(store, "ana", limit=1)
    made = decide(store, "ana", 1, Action.ACCEPT)
    decide(store, "ana", 1, Action.UNDO, undoes=made.uuid)
    assert store.renew("ana", "w", [1]) == {1}
    assert 1 not in claim(store, "ben", limit=48)
    assert store.renew("ana", "w", [1, 2]) == {1}, "ben has 2"
