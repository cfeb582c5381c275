"""Parts by image: what an image's part depends on, and what it does not.

python -m pytest tests/test_splits.py
"""

import math
from collections import Counter

import pytest

from annotation.exports.splits import Splits
from facellm.errors import ConfigError
from tests.made_faces import hashes

USUAL = "train=0.8,validation=0.1,test=0.1"


def test_shares_are_met_as_far_as_chance_allows() -> None:
    splits = Splits.parse(USUAL)
    found = Counter(map(splits.of, hashes(10_954)))
    for name, share in splits.shares:
        assert abs(found[name] / 10_954 - share) < 4 * math.sqrt(share * (1 - share) / 10_954), name


def test_another_seed_gives_other_parts_and_the_same_one_the_same() -> None:
    images = list(hashes(500))
    first, again, other = (list(map(Splits.parse(USUAL, seed).of, images)) for seed in (0, 0, 1))
    assert first == again
    assert sum(a != b for a, b in zip(first, other, strict=True)) > 50


def test_a_small_change_of_the_shares_moves_few_images() -> None:
    images = list(hashes(2_000))
    before, after = (map(Splits.parse(text).of, images) for text in ("train=0.9,test=0.1", "train=0.85,test=0.15"))
    moved = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert set(moved) == {("train", "test")}
    assert len(moved) < 0.08 * len(images)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train=0.8,test=0.1", "add up to 0.9"),
        ("train=0.8,dev=0.2", "the part 'dev'"),
        ("train=0.5,train=0.5", "each once"),
        ("train=a,test=0.5", "the share 'a'"),
        ("train=1.5,test=-0.5", "not between 0 and 1"),
        ("train=nan,test=0.5", "not between 0 and 1"),
        ("", "the part ''"),
    ],
)
def test_what_is_no_split_is_told(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Splits.parse(text)


def test_a_part_without_an_image_is_told() -> None:
    splits = Splits.parse("train=0.999,test=0.001")
    with pytest.raises(ConfigError, match="none falls into test, whose share is 0.001"):
        splits.check_none_is_empty(hashes(3))
