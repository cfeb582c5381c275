"""The seeded data set: its planted mistakes, the demo reviewer, and that seeding can be repeated and interrupted.

python -m pytest tests/test_seed.py
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotation import seed
from annotation.checks.checking import run_checks
from annotation.checks.quality import PAIR_CHECKS
from annotation.decisions import replay
from annotation.models import Action, Status
from annotation.rendering import render_faces
from annotation.seed import Mistake
from annotation.store import Store
from facellm import face_text, faces
from facellm.config import load_settings
from facellm.data import Attribute, sha256_file

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    yield opened
    opened.close()


def truth_of(data_dir: Path) -> dict[tuple[str, str], dict]:
    lines = (data_dir / seed.TRUTH_FILE).read_text(encoding="utf-8").splitlines()
    return {(line["image_sha256"], line["attribute"]): line for line in map(json.loads, lines)}


def test_about_fifteen_percent_of_the_answers_are_mistaken_as_planned() -> None:
    planted: Counter[Mistake | None] = Counter()
    turned = swapped = 0
    for number in range(load_settings().seed_faces):
        face = faces.sample(faces.SEEDED_SEEDS[number])
        for attribute, draft in seed._drafts(number).items():
            planted[draft.mistake] += 1
            assert face_text.is_right(face, attribute, draft.right_answer)
            if draft.mistake is None:
                assert draft.answer == draft.right_answer
            elif draft.mistake is Mistake.LEAK:
                assert draft.answer.endswith(draft.right_answer)
                assert draft.answer != draft.right_answer
            else:
                assert not face_text.is_right(face, attribute, draft.answer)
            if attribute is Attribute.POSE and face.pose != "frontal":
                turned += 1
                swapped += draft.mistake is Mistake.SWAPPED
            if draft.mistake is Mistake.AGED:
                assert (attribute, face.hair_colour) == (Attribute.SKIN, "grey")
                assert face_text.named("wrinkles", draft.answer) == {"deep"}
    assert set(planted) == {None, *Mistake}
    assert planted.total() >= 300 * 8
    assert 0.13 <= 1 - planted[None] / planted.total() <= 0.17
    assert 0.7 <= swapped / turned <= 0.9


def test_the_demo_reviewer_has_decided_two_thirds_by_the_truth(store: Store, data_dir: Path) -> None:
    assert seed.seed(store, 12) == 96
    truth = truth_of(data_dir)
    views = store.pairs(range(1, 97))
    pending = {view.image.sha256 for view in views if view.pair.status is Status.PENDING}
    assert len(pending) == 4
    for view in views:
        assert (view.image.sha256 in pending) == (view.decision is None)
        assert sha256_file(data_dir / view.image.path) == view.image.sha256
        assert replay(store.events(view.pair.id or 0)).status is view.pair.status
        planted = truth[view.image.sha256, view.pair.attribute.value]
        if view.decision is None:
            continue
        assert view.decision.reviewer == "demo"
        (event,) = store.events(view.pair.id or 0)
        assert 500 < (event.milliseconds or 0) < 120_000
        assert (planted["mistake"] is None) == (view.decision.action is Action.ACCEPT)
        assert (view.decision.reason is not None) == (view.decision.action is Action.REJECT)
        if view.decision.action is not Action.REJECT:
            assert view.answer == planted["right_answer"]


def test_seeded_pairs_have_the_flags_that_a_check_gives_them(store: Store, data_dir: Path) -> None:
    seed.seed(store, 12)
    truth = truth_of(data_dir)
    flags = {}
    for view in store.pairs(range(1, 97)):
        mistaken = truth[view.image.sha256, view.pair.attribute.value]["mistake"] is not None
        assert bool(view.flags) <= (mistaken and view.pair.status is not Status.EDITED), "an edit has put it right"
        flags[view.pair.id] = [flag.id for flag in view.flags]
    assert sum(map(bool, flags.values())) >= 8
    run_checks(store, PAIR_CHECKS)
    assert {view.pair.id: [flag.id for flag in view.flags] for view in store.pairs(flags)} == flags


def test_seeding_again_adds_only_what_is_missing(store: Store, data_dir: Path) -> None:
    seed.seed(store, 2)
    files = {path: path.stat().st_mtime_ns for path in (data_dir / "images").rglob("*.png")}
    assert seed.seed(store, 2) == 0
    assert seed.seed(store, 3) == 8
    assert store.image_count() == 3
    assert len(truth_of(data_dir)) == 24
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_the_first_start_seeds_an_empty_data_directory_and_no_other() -> None:
    settings = load_settings()
    empty = seed.open_seeded(settings.model_copy(update={"seed_faces": 0}))
    assert empty.is_empty()
    empty.close()
    first = seed.open_seeded(settings.model_copy(update={"seed_faces": 2}))
    assert first.image_count() == 2
    first.close()
    second = seed.open_seeded(settings.model_copy(update={"seed_faces": 3}))
    assert second.image_count() == 2
    second.close()


def test_several_processes_draw_the_same_pictures_as_one(tmp_path: Path) -> None:
    together = render_faces(tmp_path / "together", range(32))
    assert [face.number for face in together] == list(range(32))
    alone = render_faces(tmp_path / "alone", [0, 31])
    assert [(face.number, face.sha256) for face in alone] == [
        (face.number, face.sha256) for face in together if face.number in (0, 31)
    ]
    assert (tmp_path / "together" / alone[0].path).exists()


def test_a_killed_seeding_is_completed_by_the_next_two_at_once(data_dir: Path) -> None:
    command = [sys.executable, "-m", "annotation", "seed", "--faces", "12"]
    first = subprocess.Popen(command, cwd=ROOT, env=os.environ)
    deadline = time.monotonic() + 60
    while not list(data_dir.rglob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.kill()
    first.wait()
    both = [subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE) for _ in range(2)]
    for process in both:
        process.communicate()
    assert [process.returncode for process in both] == [0, 0]
    store = Store.open(data_dir)
    assert store.image_count() == 12
    assert sum(sum(of.values()) for of in store.counts().values()) == 12 * 8
    assert len(truth_of(data_dir)) == 12 * 8
    assert store.reviewer_counts() == {"demo": 8 * 8}
    store.close()
