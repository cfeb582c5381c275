"""What is counted for a team: reviewers, progress, accept rates, the replay, and the commands that print it.

python -m pytest tests/test_team_numbers.py
"""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select, update
from typer.testing import CliRunner

from annotation.__main__ import app
from annotation.database import writing
from annotation.models import Action, Decision, Pair, Status, Verdict
from annotation.seed import seed
from annotation.store import Store
from annotation.team.reviewers import ReviewerQuality
from annotation.team.team_view import accepted_html, progress_html, rates_html, reviewers_html
from facellm.data import Attribute
from facellm.errors import StaleError
from tests.made_team import add_faces, decide

A, R, E, S, F = Action.ACCEPT, Action.REJECT, Action.EDIT, Action.SKIP, Action.FLAG


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    yield opened
    opened.close()


def quality(store: Store, name: str) -> ReviewerQuality:
    """One reviewer's numbers."""
    (found,) = [each for each in store.team.reviewers() if each.name == name]
    return found


# Reviewers


def test_decisions_times_and_fast_accepts(store: Store) -> None:
    add_faces(store, 2)
    for pair_id, milliseconds in enumerate((300, 699, 700, 2000), 1):
        decide(store, "ana", pair_id, A, milliseconds=milliseconds)
    decide(store, "ana", 5, R, milliseconds=100)
    decide(store, "ana", 6, E, text="Better.", milliseconds=9000)
    decide(store, "ana", 7, S)
    lot = "12345678-1234-4234-8234-123456789012"
    decide(store, "ana", 8, A, milliseconds=1, lot=lot)
    ana = quality(store, "ana")
    assert ana.actions == {"accept": 5, "edit": 1, "reject": 1, "skip": 1}
    assert ana.accept_rate is not None
    assert (ana.accept_rate.count, ana.accept_rate.of) == (5, 7)
    assert ana.seconds == pytest.approx((0.39975, 0.6995, 1.675)), "quartiles of the six that are no lot"
    assert ana.fast is not None
    assert (ana.fast.count, ana.fast.of, ana.fast_pairs) == (2, 4, [1, 2])
    assert sum(ana.days.values()) == 8
    undone = store.history("ana")[-1]
    decide(store, "ana", 1, Action.UNDO, undoes=undone.uuid)
    assert quality(store, "ana").fast_pairs == [2], "what was taken back is not listed"


def test_differences_and_settlements(store: Store) -> None:
    add_faces(store, 1)
    store.project.set_overlap("carol", 3)
    said: dict[int, dict[str, tuple[Action, str | None]]] = {
        1: {"ana": (A, None), "ben": (A, None), "cho": (R, None)},
        2: {"ana": (E, "x"), "ben": (E, "y")},
        3: {"ana": (A, None), "ben": (A, None)},
        4: {"ana": (A, None)},
        5: {"ana": (S, None), "ben": (A, None)},
    }
    for pair_id, by in said.items():
        for name, (action, text) in by.items():
            decide(store, name, pair_id, action, text=text)
    decide(store, "carol", 1, R, may_settle=True, closed=True)
    decide(store, "carol", 2, E, text="x", may_settle=True, closed=True)
    shares = {each.name: each for each in store.team.reviewers()}
    counts = {name: each.differs and (each.differs.count, each.differs.of) for name, each in shares.items()}
    assert counts == {"ana": (2, 4), "ben": (2, 4), "cho": (2, 2), "carol": None}
    against = {name: each.overruled and (each.overruled.count, each.overruled.of) for name, each in shares.items()}
    assert against == {"ana": (1, 2), "ben": (2, 2), "cho": (0, 1), "carol": None}


# Progress


def test_open_wanted_and_overlapped(store: Store) -> None:
    add_faces(store, 2)
    store.project.set_overlap("carol", 2)
    for name in ("ana", "ben"):
        decide(store, name, 1, A)
    decide(store, "ana", 2, A)
    decide(store, "ana", 3, S)
    decide(store, "ana", 4, F, note="Is this right?")
    decide(store, "ana", 5, A)
    decide(store, "ben", 5, R)
    found = store.team.progress()
    assert found.pairs == 16
    assert (found.open, found.curated, found.overlapped) == (13, 1, 16)
    assert (found.statuses[Status.FLAGGED], found.statuses[Status.DISPUTED]) == (1, 1)
    assert (found.verdicts, found.wanted) == (5, 2 * 13 - 1)


def set_times(store: Store, times: dict[int, datetime]) -> None:
    """When these pairs were decided."""
    with writing(store._engine) as session:
        for table in (Verdict, Decision):
            for pair_id, when in times.items():
                session.exec(update(table).where(col(table.pair_id) == pair_id).values(created_at=when))


def test_accepted_over_time(store: Store) -> None:
    add_faces(store, 1)
    start = datetime(2026, 11, 2, 10, 30, tzinfo=UTC)
    for pair_id in range(1, 5):
        decide(store, "ana", pair_id, R if pair_id == 4 else A)
    set_times(store, {1: start, 2: start + timedelta(minutes=20), 3: start + timedelta(days=3), 4: start})
    found = store.team.progress()
    assert found.accepted == {start.replace(minute=0): 2, start.replace(minute=0) + timedelta(days=3): 1}
    assert list(found.accepted_by("day").values()) == [2, 1]
    html = accepted_html(found)
    assert "per day" in html
    assert html.count("<rect") == 4, "days without anything have their place"
    set_times(store, {3: start + timedelta(hours=5)})
    assert "per hour" in accepted_html(store.team.progress())


def decided_faces(store: Store, rng: random.Random, rejected: dict[str, float]) -> None:
    """60 faces of each of these races, whose pairs are rejected so often, written at once."""
    for place, race in enumerate(rejected):
        add_faces(store, 60, first=60 * place, race=race, gender=("Male", "Female")[place % 2], age="20-29")
    with writing(store._engine) as session:
        for pair in session.exec(select(Pair)):
            pair.status = Status.REJECTED if rng.random() < rejected[pair.race] else Status.ACCEPTED
            session.add(pair)


def test_groups_that_are_rejected_more_often_stand_out(store: Store) -> None:
    decided_faces(store, random.Random(1), {"White": 0.1, "Black": 0.25, "Indian": 0.1})
    found = store.team.progress().rates
    assert {rate.name for rate in found["race"] if rate.stands_out} == {"Black"}
    assert [rate.name for rate in found["race"]] == ["White", "Black", "Indian"]
    assert [rate.name for rate in found["attribute"]] == list(Attribute)
    assert not any(rate.stands_out for rate in found["attribute"])
    assert [(rate.name, rate.share.of) for rate in found["age"]] == [("20-29", 1440)]
    black = found["race"][1]
    assert black.rejections is not None
    assert black.rejections.ratio == pytest.approx(2.5, abs=0.6)
    assert "race Black: rejected " in rates_html(store.team.progress())


def test_equal_groups_raise_no_alarm(data_dir: Path) -> None:
    alarms = 0
    for number in range(6):
        store = Store.open(data_dir / str(number))
        decided_faces(store, random.Random(number), {"White": 0.15, "Black": 0.15, "Indian": 0.15})
        alarms += any(rate.stands_out for rates in store.team.progress().rates.values() for rate in rates)
        store.close()
    assert alarms <= 1


def test_nothing_there_is_said_so(store: Store) -> None:
    progress, audits = store.team.progress(), store.audits.estimate()
    assert "No pairs yet" in progress_html(progress, audits)
    assert "Nothing is accepted yet" in accepted_html(progress)
    assert "Nothing is decided yet" in rates_html(progress)
    assert "Nobody has decided anything" in reviewers_html(store.team.reviewers())


def test_names_cannot_break_the_page(store: Store) -> None:
    add_faces(store, 1)
    for pair_id in range(1, 9):
        decide(store, "<b>eve</b>", pair_id, A, milliseconds=5)
    html = reviewers_html(store.team.reviewers())
    assert "<b>eve" not in html
    assert "has accepted 8 pairs in under 700 ms: 1, 2, 3, 4, 5, 6, 7, 8." in html


# Replay


def test_everything_replays(store: Store) -> None:
    """200 random decisions of four people, with undoes, flags and settlements."""
    rng = random.Random(9)
    add_faces(store, 6)
    store.project.set_overlap("carol", 2, 0.5)
    for _ in range(200):
        name, pair_id = rng.choice(("ana", "ben", "cho", "carol")), rng.randint(1, 48)
        action = rng.choice((A, A, A, R, E, S, F, Action.UNDO))
        more: dict[str, Any] = {E: {"text": rng.choice("xy")}, F: {"note": "?"}}.get(action, {})
        if action is Action.UNDO:
            if not (events := [each for each in store.history(name) if each.pair_id == pair_id]):
                continue
            more = {"undoes": events[0].uuid}
        try:
            decide(store, name, pair_id, action, may_settle=name == "carol", closed=True, **more)
        except StaleError as error:
            assert "has settled this pair" in str(error)
    replay = store.team.replay()
    assert (replay.pairs, replay.differing, replay.differences) == (48, 0, ())
    assert replay.events > 120
    assert replay.statuses == store.team.progress().statuses
    assert len([status for status, number in replay.statuses.items() if number]) >= 5


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"status": Status.REJECTED}, "status"),
        ({"text": "Other."}, "text"),
        ({"verdicts": 2}, "verdicts"),
        ({"revision": 7}, "revision"),
    ],
)
def test_what_is_stored_otherwise_is_found(store: Store, values: dict[str, Any], what: str) -> None:
    add_faces(store, 1)
    decide(store, "ana", 3, A)
    with writing(store._engine) as session:
        session.exec(update(Pair).where(col(Pair.id) == 3).values(**values))
    replay = store.team.replay()
    assert (replay.differing, [(each.pair_id, each.what) for each in replay.differences]) == (1, [(3, what)])


def test_a_missing_or_invented_verdict_is_found(store: Store) -> None:
    add_faces(store, 1)
    decide(store, "ana", 3, A)
    decide(store, "ana", 4, A)
    with writing(store._engine) as session:
        session.delete(session.get(Verdict, (3, "ana")))
        session.exec(update(Verdict).where(col(Verdict.pair_id) == 4).values(reviewer="eve"))
    whats = [(each.pair_id, each.what) for each in store.team.replay().differences]
    assert whats == [(3, "verdict of ana"), (4, "verdict of ana"), (4, "verdict of eve")]


# Commands


def run(*words: str) -> str:
    """What a command prints that succeeds."""
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_commands_print_it(store: Store) -> None:
    seed(store, 6)
    assert "48 pairs, 16 open" in run("progress")
    numbers = json.loads(run("progress", "--json"))
    assert (numbers["pairs"], numbers["open"]) == (48, 16)
    assert sum(numbers["accepted_by_hour"].values()) == numbers["curated"]
    assert run("reviewers").splitlines()[1].split()[:2] == ["demo", "32"]
    (demo,) = json.loads(run("reviewers", "--json"))["reviewers"]
    assert (demo["name"], demo["decisions"]) == ("demo", 32)
    assert "32 events of 48 pairs give" in run("replay")
    assert json.loads(run("replay", "--json"))["differing"] == 0
    assert "5 pairs drawn" in run("audit", "draw", "5", "--as", "carol")
    assert "5 drawn pairs wait" in run("audit", "list")
    listed = json.loads(run("audit", "list", "--json"))
    assert [audit["drawn_by"] for audit in listed["audits"]] == ["carol"] * 5
    assert "1 pairs drawn" in run("audit", "draw", "1", "--filter", "attribute=pose")
    assert "audit of attribute=pose: 1 drawn pairs wait" in run("audit", "list")
    assert "100% of the pairs want 2, the others 1: 16 pairs were changed." in run("overlap", "2")
    assert "48 pairs were changed" not in run("overlap", "2", "--decided")
    assert store.project.read().overlap == 2


def test_replay_fails_where_something_differs(store: Store) -> None:
    seed(store, 3)
    with writing(store._engine) as session:
        session.exec(update(Pair).where(col(Pair.id) == 1).values(status=Status.FLAGGED))
    done = CliRunner().invoke(app, ["replay"])
    assert done.exit_code == 1
    assert "1 pairs are stored otherwise." in done.output
    assert "pair 1: status is flagged, replayed" in done.output
