"""What is left to ask a teacher: a walk over the images that leaves out what was asked before.

Images that visitors sent to the chat are never part of a plan: they were not given to be sent on to somebody else.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from sqlmodel import Session, col, select

from annotation.decisions import labels_of
from annotation.exchanges import CHAT
from annotation.models import Image, Label, Pair, Purpose, TaskState
from annotation.teaching.drafts import add_pair
from annotation.teaching.ledger import Identity, Ledger, find_tasks, may_be_asked
from annotation.teaching.prompts import COMBINED_VERSION, PROMPT_VERSION, combined_instruction, instruction
from annotation.teaching.teacher import Ask
from annotation.teaching.teacher_image import teacher_url
from facellm.data import Attribute

CHUNK = 500  # images in memory at a time


@dataclass(frozen=True)
class Unit:
    """One request to be made: one attribute of an image, or several together."""

    image_id: int
    path: str  # relative to the data directory
    labels: dict[str, str]
    attributes: tuple[Attribute, ...]
    identity: Identity
    combined: bool

    @property
    def falls_back(self) -> bool:
        """Whether what it asks together in vain is asked alone."""
        return self.combined

    def alone(self, attribute: Attribute) -> "Unit":
        """The same for one attribute in a request of its own."""
        single = replace(self.identity, prompt_version=PROMPT_VERSION)
        return replace(self, attributes=(attribute,), identity=single, combined=False)

    def ask(self, attributes: tuple[Attribute, ...]) -> Ask:
        """What is asked about those of its attributes that could be claimed."""
        if self.combined:
            return Ask(attributes, combined_instruction(attributes, self.labels), combined=True)
        return Ask(attributes, instruction(attributes[0], self.labels), combined=False)

    def picture(self, data_dir: Path) -> str:
        """The picture that goes along, as a data URL.

        Raises:
            ImageError: the file is missing or cannot be decoded.
        """
        return teacher_url(data_dir / self.path)

    def keep(self, session: Session, attribute: Attribute, answer: str, run_id: int) -> int | None:
        """Keep an answer, in the transaction that ends its task; return the pair that came of it, if one did."""
        return add_pair(session, self.image_id, self.labels, attribute, answer, self.identity, run_id)


class Work(Protocol):
    """What a run has to do; `Plan` is one kind of it. Each unit says how it is asked, and what is kept of answers."""

    @property
    def purpose(self) -> Purpose:
        """Of the run."""

    def units(self, ledger: Ledger, run_id: int | None = None) -> Iterator[Sequence[Unit]]:
        """What is left to do, some hundred requests at a time.

        Args:
            ledger: knows what was done.
            run_id: the run that asks: what has failed in it already is left out.
        """

    def count(self, ledger: Ledger) -> "Count":
        """How much is left to do."""


@dataclass(frozen=True)
class Plan:
    """Which images are asked about, and how.

    Args:
        teacher: the model.
        parameters: canonical JSON, see `teacher.Parameters`.
        attributes: what is asked about each image.
        per_image: all of them in one request.
        excluded_ages: images with one of these age labels are left out.
        limit: only so many images, the first ones; None for all.
    """

    teacher: str
    parameters: str
    attributes: tuple[Attribute, ...] = tuple(Attribute)
    per_image: bool = False
    excluded_ages: tuple[str, ...] = ()
    limit: int | None = None

    @property
    def purpose(self) -> Purpose:
        """Answers that become pairs."""
        return Purpose.GENERATE

    def units(self, ledger: Ledger, run_id: int | None = None) -> Iterator[list[Unit]]:
        """What is left to do, some hundred images at a time.

        Args:
            ledger: knows what was done.
            run_id: the run that asks: what has failed in it already is left out.
        """
        after, seen = 0, 0
        while self.limit is None or seen < self.limit:
            with ledger.reading() as session:
                images = self._images(session, after, seen)
                if not images:
                    return
                units = list(self._missing(session, images, run_id))
            yield units
            after, seen = images[-1][0], seen + len(images)

    def count(self, ledger: Ledger) -> "Count":
        """How much is left to do."""
        return count_units(self.units(ledger))

    def identity(self, *, combined: bool) -> Identity:
        """What the tasks of this plan have in common."""
        return Identity("", COMBINED_VERSION if combined else PROMPT_VERSION, self.teacher, self.parameters)

    def _images(self, session: Session, after: int, seen: int) -> list[tuple[int, str]]:
        """The next images: (id, path)."""
        size = CHUNK if self.limit is None else min(CHUNK, self.limit - seen)
        query = select(Image.id, Image.path).where(col(Image.id) > after, *may_be_sent(self.excluded_ages))
        rows = session.exec(query.order_by(col(Image.id)).limit(size))
        return [(image_id or 0, path) for image_id, path in rows]

    def _missing(self, session: Session, images: list[tuple[int, str]], run_id: int | None) -> Iterator[Unit]:
        ids = [image for image, _ in images]
        labels = labels_of(session, ids)
        open_alone = _Open(session, self.identity(combined=False), ids, run_id)
        open_together = _Open(session, self.identity(combined=True), ids, run_id) if self.per_image else None
        for image_id, path in images:
            whole = Unit(image_id, path, labels[image_id], self.attributes, self.identity(combined=True), True)
            alone = self.attributes
            if open_together is not None:
                together = tuple(each for each in self.attributes if open_together(image_id, each))
                if together:
                    yield replace(whole, attributes=together)
                alone = tuple(each for each in self.attributes if open_together.fell_back(image_id, each))
            yield from (whole.alone(attribute) for attribute in alone if open_alone(image_id, attribute))


@dataclass(frozen=True)
class Count:
    """How much is left to do."""

    images: int
    requests: int
    tasks: dict[Attribute, int]

    @property
    def total(self) -> int:
        """All tasks."""
        return sum(self.tasks.values())


def count_units(chunks: Iterable[Sequence[Unit]]) -> Count:
    """How much these units are."""
    requests, images, tasks = 0, set(), Counter[Attribute]()
    for chunk in chunks:
        requests += len(chunk)
        images |= {unit.image_id for unit in chunk}
        tasks.update(attribute for unit in chunk for attribute in unit.attributes)
    return Count(len(images), requests, dict(tasks))


def may_be_sent(excluded_ages: Sequence[str]) -> list[sa.ColumnElement[bool]]:
    """The conditions under which a row of `images` may go to a teacher.

    Args:
        excluded_ages: images with one of these age labels are left out.
    """
    conditions = [col(Image.source) != CHAT]
    if excluded_ages:
        too_young = select(Label.image_id).where(Label.name == "age", col(Label.value).in_(excluded_ages))
        conditions.append(col(Image.id).not_in(too_young))
    return conditions


class _Open:
    """Which tasks of one identity may be asked now."""

    def __init__(self, session: Session, identity: Identity, image_ids: list[int], run_id: int | None) -> None:
        self._run_id = run_id
        self._tasks = find_tasks(session, identity, image_ids)
        query = select(Pair.image_id, Pair.attribute).where(
            col(Pair.image_id).in_(image_ids),
            Pair.prompt_version == identity.prompt_version,
            Pair.teacher == identity.teacher,
            Pair.parameters == identity.parameters,
        )
        self._pairs = set(session.exec(query).all())

    def __call__(self, image_id: int, attribute: Attribute) -> bool:
        if (image_id, attribute) in self._pairs:
            return False
        return may_be_asked(self._tasks.get((image_id, attribute)), self._run_id)

    def fell_back(self, image_id: int, attribute: Attribute) -> bool:
        """Whether it was asked together with others in vain."""
        found = self._tasks.get((image_id, attribute))
        return found is not None and found[0] is TaskState.FALLBACK
