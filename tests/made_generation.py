"""Rows of generation as tests need them: faces with labels, runs, tasks, attempts, pairs, flags."""

import json
import random
import socket
from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import uuid4

from sqlmodel import Session, SQLModel

from annotation.database import writing
from annotation.models import (
    Attempt,
    AttemptState,
    Flag,
    GenerationRun,
    Image,
    Label,
    Pair,
    Purpose,
    Severity,
    Task,
    TaskState,
)
from annotation.store import Store
from facellm.data import Attribute

Row = TypeVar("Row", bound=SQLModel)
TEACHER = "teacher-1"


def _added(session: Session, row: Row) -> Row:
    session.add(row)
    session.flush()
    return row


def add_face(session: Session, *, image: int | None = None, source: str = "fairface", **labels: str) -> int:
    """An image without a file, with these labels, or more labels for one that is there; its id."""
    if image is None:
        row = {"sha256": uuid4().hex * 2, "path": "none.png", "width": 8, "height": 8, "bytes": 1, "source": "test"}
        image = _added(session, Image.model_validate(row)).id or 0
    for name, value in labels.items():
        label = {"image_id": image, "name": name, "value": value, "source": source}
        _added(session, Label.model_validate(label))
    return image


def add_run(session: Session, **fields: Any) -> GenerationRun:
    """A run of a process that is gone, unless told otherwise."""
    usual = {
        "uuid": str(uuid4()),
        "host": socket.gethostname(),
        "pid": 1,
        "process_started": 0.0,
        "purpose": Purpose.GENERATE,
        "teacher": TEACHER,
        "base_url": "http://127.0.0.1:1/v1",
        "options": "{}",
    }
    return _added(session, GenerationRun.model_validate(usual | fields))


def add_pair(session: Session, image: int, attribute: Attribute) -> int:
    """A pending pair; its id."""
    row = {"image_id": image, "attribute": attribute, "question": attribute.question, "answer": "An answer."}
    return _added(session, Pair.model_validate(row | {"teacher": TEACHER, "prompt_version": "1"})).id or 0


def add_flag(session: Session, pair: int, check: str) -> None:
    """What a check has found."""
    row = {"pair_id": pair, "check": check, "severity": Severity.WARNING, "message": "Look."}
    _added(session, Flag.model_validate(row))


def add_task(
    session: Session,
    run: GenerationRun,
    image: int,
    attribute: Attribute,
    state: TaskState,
    pair: int | None = None,
    *,
    subject: str = "",
) -> None:
    """A task of a run."""
    row = {
        "image_id": image,
        "attribute": attribute,
        "subject": subject,
        "prompt_version": "1",
        "teacher": run.teacher,
        "parameters": "{}",
        "state": state,
        "run_id": run.id,
        "pair_id": pair,
    }
    _added(session, Task.model_validate(row))


def add_attempt(
    session: Session, run: GenerationRun, image: int, attributes: Sequence[Attribute], **fields: Any
) -> None:
    """A request that was answered."""
    row = {
        "uuid": str(uuid4()),
        "run_id": run.id,
        "image_id": image,
        "attributes": json.dumps([attribute.value for attribute in attributes]),
        "prompt_version": "1",
        "prompt_sha256": "0" * 64,
        "teacher": run.teacher,
        "parameters": "{}",
        "state": AttemptState.OK,
        "returned_model": f"{run.teacher}-dated",
    }
    _added(session, Attempt.model_validate(row | fields))


def biased(store: Store, *, rate: float = 0.4) -> None:
    """300 faces asked for two attributes: Middle Eastern women are refused far more often, old faces contradicted."""
    rng = random.Random(3)
    with writing(store._engine) as session:
        run = add_run(session)
        for number in range(300):
            race = ("White", "Middle Eastern", "Latino_Hispanic")[number % 3]
            gender = ("Male", "Female")[number // 3 % 2]
            age = ("20-29", "more than 70")[number // 6 % 2]
            image = add_face(session, race=race, gender=gender, age=age)
            shy = rng.random() < (rate if (race, gender) == ("Middle Eastern", "Female") else 0.04)
            for attribute in (Attribute.POSE, Attribute.SKIN):
                if shy:
                    add_task(session, run, image, attribute, TaskState.REFUSED)
                    continue
                pair = add_pair(session, image, attribute)
                add_task(session, run, image, attribute, TaskState.OK, pair)
                if age == "more than 70" and rng.random() < 0.3:
                    add_flag(session, pair, "contradiction")
                if rng.random() < 0.1:
                    add_flag(session, pair, "hedging")
