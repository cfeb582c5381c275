"""Measuring answers about unseen faces: with repliers that know the truth, and with the committed model."""

import json
import math
import random
import subprocess
import sys
from collections.abc import Sequence

import pytest
from PIL import Image

from facellm.attributes import MOST_FACES, Measured, Score, measure, measure_model
from facellm.config import EMBEDDED_ADAPTER, EMBEDDED_BASE, ROOT
from facellm.data import Attribute
from facellm.errors import DataError
from facellm.face_text import answer
from facellm.faces import EVALUATION_SEEDS, render, sample

QUESTIONS = {attribute.question: attribute for attribute in Attribute}


def teacher(seeds: Sequence[int], mistaken: Attribute | None = None):  # noqa: ANN201
    """Answers like a perfect teacher who recognises the pictures of these seeds; one attribute it always gets wrong."""
    known = {render(sample(seed)).tobytes(): sample(seed) for seed in seeds}
    rng = random.Random(0)

    def replies(pairs: Sequence[tuple[Image.Image, str]]) -> list[str]:
        texts = []
        for image, question in pairs:
            attribute = QUESTIONS[question]
            text = answer(known[image.tobytes()], attribute, rng)
            texts.append("I do not know." if attribute is mistaken else text)
        return texts

    return replies


def test_a_perfect_teacher_is_right_about_everything() -> None:
    measured = measure(teacher(EVALUATION_SEEDS[:5]), count=5)
    assert measured.overall == Score(40, 40)
    assert set(measured.attributes) == set(Attribute)


def test_one_mistaken_attribute_costs_an_eighth_and_only_itself() -> None:
    measured = measure(teacher(EVALUATION_SEEDS[:5], Attribute.POSE), count=5)
    assert measured.attributes[Attribute.POSE] == Score(0, 5)
    assert measured.overall == Score(35, 40)
    assert "face pose" in measured.table()


def test_seeds_ask_about_different_faces() -> None:
    later = EVALUATION_SEEDS[3 * MOST_FACES :][:4]
    assert measure(teacher(later), count=4, seed=3).overall.share == 1
    with pytest.raises(KeyError):  # the teacher does not know these
        measure(teacher(later), count=4, seed=2)


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (-1, 0), (MOST_FACES + 1, 0), (1, -1), (1, 100)])
def test_faces_that_there_are_not_are_refused(count: int, seed: int) -> None:
    with pytest.raises(DataError, match="unseen faces"):
        measure(lambda pairs: [""] * len(pairs), count=count, seed=seed)


def test_the_interval_is_wilsons() -> None:
    low, high = Score(8, 10).interval()
    assert math.isclose(low, 0.4902, abs_tol=1e-3)
    assert math.isclose(high, 0.9433, abs_tol=1e-3)
    assert Score(10, 10).interval()[1] == 1.0
    assert Score(0, 10).interval()[0] == 0.0


def test_the_committed_adapter_knows_what_its_base_has_not_learnt() -> None:
    tuned = measure_model(EMBEDDED_BASE, EMBEDDED_ADAPTER, device="cpu", count=30)
    base = measure_model(EMBEDDED_BASE, None, device="cpu", count=30)
    assert base.overall.share <= 0.4
    assert tuned.overall.share >= 0.85
    assert Measured(30, 0, tuned.attributes).to_dict()["overall"]["asked"] == 240


def test_the_command_prints_nothing_but_json() -> None:
    command = [sys.executable, "-m", "facellm", "attributes", "--adapter", "none", "--count", "2", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout)
    assert printed["adapter"] is None
    assert printed["overall"]["asked"] == 16
    assert set(printed["attributes"]) == {attribute.value for attribute in Attribute}
