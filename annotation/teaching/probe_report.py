"""What the grounding probe found: how far a teacher looks, and how far it repeats what it was told.

    python -m annotation probe --model some-model --report

Two estimates for each label: how often an answer to a blank picture names the label all the same, and how often an
answer follows a false hint, against the picture. The one surprising fact: answers of one teacher resemble each other
whatever they are about, so the likeness of blank answers is given beside that of answers about different faces.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col, select

from annotation.checks.named_labels import LABEL_VALUES, is_named
from annotation.decisions import labels_of
from annotation.models import Attempt, Task, TaskState
from annotation.statistics.intervals import Mean, Share, mean, wilson
from annotation.teaching.ledger import Ledger
from annotation.teaching.probe import BLANK, WRONG, read_subject, stored_answers
from facellm.data import Attribute

GRAM = 3  # words


@dataclass(frozen=True)
class BlankRow:
    """What came of the blank picture for one attribute."""

    attribute: Attribute
    ends: dict[str, int]  # state of the task → tasks; ok: it was answered
    likeness: Mean | None  # of answers to the blank picture and to the face: word 3-grams, Jaccard
    other_faces: Mean | None  # of stored answers about two different faces


@dataclass(frozen=True)
class EchoRow:
    """How often one label is only repeated.

    Of the answers that came in spite of a false hint, some follow it, some name the true value, and the rest is
    unclear: it names neither, or both.
    """

    label: str
    attribute: Attribute | None  # None: all of them together
    blank: Share | None  # of answers to the blank picture whose twin names the label: those that name it, too
    declined: int  # questions with a false hint without an answer
    follows_hint: int
    follows_picture: int
    unclear: int
    echo: Share | None  # of answers after a false hint: those that follow it


@dataclass(frozen=True)
class ProbeReport:
    """What one teacher's probe has found."""

    teacher: str
    prompt_version: str
    parameters: str
    images: int
    blank: tuple[BlankRow, ...]
    echo: tuple[EchoRow, ...]


@dataclass(frozen=True)
class _Asked:
    """One question of the probe, and the stored answer that its own is compared with."""

    image_id: int
    attribute: Attribute
    subject: str
    state: TaskState
    answer: str
    stored: str
    labels: Mapping[str, str]


def probe_reports(ledger: Ledger, teacher: str | None = None) -> list[ProbeReport]:
    """What was found, for each teacher, prompt version and parameters.

    Args:
        ledger: of the answers.
        teacher: only of this one; None for all.
    """
    with ledger.reading() as session:
        groups = _groups(session, teacher)
    return [_report(*key, asked) for key, asked in sorted(groups.items())]


def likeness(one: str, other: str) -> float:
    """Jaccard's likeness of two texts by their runs of three words, from 0 to 1."""
    a, b = _grams(one), _grams(other)
    return len(a & b) / len(a | b) if a | b else 1.0


def _grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + GRAM]) for i in range(max(1, len(words) - GRAM + 1))}


def _groups(session: Session, teacher: str | None) -> Mapping[tuple[str, str, str], list[_Asked]]:
    query = select(Task, Attempt.raw).join(Attempt, col(Task.attempt_id) == Attempt.id, isouter=True)
    query = query.where(sa.or_(col(Task.subject) == BLANK, col(Task.subject).startswith(WRONG)))
    if teacher is not None:
        query = query.where(Task.teacher == teacher)
    rows: defaultdict[tuple[str, str, str], list[tuple[Task, str]]] = defaultdict(list)
    for task, raw in session.exec(query.order_by(col(Task.id))):
        if task.state is not TaskState.CLAIMED:
            rows[task.teacher, task.prompt_version, task.parameters].append((task, raw or ""))
    return {key: list(_asked(session, key, tasks)) for key, tasks in rows.items()}


def _asked(session: Session, key: tuple[str, str, str], tasks: Sequence[tuple[Task, str]]) -> Iterable[_Asked]:
    teacher, version, parameters = key
    ids = sorted({task.image_id for task, _ in tasks})
    stored, labels = stored_answers(session, teacher, parameters, ids), labels_of(session, ids)
    for task, raw in tasks:
        yield _Asked(
            task.image_id,
            task.attribute,
            task.subject,
            task.state,
            _own_answer(raw, task.attribute) if task.state is TaskState.OK else "",
            stored[task.image_id, version][task.attribute],
            labels[task.image_id],
        )


def _own_answer(raw: str, attribute: Attribute) -> str:
    """An attribute's own text in a reply to several."""
    try:
        found = json.loads(raw)
    except ValueError:
        return raw.strip()
    return str(found[attribute.value]) if isinstance(found, dict) and attribute.value in found else raw.strip()


def _report(teacher: str, version: str, parameters: str, asked: Sequence[_Asked]) -> ProbeReport:
    blank: defaultdict[Attribute, list[_Asked]] = defaultdict(list)
    wrong: defaultdict[str, list[_Asked]] = defaultdict(list)
    for one in asked:
        if one.subject == BLANK:
            blank[one.attribute].append(one)
        else:
            wrong[read_subject(one.subject)[0]].append(one)
    echo: list[EchoRow] = []
    for label in LABEL_VALUES:
        rows = [
            row
            for attribute in Attribute
            if (row := _echo(label, attribute, blank[attribute], [w for w in wrong[label] if w.attribute is attribute]))
        ]
        total = _echo(label, None, [one for of in blank.values() for one in of], wrong[label])
        echo += [*rows, *([total] if total and len(rows) > 1 else [])]
    return ProbeReport(
        teacher,
        version,
        parameters,
        len({one.image_id for one in asked}),
        tuple(_blank(attribute, blank[attribute]) for attribute in Attribute if blank[attribute]),
        tuple(echo),
    )


def _blank(attribute: Attribute, asked: Sequence[_Asked]) -> BlankRow:
    answered = [one for one in asked if one.state is TaskState.OK]
    neighbours = zip(asked, asked[1:], strict=False)
    return BlankRow(
        attribute,
        dict(Counter(one.state.value for one in asked)),
        mean([likeness(one.answer, one.stored) for one in answered]),
        mean([likeness(one.stored, other.stored) for one, other in neighbours]),
    )


def _echo(label: str, attribute: Attribute | None, blank: Sequence[_Asked], wrong: Sequence[_Asked]) -> EchoRow | None:
    """None where nothing was asked that tells of this label."""
    twins = [one for one in blank if one.state is TaskState.OK and _names(label, one, one.stored)]
    answered = [one for one in wrong if one.state is TaskState.OK]
    if not twins and not wrong:
        return None
    follows = Counter(_followed(one) for one in answered)
    # Answers about one image are not independent of each other.
    faces, faces_wrong = ({one.image_id for one in of} for of in (twins, answered))
    return EchoRow(
        label,
        attribute,
        wilson(sum(_names(label, one, one.answer) for one in twins), len(twins), independent=len(faces)),
        len(wrong) - len(answered),
        follows["hint"],
        follows["picture"],
        follows["unclear"],
        wilson(follows["hint"], len(answered), independent=len(faces_wrong)),
    )


def _names(label: str, one: _Asked, text: str) -> bool:
    value = one.labels.get(label)
    return value is not None and is_named(label, value, text)


def _followed(one: _Asked) -> str:
    label, false = read_subject(one.subject)
    hint, picture = is_named(label, false, one.answer), _names(label, one, one.answer)
    return "unclear" if hint == picture else "hint" if hint else "picture"
