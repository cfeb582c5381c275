"""Runs, claims and plans: each question is asked once, whoever dies when."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlmodel import select, update

from annotation.exchanges import CHAT
from annotation.models import (
    Attempt,
    AttemptState,
    GenerationRun,
    ImageInput,
    PairInput,
    Purpose,
    RunState,
    Task,
    TaskState,
)
from annotation.store import Store
from annotation.teaching.dry_run import estimate_plan
from annotation.teaching.generate import Limits
from annotation.teaching.ledger import claim, end_tasks
from annotation.teaching.plan import Plan
from annotation.teaching.prompts import PROMPT_VERSION
from annotation.teaching.teacher import Parameters
from facellm.data import Attribute

AGES = ["0-2", "20-29", "20-29", "30-39"]
PLAN = Plan(teacher="big", parameters="{}", attributes=(Attribute.POSE, Attribute.SKIN))


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    """Four labelled images, and one that a visitor sent."""
    store = Store.open(data_dir, database)
    images = [image(number, labels={"age": age}) for number, age in enumerate(AGES)]
    store.ingest([*images, image(9, source=CHAT)])
    yield store
    store.close()


def image(number: int, *, labels: dict[str, str] | None = None, source: str = "test", **more: object) -> ImageInput:
    fields = {"sha256": f"{number:064x}", "path": f"images/{number}.png", "width": 8, "height": 8, "bytes": 9}
    return ImageInput.model_validate(fields | {"source": source, "labels": labels or {}, "label_source": "test"} | more)


def start(store: Store) -> int:
    return store.ledger.start_run(Purpose.GENERATE, "big", "http://127.0.0.1:9/v1", {}).id or 0


def left(store: Store, plan: Plan = PLAN, run_id: int | None = None) -> list[tuple[int, tuple[str, ...], bool]]:
    units = [unit for chunk in plan.units(store.ledger, run_id) for unit in chunk]
    return [(unit.image_id, tuple(each.value for each in unit.attributes), unit.combined) for unit in units]


def take(store: Store, run_id: int, image_id: int = 1, plan: Plan = PLAN, *, combined: bool = False) -> list[Attribute]:
    with store.ledger.writing() as session:
        return claim(session, run_id, plan.identity(combined=combined), image_id, plan.attributes)


def end(
    store: Store, run_id: int, states: dict[Attribute, TaskState], plan: Plan = PLAN, *, combined: bool = False
) -> None:
    with store.ledger.writing() as session:
        end_tasks(session, run_id, plan.identity(combined=combined), 1, states, None, {})


def make_dead(store: Store, run_id: int) -> None:
    """As after a kill -9: the row stays, the process is gone."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(process.pid).create_time()
    process.kill()
    process.wait()
    with store.ledger.writing() as session:
        values = {"pid": process.pid, "process_started": started}
        session.exec(update(GenerationRun).where(GenerationRun.id == run_id).values(**values))


def test_a_plan_asks_each_image_but_not_what_visitors_sent(store: Store) -> None:
    assert left(store) == [(number, (name,), False) for number in (1, 2, 3, 4) for name in ("pose", "skin")]
    assert (PLAN.count(store.ledger).images, PLAN.count(store.ledger).total) == (4, 8)


def test_ages_and_a_limit_leave_images_out(store: Store) -> None:
    adults = Plan("big", "{}", (Attribute.POSE,), excluded_ages=("0-2", "30-39"))
    assert [number for number, *_ in left(store, adults)] == [2, 3]
    assert [number for number, *_ in left(store, Plan("big", "{}", (Attribute.POSE,), limit=2))] == [1, 2]


def test_a_pair_that_is_there_is_not_asked_for(store: Store) -> None:
    pair = PairInput(
        attribute=Attribute.POSE,
        question="?",
        answer="!",
        teacher="big",
        prompt_version=PROMPT_VERSION,
        parameters="{}",
    )
    store.ingest([image(0, pairs=(pair,))])
    assert (1, ("pose",), False) not in left(store)
    assert (1, ("skin",), False) in left(store)


def test_two_runs_do_not_take_the_same(store: Store) -> None:
    first, second = start(store), start(store)
    assert take(store, first) == [Attribute.POSE, Attribute.SKIN]
    assert take(store, second) == []
    assert take(store, second, 2) == [Attribute.POSE, Attribute.SKIN]


def test_an_end_is_final_and_a_failure_is_asked_by_the_next_run(store: Store) -> None:
    run = start(store)
    take(store, run)
    end(store, run, {Attribute.POSE: TaskState.REFUSED, Attribute.SKIN: TaskState.FAILED})
    assert take(store, run) == []
    assert not [unit for unit in left(store, run_id=run) if unit[0] == 1]
    assert [unit for unit in left(store) if unit[0] == 1] == [(1, ("skin",), False)]
    assert take(store, start(store)) == [Attribute.SKIN]
    (row,) = [each for each in store.ledger.runs() if each.id == run]
    assert row.finished == 2


def test_what_was_asked_together_in_vain_is_asked_alone(store: Store) -> None:
    plan = Plan("big", "{}", PLAN.attributes, per_image=True, limit=1)
    assert left(store, plan) == [(1, ("pose", "skin"), True)]
    run = start(store)
    take(store, run, plan=plan, combined=True)
    end(store, run, {Attribute.POSE: TaskState.OK, Attribute.SKIN: TaskState.FALLBACK}, plan, combined=True)
    assert left(store, plan) == [(1, ("skin",), False)]
    assert take(store, run, plan=Plan("big", "{}", (Attribute.SKIN,))) == [Attribute.SKIN]
    end(store, run, {Attribute.SKIN: TaskState.REFUSED}, Plan("big", "{}", (Attribute.SKIN,)))
    assert left(store, plan) == []


def test_the_tasks_of_a_dead_run_are_free_and_in_the_ledger(store: Store) -> None:
    run = start(store)
    take(store, run)
    assert store.ledger.bury_dead_runs() == 0
    make_dead(store, run)
    assert store.ledger.bury_dead_runs() == 1
    (row,) = store.ledger.runs()
    assert (row.state, row.message) == (RunState.FAILED, "Its process ended.")
    with store.ledger.reading() as session:
        assert [each.state for each in session.exec(select(Attempt))] == [AttemptState.LOST, AttemptState.LOST]
    assert take(store, start(store)) == [Attribute.POSE, Attribute.SKIN]


def test_a_run_that_stops_gives_back_what_it_did_not_ask(store: Store) -> None:
    run = start(store)
    take(store, run)
    store.ledger.end_run(run, RunState.STOPPED, "Enough.")
    assert len(left(store)) == 8
    with store.ledger.reading() as session:
        assert session.exec(select(Task)).all() == []


def test_a_wish_to_stop_reaches_the_run(store: Store) -> None:
    run = store.ledger.start_run(Purpose.GENERATE, "big", "http://127.0.0.1:9/v1", {})
    assert store.ledger.is_alive(run)
    assert store.ledger.beat(run.id or 0) is False
    store.ledger.request_stop(run.uuid)
    assert store.ledger.beat(run.id or 0) is True


def test_an_acknowledgement_is_asked_for_once(store: Store) -> None:
    assert not store.ledger.acknowledged("policy")
    store.ledger.acknowledge("policy", "ada")
    store.ledger.acknowledge("policy", "bob")
    assert store.ledger.acknowledged("policy")


def test_a_dry_run_counts_what_will_be_asked_alone_by_what_was(store: Store) -> None:
    store.ingest([image(100 + number) for number in range(36)])
    plan = Plan("big", "{}", PLAN.attributes, per_image=True)
    run = start(store)
    with store.ledger.writing() as session:
        for unit in [unit for chunk in plan.units(store.ledger) for unit in chunk][:30]:
            claim(session, run, unit.identity, unit.image_id, unit.attributes)
            fell = unit.image_id % 2
            states = {Attribute.POSE: TaskState.OK, Attribute.SKIN: TaskState.FALLBACK if fell else TaskState.OK}
            end_tasks(session, run, unit.identity, unit.image_id, states, None, {})
            if fell:
                alone = unit.alone(Attribute.SKIN)
                claim(session, run, alone.identity, unit.image_id, alone.attributes)
                end_tasks(session, run, alone.identity, unit.image_id, {Attribute.SKIN: TaskState.OK}, None, {})
    assert plan.count(store.ledger).requests == 10
    assert estimate_plan(store, plan, Parameters(), Limits()).requests == 15
