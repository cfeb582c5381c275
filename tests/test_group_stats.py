"""Statistics by attribute, teacher and group, and the groups that stand out, on real rows.

python -m pytest tests/test_group_stats.py
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_generation import add_attempt, add_face, add_run, add_task, biased

from annotation.database import writing
from annotation.models import Purpose, TaskState
from annotation.statistics.group_stats import group_words
from annotation.statistics.rates import Clusters, Tally, benjamini_hochberg, contrast, design_effect, fisher_greater
from annotation.statistics.stats import stats
from annotation.store import Store
from facellm.data import Attribute


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    yield opened
    opened.close()


def test_fishers_exact_test_against_published_values() -> None:
    """Fisher's tea-tasting lady, and his twins of convicts (1935; the values of R's fisher.test)."""
    assert fisher_greater(3, 4, 4, 8) == pytest.approx(17 / 70)
    assert fisher_greater(10, 13, 12, 30) == pytest.approx(0.0004652, abs=5e-8)
    assert fisher_greater(0, 5, 10, 50) == pytest.approx(1)
    assert fisher_greater(0, 5, 0, 50) == pytest.approx(1)


def test_the_rate_ratio_against_published_values() -> None:
    """Heart attacks under placebo and under aspirin (Physicians' Health Study; Agresti, Categorical Data Analysis)."""
    found = contrast(Tally(189, 11034), Tally(104, 11037))
    assert found.ratio == pytest.approx(1.82, abs=0.005)
    assert (found.low, found.high) == (pytest.approx(1.43, abs=0.005), pytest.approx(2.31, abs=0.005))
    alone = contrast(Tally(5, 40), Tally(0, 900))
    assert (alone.ratio, alone.high) == (None, None)
    assert alone.low > 5
    assert alone.p < 1e-4


def test_benjamini_and_hochbergs_own_example() -> None:
    """The 15 p values of their paper (1995, section 3.2): at 5 % the first four are significant."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    p += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]
    q = benjamini_hochberg(p[::-1])[::-1]
    assert [value <= 0.05 for value in q] == [True] * 4 + [False] * 11
    assert q[3] == pytest.approx(0.0095 * 15 / 4)
    assert q == sorted(q)
    assert benjamini_hochberg([]) == []


def clusters(hits: list[int], size: int) -> Clusters:
    each = [Clusters(1, size, size * size, x, x * x, x * size) for x in hits]
    total = Clusters()
    for one in each:
        total += one
    return total


def test_answers_that_are_all_alike_count_once_a_face() -> None:
    assert design_effect([clusters([8, 0] * 500, 8)]) == pytest.approx(8, rel=0.01)
    assert design_effect([clusters([1, 0] * 500, 1)]) == pytest.approx(1, rel=0.01)
    assert design_effect([clusters([1], 8), clusters([0, 0], 8)]) == 1
    rng = random.Random(1)
    independent = [sum(rng.random() < 0.2 for _ in range(8)) for _ in range(2000)]
    assert design_effect([clusters(independent, 8)]) == pytest.approx(1, abs=0.1)


def test_refusals_in_clumps_raise_no_false_alarm() -> None:
    """200 faces of which each is refused all eight times or not at all; ten groups of no difference, 100 times."""
    rng = random.Random(2)
    naive = careful = 0
    for _ in range(100):
        groups = [clusters([8 * (rng.random() < 0.1) for _ in range(20)], 8) for _ in range(10)]
        total = sum((group.x for group in groups), 0)
        for effect in (1.0, design_effect(groups)):
            p = [
                contrast(group.tally, Tally(total - group.x, 1600 - group.n), design_effect=effect).p
                for group in groups
            ]
            alarm = min(benjamini_hochberg(p)) <= 0.05
            naive += alarm and effect == 1.0
            careful += alarm and effect != 1.0
    assert naive > 50
    assert careful <= 8


def test_groups_that_stand_out_are_named_in_a_sentence(store: Store) -> None:
    biased(store)
    found = store.group_stats()
    said = [each for each in found.notable if each.within is None]
    whom = {(each.kind.name, each.who) for each in said}
    assert ("refused", "Middle Eastern female faces") in whom
    assert ("contradiction", "faces labelled more than 70") in whom
    assert not any(each.kind.name == "hedging" for each in found.notable)
    refusals = next(each for each in said if each.who == "Middle Eastern female faces")
    assert refusals.group.size == 100
    assert f"{refusals.group.hits} of 100 answers; 95 % interval" in refusals.sentence
    assert refusals.sentence.startswith("Refusals: Middle Eastern female faces are hit ")
    old = next(each for each in said if each.kind.name == "contradiction" and len(each.names) == 1)
    assert old.contrast.ratio is None
    assert old.sentence.endswith(f"pairs; none of {old.rest.size} of the rest).")
    inside = [each for each in found.notable if each.kind.name == "contradiction" and len(each.names) > 1]
    assert inside
    assert {each.within is not None for each in inside} == {True}, "of old faces enough is said once"


def test_groups_without_a_difference_are_not_named(store: Store) -> None:
    biased(store, rate=0.04)
    assert {each.kind.name for each in store.group_stats().notable} == {"contradiction"}


def test_faces_without_a_label_are_shown_but_not_compared(store: Store) -> None:
    biased(store)
    before = store.group_stats()
    with writing(store._engine) as session:
        run = add_run(session)
        for number in range(40):
            image = add_face(session, **({"gender": "Male"} if number % 2 else {}))
            add_task(session, run, image, Attribute.POSE, TaskState.REFUSED)
    after = store.group_stats()
    table = next(table for table in after.tables if table.names == ("race",))
    assert [group.values[0] for group in table.groups] == ["White", "Middle Eastern", "Latino_Hispanic", "unknown"]
    assert table.groups[-1].images == 40
    assert all("unknown" not in each.values for each in after.notable)
    of_race = [(each.who, each.group, each.rest) for each in before.notable if "gender" not in each.names]
    assert of_race == [(each.who, each.group, each.rest) for each in after.notable if "gender" not in each.names]


def test_the_newest_of_two_labels_counts_and_other_labels_group_where_there_is_no_race(store: Store) -> None:
    with writing(store._engine) as session:
        for number in range(4):
            image = add_face(session, pose="left", file=f"{number}.png")
            add_face(session, image=image, source="person", pose="right" if number else "left")
    (table,) = [table for table in store.group_stats().tables if table.names == ("pose",)]
    assert [(group.values, group.images) for group in table.groups] == [(("left",), 1), (("right",), 3)]
    assert all(len(table.names) == 1 for table in store.group_stats().tables)
    assert group_words(("hair_colour",), ("grey",)) == "faces with hair colour grey"
    assert group_words(("race", "gender", "age"), ("Latino_Hispanic", "Male", "0-2")) == (
        "Latino or Hispanic male faces labelled 0-2"
    )


def test_costs_are_split_evenly_over_the_attributes_of_a_request(store: Store) -> None:
    with writing(store._engine) as session:
        image = add_face(session)
        run, judge = add_run(session), add_run(session, purpose=Purpose.JUDGE, teacher="judge")
        several = [Attribute.POSE, Attribute.SKIN, Attribute.DETAIL, Attribute.FORENSIC]
        add_attempt(session, run, image, several, cost_usd=0.4, input_tokens=1000, output_tokens=200)
        add_attempt(session, run, image, [Attribute.POSE], cost_usd=0.05, input_tokens=100, output_tokens=50)
        add_attempt(session, run, image, [Attribute.POSE], cost_usd=None, input_tokens=100, output_tokens=50)
        add_attempt(session, judge, image, [Attribute.SKIN], cost_usd=0.01, input_tokens=10, output_tokens=5)
        add_task(session, run, image, Attribute.POSE, TaskState.FALLBACK)
        add_task(session, run, image, Attribute.SKIN, TaskState.REFUSED)
        add_task(session, judge, image, Attribute.SKIN, TaskState.INVALID, subject="pair:1")
    numbers = stats(store)
    cost = numbers["cost"]
    assert (cost["requests"], cost["unpriced"]) == (4, 1)
    assert cost["cost_usd"] == pytest.approx(0.46)
    by_attribute = {name: bill["cost_usd"] for name, bill in cost["attributes"].items()}
    assert by_attribute == pytest.approx({"pose": 0.15, "skin": 0.11, "detail": 0.1, "forensic": 0.1})
    assert sum(bill["input_tokens"] for bill in cost["attributes"].values()) == cost["input_tokens"] == 1210
    assert cost["teachers"]["judge"]["requests"] == 1
    assert sorted(cost["purposes"]) == ["generate", "judge"]
    assert numbers["tasks"]["states"] == {"fallback": 1, "refused": 1}, "what a judge is asked is no answer of a pair"
    assert (numbers["refused"], numbers["tasks"]["attributes"]["skin"]) == (1, {"refused": 1})


def test_flags_are_counted_by_check_attribute_and_group(store: Store) -> None:
    biased(store)
    numbers = json.loads(json.dumps(stats(store)))
    for check, count in numbers["flags"].items():
        assert sum(numbers["flags_by_attribute"][check].values()) == count
        for rows in numbers["groups"].values():
            assert sum(row["flags"][check] for row in rows) == count
    assert sum(numbers["flagged_by_attribute"].values()) == numbers["flagged"]
    for title, rows in numbers["groups"].items():
        assert sum(row["images"] for row in rows) == 300, title
        assert sum(row["refused"] for row in rows) == numbers["refused"]
        assert sum(row["pairs"] for row in rows) == numbers["pairs"]
        assert sum(row["flagged"] for row in rows) == numbers["flagged"]
    assert len(numbers["groups"]["race × gender × age"]) == 12
    assert numbers["notable"][0]["sentence"]


def test_an_empty_store_has_no_groups(store: Store) -> None:
    numbers = stats(store)
    assert (numbers["groups"], numbers["notable"], numbers["cost"]["cost_usd"]) == ({}, [], 0)
