"""What the Dataset tab shows of the numbers: tables, sentences, bars.

python -m pytest tests/test_stats_view.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_generation import add_attempt, add_face, add_run, biased

from annotation.database import writing
from annotation.models import Status
from annotation.seed import seed
from annotation.statistics.stats import stats
from annotation.statistics.stats_view import MOST_BARS, bars, groupings, measures, notable_html, summary_html
from annotation.store import Store
from facellm.data import Attribute


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    opened = Store.open(data_dir)
    yield opened
    opened.close()


def test_every_choice_has_bars(store: Store) -> None:
    biased(store)
    with writing(store._engine) as session:
        add_attempt(session, add_run(session), add_face(session), [Attribute.POSE], cost_usd=0.5)
    numbers = stats(store)
    seen = set()
    for _, by in groupings(numbers):
        for title, measure in measures(numbers, by):
            found = bars(numbers, by, measure)
            assert 0 < len(found.data) <= MOST_BARS, (by, measure)
            assert found.title == title
            assert found.is_share == title.endswith("%")
            assert not found.is_share or found.data["value"].between(0, 1).all()
            assert found.top >= found.data["value"].max()
            seen.add(measure)
    assert seen == {"pairs", "images", "refused", "flagged", "check contradiction", "check hedging", "cost"}


def values(numbers: dict[str, Any], by: str, measure: str) -> dict[str, float]:
    data = bars(numbers, by, measure).data
    return dict(zip(data["name"], data["value"], strict=True))


def test_bars_are_shares_of_answers_or_of_pairs(store: Store) -> None:
    biased(store)
    numbers = stats(store)
    row = {row["race"]: row for row in numbers["groups"]["race"]}
    refused = values(numbers, "race", "refused")
    assert list(refused) == ["White", "Middle Eastern", "Latino or Hispanic"], "FairFace's order, in words"
    assert refused["White"] == row["White"]["refused"] / row["White"]["answers"]
    contradicted = values(numbers, "race", "check contradiction")
    assert contradicted["White"] == row["White"]["flags"]["contradiction"] / row["White"]["pairs"]
    of_pose = numbers["flags_by_attribute"]["hedging"]["pose"] / sum(numbers["attributes"]["pose"].values())
    assert values(numbers, "attribute", "check hedging")["pose"] == of_pose


def test_of_many_groups_the_highest_are_shown_and_small_ones_have_no_rate(store: Store) -> None:
    biased(store)
    with writing(store._engine) as session:
        add_face(session, race="Black", gender="Male", age="0-2")
    numbers = stats(store)
    found = bars(numbers, "race × gender × age", "refused")
    assert found.left_out == 12 - MOST_BARS
    assert found.data["value"].is_monotonic_decreasing
    assert found.data["name"][0].startswith("Middle Eastern F ")
    assert "Black" not in values(numbers, "race", "refused")
    assert values(numbers, "race", "images")["Black"] == 1


def test_statuses_add_up_to_the_pairs(store: Store) -> None:
    seed(store, 6)
    numbers = stats(store)
    data = bars(numbers, "attribute", "pairs").data
    assert set(data["status"]) <= {status.value for status in Status}
    assert (data.groupby("name")["value"].sum() == 6).all()
    assert "refused" not in summary_html(numbers), "columns without a number are left out"
    assert "None. Each group was compared with the rest" in notable_html(numbers)
    assert ("hair colour", "hair colour") in groupings(numbers)


def test_names_are_no_markup(store: Store) -> None:
    with writing(store._engine) as session:
        run = add_run(session, teacher="<b>teacher</b>")
        add_attempt(session, run, add_face(session), [Attribute.POSE], cost_usd=None)
    text = summary_html(stats(store))
    assert "&lt;b&gt;teacher&lt;/b&gt;" in text
    assert "no price known for 1" in text


def test_an_empty_store_says_what_to_do(store: Store) -> None:
    assert "Bring in pictures" in summary_html(stats(store))
