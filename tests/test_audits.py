"""Audits: what is drawn, what counts, and whether the estimate keeps its promise.

python -m pytest tests/test_audits.py
"""

import random
from collections.abc import Iterator
from math import comb
from pathlib import Path

import pytest

from annotation.models import Action, Status
from annotation.pair_filter import PairFilter
from annotation.store import Store
from annotation.team.error_estimate import Estimate, Judged, estimate_by_stratum, estimate_errors, wrong_bounds
from facellm.data import Attribute
from facellm.errors import DataError, StaleError
from tests.made_team import add_faces, decide, status

A, R, E = Action.ACCEPT, Action.REJECT, Action.EDIT


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    """80 pairs, of which ben has accepted 60, rejected 8 and not decided 12."""
    opened = Store.open(data_dir, database)
    add_faces(opened, 10)
    for pair_id in range(1, 69):
        decide(opened, "ben", pair_id, A if pair_id <= 60 else R)
    yield opened
    opened.close()


# The estimate


def test_against_clopper_and_pearsons_own_values() -> None:
    """Of a population without end: 0 of 100 and 10 of 100 (binom.test in R: 0 to 0.0362, 0.0490 to 0.1762)."""
    pairs = 2_000_000
    low, high = wrong_bounds(pairs, Judged(100, 0))
    assert (low, high / pairs) == (0, pytest.approx(0.03622, abs=2e-5))
    low, high = wrong_bounds(pairs, Judged(100, 10))
    assert (low / pairs, high / pairs) == (pytest.approx(0.04901, abs=2e-5), pytest.approx(0.17622, abs=2e-5))
    low, high = wrong_bounds(pairs, Judged(20, 20))
    assert (low / pairs, high) == (pytest.approx(0.83157, abs=2e-5), pairs)


def test_exact_by_counting_for_a_small_population() -> None:
    """The bounds are the ends of all numbers under which neither tail is 2.5 % or less, counted by hand."""
    pairs, size = 30, 12
    for wrong in range(size + 1):
        kept = []
        for bad in range(wrong, pairs - size + wrong + 1):
            chance = [comb(bad, k) * comb(pairs - bad, size - k) / comb(pairs, size) for k in range(size + 1)]
            if sum(chance[: wrong + 1]) > 0.025 and sum(chance[wrong:]) > 0.025:
                kept.append(bad)
        assert wrong_bounds(pairs, Judged(size, wrong)) == (kept[0], kept[-1])


def test_who_has_looked_at_all_knows() -> None:
    assert wrong_bounds(50, Judged(50, 3)) == (3, 3)
    assert estimate_errors(50, Judged()) is None
    found = estimate_errors(50, Judged(50, 3))
    assert found == Estimate(50, 50, 3, 0.06, 0.06, 0.06)
    assert found.left == (3, 3, 3)


def test_the_interval_holds_the_truth_in_95_of_100_samples() -> None:
    rng = random.Random(5)
    for bad, pairs in ((30, 3000), (150, 3000), (2, 400)):
        population = [True] * bad + [False] * (pairs - bad)
        hits = 0
        for _ in range(400):
            low, high = wrong_bounds(pairs, Judged(150, sum(rng.sample(population, 150))))
            hits += low <= bad <= high
        assert hits >= 0.935 * 400, (bad, pairs)


def test_strata_are_weighed_by_their_pairs() -> None:
    """A rare attribute that is bad half the time hardly counts; without weights it would be a quarter of all."""
    pairs = {"pose": 9_000, "skin": 1_000}
    found = estimate_by_stratum(pairs, {"pose": Judged(100, 0), "skin": Judged(100, 50)})
    assert found is not None
    assert (found.share, found.pairs, found.judged, found.wrong) == (pytest.approx(0.05), 10_000, 200, 50)
    assert found.low < 0.05 < found.high
    alike = estimate_by_stratum({"a": 500, "b": 500}, {"a": Judged(50, 5), "b": Judged(50, 5)})
    assert alike is not None
    assert (alike.low, alike.high) == (pytest.approx(0.0552, abs=1e-4), pytest.approx(0.1744, abs=1e-4))  # Wilson's
    assert estimate_by_stratum(pairs, {"pose": Judged()}) is None
    partly = estimate_by_stratum(pairs, {"skin": Judged(10, 1)})
    assert partly is not None
    assert partly.pairs == 1_000


def test_the_weighed_interval_holds_the_truth_too() -> None:
    rng = random.Random(6)
    sizes, bad = {"a": 4000, "b": 800, "c": 200}, {"a": 80, "b": 80, "c": 60}
    truth, hits = sum(bad.values()) / sum(sizes.values()), 0
    for _ in range(500):
        samples = {
            name: Judged(80, sum(rng.sample([True] * bad[name] + [False] * (sizes[name] - bad[name]), 80)))
            for name in sizes
        }
        found = estimate_by_stratum(sizes, samples)
        assert found is not None
        hits += found.low <= truth <= found.high
    assert hits >= 0.93 * 500


# Drawing and judging


def test_draws_curated_pairs_each_once(store: Store) -> None:
    assert store.audits.draw("carol", 50) == 50
    assert store.audits.draw("carol", 50) == 10
    drawn = [audit.pair_id for audit, _, _ in store.audits.all()]
    assert sorted(drawn) == list(range(1, 61))
    assert drawn != sorted(drawn)
    with pytest.raises(DataError, match="No curated pair is left"):
        store.audits.draw("carol", 1)
    with pytest.raises(DataError, match="expected 1 to"):
        store.audits.draw("carol", 0)


def test_by_attribute_as_many_of_each(store: Store) -> None:
    store.audits.draw("carol", 24, by_attribute=True)
    counts = dict.fromkeys(Attribute, 0)
    for _, pair, _ in store.audits.all():
        assert pair.attribute is not None
        counts[pair.attribute] += 1
    assert set(counts.values()) == {3}
    assert store.audits.estimate().is_by_attribute


def test_judged_until_none_is_left(store: Store) -> None:
    assert store.audits.estimate().sentence == "No pair is drawn yet."
    store.audits.draw("carol", 20)
    assert store.audits.estimate().sentence == "20 drawn pairs wait for their judge."
    seen = []
    while drawn := store.audits.next("carol"):
        assert drawn.left == 20 - len(seen)
        store.audits.judge(drawn.audit_id, drawn.pair_id % 10 > 0, "carol")
        seen.append(drawn.pair_id)
    wrong = sum(pair_id % 10 == 0 for pair_id in seen)
    found = store.audits.estimate()
    assert found.estimate is not None
    assert (found.estimate.judged, found.estimate.wrong, found.estimate.pairs) == (20, wrong, 60)
    assert sum(each.judged for each in found.attributes.values()) == 20
    assert found.sentence.startswith(f"{wrong} of 20 audited pairs are wrong: ")
    assert "of 60 curated pairs (" in found.sentence


def test_judged_twice_or_taken_back(store: Store) -> None:
    store.audits.draw("carol", 2)
    first = store.audits.next("carol")
    assert first is not None
    store.audits.judge(first.audit_id, False, "carol")
    with pytest.raises(StaleError, match="carol has judged it"):
        store.audits.judge(first.audit_id, True, "dora")
    with pytest.raises(StaleError, match="Only who"):
        store.audits.take_back(first.audit_id, "dora")
    store.audits.take_back(first.audit_id, "carol")
    assert store.audits.next("carol") == first
    other = store.audits.next("carol", skipped=[first.audit_id])
    assert other is not None
    assert other.audit_id != first.audit_id
    with pytest.raises(DataError, match="no audit 99"):
        store.audits.judge(99, True, "carol")


def test_who_has_decided_a_pair_judges_it_last(store: Store) -> None:
    for pair_id in range(69, 73):
        decide(store, "carol", pair_id, A)
    store.audits.draw("dora", 64)
    judged = []
    while drawn := store.audits.next("carol"):
        store.audits.judge(drawn.audit_id, True, "carol")
        judged.append(drawn.pair_id)
    assert set(judged[-4:]) == {69, 70, 71, 72}


def test_what_is_decided_anew_counts_for_nothing(store: Store) -> None:
    store.audits.draw("dora", 60)
    for audit, _, _ in store.audits.all():
        if audit.pair_id in (1, 2):
            store.audits.judge(audit.id or 0, False, "dora")
    decide(store, "carol", 1, R, may_settle=True, closed=True)
    decide(store, "carol", 2, E, text="Better.", may_settle=True, closed=True)
    decide(store, "carol", 3, E, text="Better.", may_settle=True, closed=True)
    assert [status(store, pair_id) for pair_id in (1, 2)] == [Status.REJECTED, Status.EDITED]
    found = store.audits.estimate()
    assert (found.estimate, found.drawn) == (None, 57)
    third = next(audit.id for audit, _, _ in store.audits.all() if audit.pair_id == 3)
    with pytest.raises(StaleError, match="decided about anew"):
        store.audits.judge(third or 0, True, "dora")
    assert store.audits.draw("dora", 60) == 2, "the edited ones, as they are now"


def test_a_filtered_sample_speaks_for_its_pairs_only(store: Store) -> None:
    add_faces(store, 5, first=20, race="Black")
    for pair_id in range(81, 121):
        decide(store, "ben", pair_id, A)
    of = PairFilter(race="Black")
    assert store.audits.draw("carol", 10, of=of) == 10
    assert {pair.race for _, pair, _ in store.audits.all()} == {"Black"}
    while drawn := store.audits.next("carol"):
        store.audits.judge(drawn.audit_id, False, "carol")
    assert store.audits.estimate().sentence == "No pair is drawn yet."
    (found,) = store.audits.filtered()
    assert (found.population, found.curated, found.drawn) == ("race=Black", 40, 10)
    assert found.estimate is not None
    assert found.estimate.pairs == 40
    assert store.audits.draw("carol", 100) == 100, "the other sample may have the same pairs"
