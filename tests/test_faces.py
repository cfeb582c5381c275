"""Rendered faces: deterministic, independent factors, and every factor visible at the model's size."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageFilter

from facellm import faces
from facellm.faces import EVALUATION_SEEDS, FACTORS, SEEDED_SEEDS, TRAINING_SEEDS, Face, render, sample

PLAIN = Face(**{factor: values[0] for factor, values in FACTORS.items()}, seed=5)


def with_value(face: Face, factor: str, value: str) -> Face:
    return Face(**face.labels() | {factor: value}, seed=face.seed)


def pixels(face: Face, size: int = 64) -> np.ndarray:
    return np.asarray(render(face, size), dtype=np.float32)


def test_a_seed_gives_the_same_face_and_the_same_pixels() -> None:
    assert sample(11) == sample(11)
    assert sample(11) != sample(12)
    assert np.array_equal(pixels(sample(11)), pixels(sample(11)))
    assert not np.array_equal(pixels(sample(11)), pixels(dataclasses.replace(sample(11), seed=12)))


@pytest.mark.parametrize("size", [64, 97, 256])
def test_a_picture_is_square_rgb_of_the_size_asked_for(size: int) -> None:
    image = render(sample(3), size)
    assert (image.mode, image.size) == ("RGB", (size, size))


def test_a_small_picture_shows_the_same_as_a_large_one() -> None:
    for seed in range(12):
        face = sample(seed)
        small, large = render(face, 64), render(face, 192).resize((64, 64), Image.Resampling.BOX)
        if face.quality == "grainy":  # grain has a size, so a smaller picture has a stronger one: compare what is below
            small, large = (picture.filter(ImageFilter.GaussianBlur(1)) for picture in (small, large))
        difference = abs(np.asarray(small, dtype=np.float32) - np.asarray(large, dtype=np.float32)).mean()
        assert difference < 8, face


@pytest.mark.parametrize("factor", FACTORS)
def test_every_value_of_a_factor_changes_the_picture_at_the_models_size(factor: str) -> None:
    shown = [pixels(with_value(PLAIN, factor, value)) for value in FACTORS[factor]]
    for index, first in enumerate(shown):
        for second in shown[index + 1 :]:
            changed = abs(first - second).max(axis=-1) > 12
            assert changed.sum() >= 25, f"{factor}: {changed.sum()} of 4,096 pixels differ"


def test_left_and_right_are_those_of_the_picture() -> None:
    """Light from the left brightens the left half; a head turned left has its eyes left of one turned right."""
    lit_left = pixels(dataclasses.replace(PLAIN, lighting="left")).mean(axis=(0, 2))
    assert lit_left[:20].mean() > lit_left[-20:].mean() + 30
    left, right = (
        _dark_centre(dataclasses.replace(PLAIN, pose=pose, glasses="sunglasses")) for pose in ("left", "right")
    )
    assert left < 30 < 34 < right


def _dark_centre(face: Face) -> float:
    """The mean column of the sunglasses."""
    bare = dataclasses.replace(face, glasses="none")
    difference = abs(pixels(face) - pixels(bare)).max(axis=-1) > 60
    return float(np.nonzero(difference)[1].mean())


def test_factors_are_independent_and_most_heads_are_turned() -> None:
    drawn = [sample(seed) for seed in range(6000)]
    turned = sum(face.pose != "frontal" for face in drawn) / len(drawn)
    assert 0.55 < turned < 0.65
    wrinkled = Counter((face.hair_colour == "grey", face.wrinkles) for face in drawn)
    for grey in (True, False):
        deep = wrinkled[grey, "deep"] / sum(wrinkled[grey, value] for value in FACTORS["wrinkles"])
        assert 0.28 < deep < 0.39
    for factor, values in FACTORS.items():
        counts = Counter(getattr(face, factor) for face in drawn)
        assert set(counts) == set(values)
        assert min(counts.values()) > 0.1 * len(drawn)


def test_labels_name_every_factor_and_nothing_else() -> None:
    assert sample(1).labels().keys() == FACTORS.keys()


def test_an_unknown_value_is_refused() -> None:
    with pytest.raises(ValueError, match="pose is 'up'; expected one of frontal, left, right"):
        dataclasses.replace(PLAIN, pose="up")


def test_seeds_for_training_measuring_and_seeding_are_disjoint() -> None:
    ranges = [EVALUATION_SEEDS, SEEDED_SEEDS, TRAINING_SEEDS]
    for index, first in enumerate(ranges):
        for second in ranges[index + 1 :]:
            assert first.stop <= second.start or second.stop <= first.start
    assert faces.sample(EVALUATION_SEEDS[0]) != faces.sample(TRAINING_SEEDS[0])
