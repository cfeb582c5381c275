"""Agreement from the verdicts of a store: which of them count, the command, the panel.

python -m pytest tests/test_agreement_store.py
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from made_generation import add_face
from sqlmodel import Session, select
from typer.testing import CliRunner

from annotation.__main__ import app
from annotation.agreement.agreement import measure_agreement
from annotation.agreement.agreement_view import agreement_html
from annotation.agreement.coefficients import Measure
from annotation.agreement.ratings import Ratings
from annotation.database import writing
from annotation.models import Action, DecisionInput, Image, Pair
from annotation.store import Store
from facellm.data import Attribute

A, E, R = Action.ACCEPT, Action.EDIT, Action.REJECT


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    yield opened
    opened.close()


def add_pairs(store: Store, faces: int, attributes: list[Attribute | None], **labels: str) -> list[int]:
    """Pairs that two reviewers are to decide; their ids, face by face."""
    with writing(store._engine) as session:
        return [
            _pair(session, face, attribute, labels)
            for face in [add_face(session, **labels) for _ in range(faces)]
            for attribute in attributes
        ]


def _pair(session: Session, face: int, attribute: Attribute | None, labels: dict[str, str]) -> int:
    row = {"image_id": face, "attribute": attribute, "question": "What?", "answer": "An answer.", "overlap": 2}
    pair = Pair.model_validate(row | labels | {"teacher": "teacher", "prompt_version": "1"})
    session.add(pair)
    session.flush()
    return pair.id or 0


def decide(
    store: Store, pair: int, who: str, action: Action, *, may_settle: bool = False, others: int | None = None
) -> None:
    with writing(store._engine) as session:
        sha256 = session.exec(select(Image.sha256).join(Pair).where(Pair.id == pair)).one()
    fields = {"text": "Another answer."} if action is Action.EDIT else {}
    fields |= {"note": "Look at it."} if action is Action.FLAG else {}
    own = len([event for event in store.events(pair) if event.reviewer == who])
    about = {"uuid": uuid4(), "pair_id": pair, "image_sha256": sha256, "revision": own, "others": others}
    store.decide(who, DecisionInput.model_validate(about | {"action": action} | fields), may_settle=may_settle)


def table(ratings: Ratings) -> list[tuple[int, str, str]]:
    """(item, reviewer, category) of each rating, in order."""
    rows = zip(ratings.item, ratings.reviewer, ratings.category, strict=True)
    return sorted((int(item), ratings.reviewers[who], ratings.categories[what]) for item, who, what in rows)


def test_only_verdicts_count_of_pairs_that_two_have_decided(store: Store) -> None:
    agreed, alone, skipped, flagged, settled, free = add_pairs(store, 6, [Attribute.SKIN])[:5] + add_pairs(
        store, 1, [None]
    )
    decide(store, agreed, "ann", A)
    decide(store, agreed, "ben", A)
    decide(store, alone, "ann", A)
    decide(store, skipped, "ann", A)
    decide(store, skipped, "ben", Action.SKIP)
    decide(store, flagged, "ann", R)
    decide(store, flagged, "ben", Action.FLAG)
    decide(store, settled, "ann", A)
    decide(store, settled, "ben", R)
    decide(store, settled, "carol", R, may_settle=True, others=2)
    decide(store, free, "ben", E)
    decide(store, free, "ann", R)
    ratings = store.ratings()
    assert table(ratings) == [
        (0, "ann", "accept"),
        (0, "ben", "accept"),
        (1, "ann", "accept"),
        (1, "ben", "reject"),
        (2, "ann", "reject"),
        (2, "ben", "edit"),
    ]
    assert ratings.groups["attribute"].tolist() == ["skin", "skin", "free question"]


def test_what_is_decided_in_sight_of_others_does_not_count(store: Store) -> None:
    both, one = add_pairs(store, 2, [Attribute.SKIN])
    with writing(store._engine) as session:
        session.get_one(Pair, one).overlap = 1
    for pair in (both, one):
        decide(store, pair, "ben", A)
    decide(store, both, "carol", A)
    decide(store, both, "ann", R, others=2)
    decide(store, one, "ann", R, others=1)
    assert table(store.ratings()) == [(0, "ben", "accept"), (0, "carol", "accept")]


def test_a_decision_taken_back_does_not_count(store: Store) -> None:
    (pair,) = add_pairs(store, 1, [Attribute.SKIN])
    decide(store, pair, "ann", A)
    decide(store, pair, "ben", R)
    last = store.events(pair)[-1]
    with writing(store._engine) as session:
        sha256 = session.exec(select(Image.sha256)).one()
    about = {"uuid": uuid4(), "pair_id": pair, "image_sha256": sha256, "revision": 1, "others": None}
    store.decide("ben", DecisionInput.model_validate(about | {"action": Action.UNDO, "undoes": last.uuid}))
    assert store.ratings().items == 0


def reviewed(store: Store) -> None:
    """48 faces of two attributes, whose reviewers disagree about some."""
    rng = np.random.default_rng(0)
    pairs = add_pairs(store, 40, [Attribute.SKIN, Attribute.POSE], race="Black", gender="Female", age="20-29")
    pairs += add_pairs(store, 8, [Attribute.SKIN, Attribute.POSE], race="White", gender="Male", age="20-29")
    for pair in pairs:
        first = rng.choice([A, A, A, E, R])
        second = first if rng.random() < 0.8 else A
        decide(store, pair, "ann", Action(first))
        decide(store, pair, "ben <i>", Action(second))


def test_the_command_and_the_panel_show_the_same(store: Store) -> None:
    reviewed(store)
    done = CliRunner().invoke(app, ["agreement", "--json"])
    numbers = json.loads(done.stdout)
    assert numbers["total"]["pairs"] == 96
    assert numbers["total"]["faces"] == 48
    assert [row["name"] for row in numbers["tables"]["race"]] == ["White", "Black"]
    assert numbers["tables"]["race"][0]["estimates"]["ac1"]["why"] == "not measured, fewer than 20 faces"
    ac1 = numbers["total"]["estimates"]["ac1"]
    assert ac1["low"] < ac1["value"] < ac1["high"]
    said = f"{ac1['value']:.2f} [{ac1['low']:.2f}, {ac1['high']:.2f}]"
    text = CliRunner().invoke(app, ["agreement"]).stdout
    assert re.search(rf"^all .*{re.escape(said)}$", text, re.MULTILINE)
    page = agreement_html(measure_agreement(store.ratings()))
    assert said in re.sub("<[^>]*>", "", page)
    assert "ann and ben &lt;i&gt;" not in page, "two reviewers make one row, which the first table has already"
    assert "By attribute" in page
    assert "Not measured, fewer than 20 faces: White (8), Male (8)." in text


def test_two_verdicts_instead_of_three(store: Store) -> None:
    reviewed(store)
    three, two = (
        json.loads(CliRunner().invoke(app, ["agreement", "--json", *more]).stdout)["tables"]["attribute"]
        for more in ([], ["--two"])
    )
    assert set(three[0]["verdicts"]) == {"accept", "edit", "reject"}
    assert set(two[0]["verdicts"]) == {"kept", "reject"}
    assert two[0]["estimates"]["percent"]["value"] >= three[0]["estimates"]["percent"]["value"]


def test_without_verdicts_it_says_what_to_do(store: Store) -> None:
    done = CliRunner().invoke(app, ["agreement"])
    assert done.exit_code == 0
    assert done.stdout == ""
    assert "Set the overlap of some pairs to 2" in done.stderr
    assert "No pair has verdicts of two reviewers yet" in agreement_html(measure_agreement(store.ratings()))


def test_names_in_the_panel_are_text(store: Store) -> None:
    (pair,) = add_pairs(store, 1, [Attribute.SKIN])
    decide(store, pair, "ann", A)
    decide(store, pair, "ben <i>", A)
    (other,) = add_pairs(store, 1, [Attribute.SKIN])
    decide(store, other, "ann", A)
    decide(store, other, "carol", A)
    found = measure_agreement(store.ratings())
    assert found.total.estimates[Measure.PERCENT].value == 1
    page = agreement_html(found)
    assert "ann and ben &lt;i&gt;" in page
    assert "<i>" not in page
