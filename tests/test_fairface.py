"""FairFace's values as sentences name them."""

import csv
from pathlib import Path

import pytest

from annotation.fairface import AGES, GENDERS, RACES, VALUES, age_range, age_words, ethnicity, person

LABELS = Path(__file__).resolve().parents[2] / "shared" / "data" / "fairface_label_val.csv"


def test_the_value_sets_are_those_of_the_published_file() -> None:
    if not LABELS.is_file():
        pytest.skip("the FairFace labels are not beside the checkout")
    with LABELS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name, values in VALUES.items():
        assert {row[name] for row in rows} == set(values)


def test_everybody_has_a_noun() -> None:
    nouns = {person(age, gender) for age in (*AGES, None) for gender in (*GENDERS, None)}
    assert nouns == {
        *("infant", "baby boy", "baby girl", "child", "boy", "girl", "young person", "young male", "young female"),
        *("man", "woman", "person"),
    }
    assert person("0-2", "Female") == "baby girl"
    assert person("20-29", None) == "person"


def test_no_sentence_shows_a_raw_value() -> None:
    assert not any("_" in ethnicity(race) for race in RACES)
    assert [age_words(age) for age in (AGES[0], AGES[-1])] == ["0 to 2 years old", "over 70 years old"]


def test_age_ranges_follow_each_other() -> None:
    ranges = [age_range(age) for age in AGES]
    assert ranges[0] == (0, 2)
    assert ranges[-1][0] == 70
    assert all(later[0] == earlier[1] + 1 for earlier, later in zip(ranges, ranges[1:], strict=False))
