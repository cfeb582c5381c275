"""The grounding probe: the same prompts again, once without the face and once with a false label as a hint.

    plan = ProbePlan(teacher="some-model", parameters=parameters.text, share=0.01)
    asyncio.run(Generation(store, teacher, plan, limits).run())

    python -m annotation probe --model some-model --share 0.01

A teacher is told what is known about a face, so a right answer does not prove that it has looked. What it answers to a
blank picture, and whether it follows a false hint, does; the answers are in the ledger and never become pairs. The one
surprising fact: a false hint is only tried where the stored answer names the true value, since elsewhere nothing could
be told from the new one.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import Session, col, select

from annotation.checks.named_labels import LABEL_VALUES, false_values, is_named
from annotation.decisions import labels_of
from annotation.models import Image, Pair, Purpose
from annotation.teaching.ledger import Identity, Ledger, find_subjects, may_be_asked
from annotation.teaching.plan import Count, Unit, count_units, may_be_sent
from annotation.teaching.prompts import COMBINED_VERSION, PROMPT_VERSION, instruction
from annotation.teaching.shares import drawn
from annotation.teaching.teacher_image import blank_url
from facellm.data import Attribute

BLANK = "blank"  # the subject of a question with a grey picture
WRONG = "wrong:"  # the beginning of the subject of a question with a false hint, such as wrong:gender=Female
VERSIONS = (PROMPT_VERSION, COMBINED_VERSION)  # prompts that can be told again
CHUNK = 100  # images in memory at a time


@dataclass(frozen=True)
class ProbeUnit(Unit):
    """One request of the probe; with a false hint, its labels hold the false value."""

    @property
    def falls_back(self) -> bool:
        """What gives no answer is an outcome, too."""
        return False

    def picture(self, data_dir: Path) -> str:
        """A grey one where the face is left out."""
        return blank_url() if self.identity.subject == BLANK else super().picture(data_dir)

    def keep(self, session: Session, attribute: Attribute, answer: str, run_id: int) -> int | None:  # noqa: ARG002
        """The ledger has it."""
        return None


@dataclass(frozen=True)
class ProbePlan:
    """Which images are probed.

    Args:
        teacher: the model, whose stored answers are compared with.
        parameters: canonical JSON, see `teacher.Parameters`; those of the stored answers.
        share: of the images that have such answers, from 0 to 1.
        excluded_ages: images with one of these age labels are left out.
    """

    teacher: str
    parameters: str
    share: float = 0.01
    excluded_ages: tuple[str, ...] = ()

    @property
    def purpose(self) -> Purpose:
        """Answers that never become pairs."""
        return Purpose.PROBE

    def units(self, ledger: Ledger, run_id: int | None = None) -> Iterator[list[ProbeUnit]]:
        """What is left to probe, see `plan.Work`."""
        with ledger.reading() as session:
            images = self._images(session)
        for start in range(0, len(images), CHUNK):
            with ledger.reading() as session:
                units = list(self._open(session, images[start : start + CHUNK], run_id))
            yield units

    def count(self, ledger: Ledger) -> Count:
        """How much is left to probe."""
        return count_units(self.units(ledger))

    def _images(self, session: Session) -> list[tuple[int, str, str]]:
        """(id, SHA-256, path) of the images of the share."""
        query = select(Image.id, Image.sha256, Image.path).join(Pair, col(Pair.image_id) == Image.id).distinct()
        query = query.where(*_stored(self.teacher, self.parameters), *may_be_sent(self.excluded_ages))
        images = [
            (image_id or 0, sha256, path) for image_id, sha256, path in session.exec(query.order_by(col(Image.id)))
        ]
        return drawn(images, lambda image: f"probe {image[1]}", share=self.share)

    def _open(
        self, session: Session, images: Sequence[tuple[int, str, str]], run_id: int | None
    ) -> Iterator[ProbeUnit]:
        ids = [image_id for image_id, *_ in images]
        labels = labels_of(session, ids)
        tasks = {version: find_subjects(session, self._identity("", version), ids) for version in VERSIONS}
        answers = stored_answers(session, self.teacher, self.parameters, ids)
        for image_id, sha256, path in images:
            for version in VERSIONS:
                for subject, told, attributes in _questions(sha256, labels[image_id], answers[image_id, version]):
                    identity = self._identity(subject, version)
                    left = [
                        each
                        for each in attributes
                        if may_be_asked(tasks[version].get((image_id, each, subject)), run_id)
                    ]
                    together = version == COMBINED_VERSION
                    for group in [left] if together and left else [[each] for each in left]:
                        yield ProbeUnit(image_id, path, told, tuple(group), identity, together)

    def _identity(self, subject: str, version: str) -> Identity:
        return Identity(subject, version, self.teacher, self.parameters)


def stored_answers(
    session: Session, teacher: str, parameters: str, image_ids: Sequence[int]
) -> Mapping[tuple[int, str], dict[Attribute, str]]:
    """(image, prompt version) → what is stored for it by this teacher, by attribute."""
    query = select(Pair).where(*_stored(teacher, parameters), col(Pair.image_id).in_(image_ids))
    answers: defaultdict[tuple[int, str], dict[Attribute, str]] = defaultdict(dict)
    for pair in session.exec(query.order_by(col(Pair.id))):
        if pair.attribute is not None:
            answers[pair.image_id, pair.prompt_version][pair.attribute] = pair.answer
    return answers


def told_parameters(ledger: Ledger, teacher: str) -> Counter[str]:
    """With which parameters this teacher has written pairs that can be probed: canonical JSON → pairs."""
    query = select(Pair.parameters).where(
        Pair.teacher == teacher, col(Pair.prompt_version).in_(VERSIONS), col(Pair.attribute).is_not(None)
    )
    with ledger.reading() as session:
        return Counter(session.exec(query))


def false_hint(sha256: str, name: str, value: str) -> str:
    """The value that is told in the place of a true one: the same for the same image."""
    return random.Random(f"probe {sha256} {name}").choice(false_values(name, value))


def wrong_subject(name: str, value: str) -> str:
    """The subject of a task with a false hint."""
    return f"{WRONG}{name}={value}"


def read_subject(subject: str) -> tuple[str, str]:
    """(label, false value) of such a subject."""
    name, _, value = subject.removeprefix(WRONG).partition("=")
    return name, value


def _questions(
    sha256: str, labels: dict[str, str], answers: Mapping[Attribute, str]
) -> Iterator[tuple[str, dict[str, str], list[Attribute]]]:
    """(subject, labels to tell, attributes) of everything that one image is asked with one prompt version."""
    yield BLANK, labels, [each for each in Attribute if each in answers]
    for name, values in LABEL_VALUES.items():
        if labels.get(name) not in values:
            continue
        false = false_hint(sha256, name, labels[name])
        told = labels | {name: false}
        telling = [
            each
            for each, text in answers.items()
            if instruction(each, told) != instruction(each, labels) and is_named(name, labels[name], text)
        ]
        yield wrong_subject(name, false), told, [each for each in Attribute if each in telling]


def _stored(teacher: str, parameters: str) -> list[sa.ColumnElement[bool]]:
    return [
        col(Pair.teacher) == teacher,
        col(Pair.parameters) == parameters,
        col(Pair.prompt_version).in_(VERSIONS),
        col(Pair.attribute).is_not(None),
    ]
