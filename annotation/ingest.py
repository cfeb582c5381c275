"""Images, labels and pairs coming in, many at a time.

What is there already is recognised by its natural key (an image by its SHA-256, a pair by image, attribute, prompt
version, teacher and parameters) and stays untouched, decisions included; so an import can be repeated.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from sqlmodel import Session, SQLModel, col, select

from annotation.decisions import STATUS_AFTER
from annotation.models import Decision, Image, ImageInput, Label, Pair, PairInput
from facellm.data import Attribute

CHUNK = 500  # images; SQLite allows some thousands of values in one IN
Row = TypeVar("Row", bound=SQLModel)
Key = TypeVar("Key")
Value = TypeVar("Value")


def insert_images(session: Session, images: Sequence[ImageInput]) -> int:
    """Add what is not there yet of these images, their labels and pairs; return how many pairs were new."""
    return sum(_insert_chunk(session, images[i : i + CHUNK]) for i in range(0, len(images), CHUNK))


def _insert_chunk(session: Session, images: Sequence[ImageInput]) -> int:
    ids = _image_ids(session, images)
    known_labels = {
        (label.image_id, label.name, label.source)
        for label in session.exec(select(Label).where(col(Label.image_id).in_(ids.values())))
    }
    labels = _first_of_each(
        ((ids[image.sha256], name, image.label_source), value)
        for image in images
        for name, value in image.labels.items()
    )
    _add(
        session,
        (
            Label.model_validate({"image_id": image_id, "name": name, "value": value, "source": source})
            for (image_id, name, source), value in labels.items()
            if (image_id, name, source) not in known_labels
        ),
    )
    known = {
        _key(pair.image_id, pair) for pair in session.exec(select(Pair).where(col(Pair.image_id).in_(ids.values())))
    }
    pairs = _first_of_each((_key(ids[image.sha256], pair), pair) for image in images for pair in image.pairs)
    new = {key: pair for key, pair in pairs.items() if key not in known}
    rows = _add(session, (_pair_row(image_id, pair) for (image_id, *_), pair in new.items()))
    _add(session, (_decision_row(row, pair) for row, pair in zip(rows, new.values(), strict=True) if pair.decision))
    return len(rows)


def _first_of_each(items: Iterable[tuple[Key, Value]]) -> dict[Key, Value]:
    """What came first under each key: an image may come twice in one call, and then counts as there already."""
    found: dict[Key, Value] = {}
    for key, value in items:
        found.setdefault(key, value)
    return found


def _image_ids(session: Session, images: Sequence[ImageInput]) -> dict[str, int]:
    """SHA-256 → id of every image, after adding those that are new."""
    known = select(Image).where(col(Image.sha256).in_([image.sha256 for image in images]))
    rows = {row.sha256: row for row in session.exec(known)}
    new = _first_of_each((image.sha256, image) for image in images if image.sha256 not in rows)
    fields = {"sha256", "path", "width", "height", "bytes", "source"}
    added = _add(session, (Image.model_validate(image.model_dump(include=fields)) for image in new.values()))
    return {row.sha256: row.id for row in [*rows.values(), *added] if row.id is not None}


def _pair_row(image_id: int, pair: PairInput) -> Pair:
    decided = {} if pair.decision is None else {"status": STATUS_AFTER[pair.decision.action], "revision": 1}
    return Pair.model_validate({"image_id": image_id} | pair.model_dump(exclude={"decision"}) | decided)


def _decision_row(row: Pair, pair: PairInput) -> Decision:
    assert pair.decision is not None  # noqa: S101 - the caller has looked
    return Decision.model_validate(pair.decision.model_dump(mode="json") | {"pair_id": row.id, "revision": 1})


def _key(image_id: int, pair: Pair | PairInput) -> tuple[int, Attribute | None, str, str, str]:
    return image_id, pair.attribute, pair.prompt_version, pair.teacher, pair.parameters


def _add(session: Session, rows: Iterable[Row]) -> list[Row]:
    """Add rows and flush, so that they have their ids."""
    added = list(rows)
    session.add_all(added)
    session.flush()
    return added
