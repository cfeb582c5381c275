"""Snapshots: the accepted and edited pairs of a moment, or those of another filter, frozen as a file of examples.

The row in the database is what makes a snapshot exist; a folder without a row is the rest of a crash and is replaced.
The file is written from one consistent read, without holding up the reviewers, and appears complete or not at all.

The one surprising fact: rows are read as plain columns and written as plain JSON, because building an `Example` for
each would take longer than all the rest; a test sees that both give the same bytes.
"""

import json
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from annotation.database import reading, writing
from annotation.decisions import labels_of
from annotation.exports.facts import count_facts, write_facts
from annotation.exports.licences import kind_of
from annotation.models import CURATED, VERDICTS, Image, Pair, Snapshot, Verdict
from annotation.pair_filter import PairFilter
from facellm.data import SNAPSHOT_FILE, ContentHash, Example, Provenance
from facellm.errors import DataError
from facellm.folders import beside

CHUNK = 1000  # pairs in memory at a time
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
Conditions = Sequence[sa.ColumnElement[bool]]


def take_snapshot(engine: Engine, data_dir: Path, name: str, pairs: PairFilter | None) -> Snapshot:
    """Write the examples, the facts and the row; see `Store.snapshot`."""
    pairs = PairFilter() if pairs is None else pairs
    if not pairs.status:
        pairs = pairs.model_copy(update={"status": CURATED})
    _check_name(engine, name)
    folder = data_dir / "snapshots" / name
    with beside(folder) as partial:
        with reading(engine) as session:
            writer = _Writer(partial, data_dir)
            for frozen in _frozen(session, pairs.conditions(session)):
                writer.add(frozen)
            writer.close()
            if writer.count == 0:
                raise _nothing(data_dir, pairs)
            pool = pairs.model_copy(update={"status": ()}).conditions(session)
            write_facts(partial, count_facts(session, pool, writer.sources, writer.seen_twice))
        row = {
            "name": name,
            "filter": pairs.to_json(),
            "count": writer.count,
            "sha256": writer.content.hexdigest(),
        }
        return _publish(engine, partial, folder, Snapshot.model_validate(row))


def curated_outlines(engine: Engine, data_dir: Path) -> Iterator[Example]:
    """Images and texts of what a snapshot would hold now; see `Store.accepted_outlines`."""
    columns = (col(Image.path), col(Pair.question), col(Pair.answer), col(Pair.text))
    nothing = Provenance(image_sha256=())
    with reading(engine) as session:
        query = sa.select(*columns).join(Image, col(Pair.image_id) == col(Image.id))
        rows = session.execute(query.where(*PairFilter(status=CURATED).conditions(session)))
        for path, question, answer, text in rows.yield_per(CHUNK):
            yield Example.model_construct(  # checked as they came in; to check again would take longest
                images=(f"{data_dir}/{path}",),
                question=question,
                answer=answer if text is None else text,
                provenance=nothing,
            )


def snapshot_named(engine: Engine, name: str) -> Snapshot:
    """The snapshot's row; see `Store.find_snapshot`."""
    with reading(engine) as session:
        found = session.exec(select(Snapshot).where(Snapshot.name == name)).first()
        if found is None:
            names = ", ".join(session.exec(select(Snapshot.name).order_by(col(Snapshot.id))).all())
            raise DataError(
                f"There is no snapshot {name}; there {'are ' + names if names else 'is none'}. "
                "Take one: python -m annotation snapshot NAME."
            )
        return found


def _check_name(engine: Engine, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise DataError(
            f"{name!r} cannot be the name of a snapshot. Use up to 80 letters, digits, dots, dashes or underscores, "
            "beginning with a letter or a digit."
        )
    with reading(engine) as session:
        if session.exec(select(Snapshot.id).where(Snapshot.name == name)).first() is not None:
            raise _taken(name)


def _taken(name: str) -> DataError:
    return DataError(f"There is a snapshot {name} already, and snapshots never change. Choose another name.")


def _nothing(data_dir: Path, pairs: PairFilter) -> DataError:
    wanted = " or ".join(status.value for status in pairs.status)
    others = {name: value for name, value in pairs.set_fields().items() if name != "status"}
    so = "".join(f", {name} {value}" for name, value in others.items())
    return DataError(
        f"There is no {wanted} pair{so} in {data_dir} to take a snapshot of. "
        + ("Ask for fewer things at once." if others else "Accept some first.")
    )


def _publish(engine: Engine, partial: Path, folder: Path, snapshot: Snapshot) -> Snapshot:
    """Add the row and move the files to their place, both or neither."""
    try:
        with writing(engine) as session:
            session.add(snapshot)
            session.flush()
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    except IntegrityError as error:
        raise _taken(snapshot.name) from error
    return snapshot


class _Frozen(NamedTuple):
    """A pair on its way into the file."""

    record: dict[str, Any]  # an Example as JSON, without `images`
    path: str  # of its image, from the data directory
    source: str  # of its image
    verdicts: int


class _Writer:
    """The file of a snapshot: a line is written and taken into the hash in one go."""

    def __init__(self, partial: Path, data_dir: Path) -> None:
        self._out = (partial / SNAPSHOT_FILE).open("w", encoding="utf-8")
        self._up = Path(os.path.relpath(data_dir.resolve(), partial.resolve())).as_posix()
        self._encode = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps makes one each time
        self.content = ContentHash()
        self.count = 0
        self.seen_twice = 0  # pairs with verdicts of several reviewers
        self._seen: set[str] = set()
        self.sources: Counter[str] = Counter()  # images by origin

    def add(self, pair: _Frozen) -> None:
        """Write a pair."""
        self.content.add(pair.record)
        self._out.write(self._encode({"images": [f"{self._up}/{pair.path}"]} | pair.record) + "\n")
        self.count += 1
        self.seen_twice += pair.verdicts > 1
        if pair.path not in self._seen:
            self._seen.add(pair.path)
            self.sources[kind_of(pair.source)] += 1

    def close(self) -> None:
        """See that all is on the disk: the database's row, which is, would otherwise outlive it."""
        self._out.flush()
        os.fsync(self._out.fileno())
        self._out.close()


def _frozen(session: Session, conditions: Conditions) -> Iterator[_Frozen]:
    """The pairs in the order of their ids.

    The ids come first: to sort them takes no memory, to sort whole rows it would.
    """
    ids = session.exec(select(Pair.id).where(*conditions).order_by(col(Pair.id))).all()
    query = _query()
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        rows = session.execute(query.where(col(Pair.id).in_(some))).all()
        labels = labels_of(session, {row.image_id for row in rows})
        reviewers = _reviewers(session, some)
        for row in rows:
            record = _record(row, reviewers.get(row.id), labels[row.image_id])
            yield _Frozen(record, row.path, row.source, row.verdicts)


def _query() -> sa.Select[Any]:
    of_pair = ("id", "image_id", "attribute", "question", "answer", "text", "teacher", "prompt_version", "status")
    columns = [col(getattr(Pair, name)) for name in (*of_pair, "verdicts")]
    columns += [col(getattr(Image, name)) for name in ("sha256", "path", "source")]
    return sa.select(*columns).join(Image, col(Pair.image_id) == col(Image.id)).order_by(col(Pair.id))


def _record(row: Any, reviewer: str | None, labels: dict[str, str]) -> dict[str, Any]:
    """A `facellm.data.Example` as JSON, field by field in its order, without `images`."""
    return {
        "attribute": None if row.attribute is None else row.attribute.value,
        "question": row.question,
        "answer": row.answer if row.text is None else row.text,
        "provenance": {
            "image_sha256": [row.sha256],
            "pair_id": row.id,
            "status": row.status.value,
            "reviewer": reviewer,
            "teacher": row.teacher,
            "prompt_version": row.prompt_version,
            "labels": labels,
        },
    }


def _reviewers(session: Session, pair_ids: Sequence[int | None]) -> dict[int, str]:
    """Of each pair with a verdict, who is answerable for it: the last who settled it, else all in their order."""
    columns = (col(getattr(Verdict, name)) for name in ("pair_id", "reviewer", "settles"))
    query = sa.select(*columns).where(col(Verdict.pair_id).in_(pair_ids), col(Verdict.action).in_(VERDICTS))
    said: defaultdict[int, list[str]] = defaultdict(list)
    settled: dict[int, str] = {}
    for pair_id, reviewer, settles in session.execute(query.order_by(col(Verdict.pair_id), col(Verdict.revision))):
        said[pair_id].append(reviewer)
        if settles:
            settled[pair_id] = reviewer
    return {pair_id: ", ".join(names) for pair_id, names in said.items()} | settled
