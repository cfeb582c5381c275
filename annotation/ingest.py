"""Images, labels and pairs coming in, many at a time.

What is there already is recognised by its natural key (an image by its SHA-256, a pair by image, attribute, prompt
version, teacher and parameters) and stays untouched, decisions included; so an import can be repeated. The one
surprising fact: a label that says something else than the stored one of the same source is not stored, but told.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa
from sqlmodel import Session, SQLModel, col, select

from annotation.decisions import derive, labels_of, put_verdict
from annotation.models import GROUPS, Decision, Image, ImageInput, Label, Pair, PairInput
from annotation.new_pairs import Newcomers
from facellm.data import Attribute

CHUNK = 500  # images; SQLite allows some thousands of values in one IN
Row = TypeVar("Row", bound=SQLModel)
Key = TypeVar("Key")
Value = TypeVar("Value")
LabelKey = tuple[int, str, str]  # image id, name, source
_IDENTITY = ("prompt_version", "teacher", "parameters")  # with image and attribute: what a pair is known by
PairKey = tuple[int, Attribute | None, str, str, str]  # image id, attribute, prompt version, teacher, parameters


@dataclass(frozen=True)
class LabelConflict:
    """A label that was not stored, because the same source has said something else about the image before."""

    sha256: str
    name: str
    stored: str
    refused: str


@dataclass(frozen=True)
class Ingested:
    """What was new, and what could not be stored."""

    images: frozenset[str] = frozenset()  # the SHA-256 of the new ones
    labels: int = 0
    pairs: int = 0
    conflicts: tuple[LabelConflict, ...] = ()

    def __add__(self, other: "Ingested") -> "Ingested":
        return Ingested(
            self.images | other.images,
            self.labels + other.labels,
            self.pairs + other.pairs,
            self.conflicts + other.conflicts,
        )


def insert_images(session: Session, images: Sequence[ImageInput]) -> int:
    """Add what is not there yet of these images, their labels and pairs; return how many pairs were new."""
    return insert_and_tell(session, images).pairs


def insert_and_tell(session: Session, images: Sequence[ImageInput]) -> Ingested:
    """The same, and tell all that was new and the labels that were in conflict."""
    told = Ingested()
    for start in range(0, len(images), CHUNK):
        told += _insert_chunk(session, images[start : start + CHUNK])
    return told


def _insert_chunk(session: Session, images: Sequence[ImageInput]) -> Ingested:
    ids, new_images = _image_ids(session, images)
    labels, conflicts = _add_labels(session, images, ids)
    pairs = _add_pairs(session, images, ids)
    return Ingested(new_images, labels, pairs, conflicts)


def _image_ids(session: Session, images: Sequence[ImageInput]) -> tuple[dict[str, int], frozenset[str]]:
    """SHA-256 → id of every image, after adding those that are new; and which these were."""
    known = select(Image).where(col(Image.sha256).in_([image.sha256 for image in images]))
    rows = {row.sha256: row for row in session.exec(known)}
    new = _first_of_each((image.sha256, image) for image in images if image.sha256 not in rows)
    fields = {"sha256", "path", "width", "height", "bytes", "source"}
    added = _add(session, (Image.model_validate(image.model_dump(include=fields)) for image in new.values()))
    ids = {row.sha256: row.id for row in [*rows.values(), *added] if row.id is not None}
    return ids, frozenset(new)


def _add_labels(
    session: Session, images: Sequence[ImageInput], ids: dict[str, int]
) -> tuple[int, tuple[LabelConflict, ...]]:
    """Add the labels that are new; return how many, and those that say something else than what is stored."""
    given = [
        ((ids[image.sha256], name, image.label_source), value, image.sha256)
        for image in images
        for name, value in image.labels.items()
    ]
    known: dict[LabelKey, str] = {
        (label.image_id, label.name, label.source): label.value
        for label in session.exec(select(Label).where(col(Label.image_id).in_(ids.values())))
    }
    new = _first_of_each((key, value) for key, value, _ in given if key not in known)
    _add(
        session,
        (
            Label.model_validate({"image_id": image_id, "name": name, "value": value, "source": source})
            for (image_id, name, source), value in new.items()
        ),
    )
    _copy_to_pairs(session, new)
    stored = known | new
    conflicts = (LabelConflict(sha256, key[1], stored[key], value) for key, value, sha256 in given)
    return len(new), tuple(conflict for conflict in conflicts if conflict.stored != conflict.refused)


def _copy_to_pairs(session: Session, new: dict[LabelKey, str]) -> None:
    """Pairs that were there before their image's labels get them too."""
    for (image_id, name, _), value in new.items():
        if name in GROUPS:
            session.execute(sa.update(Pair).where(col(Pair.image_id) == image_id).values({name: value}))


def _add_pairs(session: Session, images: Sequence[ImageInput], ids: dict[str, int]) -> int:
    """Add the pairs that are new, with their decisions; return how many."""
    given = _first_of_each((_key(ids[image.sha256], pair), pair) for image in images for pair in image.pairs)
    if not given:
        return 0
    keys = sa.select(*(getattr(Pair, name) for name in ("image_id", "attribute", *_IDENTITY)))
    known = {tuple(row) for row in session.execute(keys.where(col(Pair.image_id).in_(ids.values())))}
    new = {key: pair for key, pair in given.items() if key not in known}
    newcomers = Newcomers(session, labels_of(session, {key[0] for key in new}))
    rows = [newcomers.row(image_id, pair) for (image_id, *_), pair in new.items()]
    if any(pair.decision for pair in new.values()):
        _add(session, rows)
        decided = ((row, pair) for row, pair in zip(rows, new.values(), strict=True) if pair.decision)
        for row, event in [(row, _decision_row(row, pair)) for row, pair in decided]:
            _decide(session, row, event)
    elif rows:  # nobody asks for their ids, and without those SQLAlchemy is twice as fast
        session.execute(sa.insert(Pair), [row.model_dump(exclude={"id"}) for row in rows])
    return len(rows)


def _first_of_each(items: Iterable[tuple[Key, Value]]) -> dict[Key, Value]:
    """What came first under each key: an image may come twice in one call, and then counts as there already."""
    found: dict[Key, Value] = {}
    for key, value in items:
        found.setdefault(key, value)
    return found


def _decide(session: Session, row: Pair, event: Decision) -> None:
    """Add the decision that a pair comes with, and what it makes of the pair."""
    session.add(event)
    session.flush()
    put_verdict(session, event.reviewer, row.id or 0, event)
    derive(session, row)


def _decision_row(row: Pair, pair: PairInput) -> Decision:
    assert pair.decision is not None  # noqa: S101 - the caller has looked
    return Decision.model_validate(pair.decision.model_dump(mode="json") | {"pair_id": row.id, "revision": 1})


def _key(image_id: int, pair: PairInput) -> PairKey:
    return image_id, pair.attribute, pair.prompt_version, pair.teacher, pair.parameters


def _add(session: Session, rows: Iterable[Row]) -> list[Row]:
    """Add rows and flush, so that they have their ids."""
    added = list(rows)
    session.add_all(added)
    session.flush()
    return added
