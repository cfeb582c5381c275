"""Flags: what the check command writes, keeps and takes away, and the order in which pairs then come.

python -m pytest tests/test_flags.py
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from annotation.checks.checking import CHECKS, run_checks
from annotation.checks.findings import Finding
from annotation.models import Action, DecisionInput, ImageInput, PairInput, Severity, Status
from annotation.pair_filter import PENDING, PairFilter
from annotation.review_queue import Order
from annotation.store import PairView, Store
from facellm.data import Attribute

MOSTLY_ON_SQLITE = True
ROOT = Path(__file__).resolve().parent.parent
LABELS = {"age": "20-29", "gender": "Female", "race": "Indian"}
RIGHT = "She is an Indian woman in her twenties."
WRONG = "He is an Indian man in his twenties."
VERY_WRONG = "According to the label, he is a White man in his fifties."
REFUSED = "I'm sorry, I can't help with that."


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    yield opened
    opened.close()


def add(store: Store, answers: Sequence[str], *, check: bool = False) -> None:
    """A pair about an image of its own for each answer; their ids count up from 1."""
    first = store.image_count()
    images = [
        ImageInput(
            sha256=f"{number:064x}",
            path=f"images/{number}.png",
            width=1,
            height=1,
            bytes=1,
            source="test",
            labels=LABELS,
            label_source="fairface",
            pairs=(
                PairInput(
                    attribute=Attribute.DEMOGRAPHIC, question="?", answer=answer, teacher="t", prompt_version="1"
                ),
            ),
        )
        for number, answer in enumerate(answers, start=first)
    ]
    store.ingest(images, check=check)


def view_of(store: Store, pair_id: int) -> PairView:
    (view,) = store.pairs([pair_id])
    return view


def decide(store: Store, pair_id: int, action: Action, *, text: str | None = None, undoes: str | None = None) -> str:
    view, uuid = view_of(store, pair_id), uuid4()
    decision = DecisionInput(
        uuid=uuid,
        pair_id=pair_id,
        image_sha256=view.image.sha256,
        revision=view.pair.revision,  # all decisions here are ana's
        others=0,
        action=action,
        text=text,
        undoes=None if undoes is None else undoes,
    )
    store.decide("ana", decision)
    return str(uuid)


def checks_of(store: Store, pair_id: int) -> list[str]:
    return [flag.check for flag in view_of(store, pair_id).flags]


@pytest.mark.both_databases
def test_a_run_writes_flags_whose_spans_lie_in_the_answer(store: Store) -> None:
    add(store, [RIGHT, WRONG, VERY_WRONG, REFUSED])
    assert store.flagged_count() == 0
    done: list[int] = []
    report = run_checks(store, on_progress=done.append)
    assert (report.pairs, report.flagged, done) == (4, 3, [4])
    assert {name: pairs for name, pairs in report.checks.items() if pairs} == {
        "refusal": 1,
        "contradiction": 2,
        "leak": 1,
    }
    assert checks_of(store, 1) == []
    (flag,) = view_of(store, 2).flags
    assert (flag.check, flag.severity, WRONG[flag.span_start : flag.span_end]) == (
        "contradiction",
        Severity.ERROR,
        "He",
    )
    assert sorted(set(checks_of(store, 3))) == ["contradiction", "leak"]
    assert checks_of(store, 4) == ["refusal"]
    assert store.flag_counts() == {"contradiction": 2, "leak": 1, "refusal": 1}


@pytest.mark.both_databases
def test_again_nothing_changes_and_what_no_longer_fires_is_gone(store: Store) -> None:
    add(store, [WRONG, VERY_WRONG])
    run_checks(store)
    before = {flag.id: flag.created_at for pair in (1, 2) for flag in view_of(store, pair).flags}
    run_checks(store)
    assert {flag.id: flag.created_at for pair in (1, 2) for flag in view_of(store, pair).flags} == before
    old = Finding("leak", Severity.INFO, "An earlier version of the check said so.")
    store.replace_flags(("leak",), {1: [old]}, {1: 0})
    assert checks_of(store, 1) == ["contradiction", "leak"]
    run_checks(store, ("contradiction",))
    assert checks_of(store, 1) == ["contradiction", "leak"], "other checks' flags stay"
    run_checks(store, ("leak",))
    assert checks_of(store, 1) == ["contradiction"]
    assert set(before) == {flag.id for pair in (1, 2) for flag in view_of(store, pair).flags}


@pytest.mark.both_databases
def test_flags_follow_the_text_that_stands(store: Store) -> None:
    add(store, [WRONG, RIGHT])
    run_checks(store)
    edit = decide(store, 1, Action.EDIT, text=RIGHT)
    assert checks_of(store, 1) == []
    decide(store, 1, Action.UNDO, undoes=edit)
    assert checks_of(store, 1) == ["contradiction"]
    decide(store, 2, Action.EDIT, text=f"🙂 Yes. {WRONG}")
    (flag,) = view_of(store, 2).flags
    assert view_of(store, 2).answer[flag.span_start : flag.span_end] == "He"
    run_checks(store)
    assert [one.id for one in view_of(store, 2).flags] == [flag.id], "the edited text was checked, not the draft"
    decide(store, 2, Action.REJECT)  # the draft stands again
    assert checks_of(store, 2) == []


@pytest.mark.both_databases
def test_a_decision_during_a_check_is_not_overwritten(store: Store) -> None:
    add(store, [WRONG])
    (seen,) = store.checkable()
    decide(store, 1, Action.EDIT, text=RIGHT)
    finding = Finding("contradiction", Severity.ERROR, "About the draft.", 0, 2)
    assert store.replace_flags(CHECKS, {1: [finding]}, {1: seen.revision}) == {1}
    assert checks_of(store, 1) == []


@pytest.mark.both_databases
def test_reviewers_go_on_while_all_pairs_are_checked(store: Store, data_dir: Path, database: str) -> None:
    add(store, [WRONG, RIGHT] * 600)
    second = Store.open(data_dir, database)
    checker = threading.Thread(target=run_checks, args=(second,))
    checker.start()
    edited = 0
    while checker.is_alive() or edited < 10:
        edited += 1
        decide(store, 2 * edited - 1, Action.EDIT, text=RIGHT)
    checker.join()
    second.close()
    for pair in range(1, 1201):
        assert checks_of(store, pair) == (["contradiction"] if pair % 2 and pair > 2 * edited else []), pair


def test_pairs_can_be_flagged_as_they_come_in(store: Store) -> None:
    add(store, [WRONG], check=True)
    add(store, [VERY_WRONG])
    assert checks_of(store, 1) == ["contradiction"]
    assert checks_of(store, 2) == []


def walk(store: Store, order: Order, size: int, **fields: Any) -> list[int]:
    """All pairs of a filter in an order, page by page as the desk fetches them."""
    shown: list[int] = []
    which = PairFilter(**({"status": (Status.PENDING,)} | fields))
    while page := store.browse(which, order, exclude=shown, limit=size):
        shown += [view.pair.id or 0 for view in page]
    return shown


@pytest.mark.both_databases
@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_the_most_suspicious_come_first_and_each_pair_once(store: Store, size: int) -> None:
    add(store, [RIGHT, WRONG, RIGHT, VERY_WRONG, WRONG, RIGHT, REFUSED])
    run_checks(store)
    assert walk(store, Order.IMAGE, size) == [1, 2, 3, 4, 5, 6, 7]
    assert walk(store, Order.SUSPICIOUS, size) == [4, 2, 5, 7, 1, 3, 6]
    assert walk(store, Order.SUSPICIOUS, size, flag="any") == [4, 2, 5, 7]
    decide(store, 2, Action.ACCEPT)
    assert walk(store, Order.SUSPICIOUS, size) == [4, 5, 7, 1, 3, 6]
    assert walk(store, Order.SUSPICIOUS, size, flag="any", status=(Status.ACCEPTED,)) == [2]
    assert store.counts(flagged=True)[Attribute.DEMOGRAPHIC] == dict.fromkeys(Status, 0) | {
        Status.PENDING: 3,
        Status.ACCEPTED: 1,
    }
    assert [view.pair.id for view in store.browse(PENDING, Order.SUSPICIOUS, exclude=[4, 5], limit=2)] == [7, 1]


@pytest.mark.both_databases
def test_severity_outweighs_number(store: Store) -> None:
    add(store, [RIGHT] * 3)
    note, warning, error = (Finding("x", severity, "A reason.") for severity in Severity)
    store.replace_flags(("x",), {1: [note] * 3, 2: [warning] * 3, 3: [error]}, {1: 0, 2: 0, 3: 0})
    assert walk(store, Order.SUSPICIOUS, 2, flag="any") == [3, 2, 1]


def check_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "annotation", "check", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_prints_counts_and_refuses_what_is_no_check(store: Store) -> None:
    add(store, [RIGHT, VERY_WRONG])
    table = check_command()
    assert table.returncode == 0, table.stderr
    assert "2 pairs checked in" in table.stdout
    assert ["leak", "1", "1", "0", "0"] in [line.split() for line in table.stdout.splitlines()]
    numbers = json.loads(check_command("--checks", "leak, refusal", "--json").stdout)
    assert (numbers["pairs"], numbers["flagged"], numbers["checks"]) == (2, 1, {"refusal": 0, "leak": 1})
    assert numbers["severities"]["leak"] == {"info": 0, "warning": 0, "error": 1}
    assert checks_of(store, 2).count("contradiction") == 3, "flags of other checks stay"
    refused = check_command("--checks", "leek")
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines() == [
        f"error: There is no check “leek”. Expected some of: {', '.join(CHECKS)}."
    ]
