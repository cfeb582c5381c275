"""Snapshots: the accepted and edited pairs of a moment, frozen as a file of examples.

The row in the database is what makes a snapshot exist; a folder without a row is the rest of a crash and is replaced.
The file is written from one consistent read, without holding up the reviewers, and appears complete or not at all.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from annotation.database import reading, writing
from annotation.decisions import labels_of, verdicts_of
from annotation.models import Image, Pair, Snapshot, Status, Verdict
from facellm.data import SNAPSHOT_FILE, ContentHash, Example, Provenance, write_examples
from facellm.errors import DataError

CHUNK = 1000  # pairs in memory at a time
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def take_snapshot(engine: Engine, data_dir: Path, name: str, statuses: Sequence[Status]) -> Snapshot:
    """Write the examples and the row; see `Store.snapshot`."""
    _check_name(engine, name)
    folder = data_dir / "snapshots" / name
    partial = folder.with_name(f".{uuid4().hex}.partial")
    content = ContentHash()
    try:
        with reading(engine) as session:
            examples = content.of(_examples(session, data_dir, statuses))
            count = write_examples(partial / SNAPSHOT_FILE, examples)
        if count == 0:
            wanted = " or ".join(status.value for status in statuses)
            raise DataError(f"There is no {wanted} pair in {data_dir} to take a snapshot of. Accept some first.")
        row = {
            "name": name,
            "filter": json.dumps({"status": [status.value for status in statuses]}, sort_keys=True),
            "count": count,
            "sha256": content.hexdigest(),
        }
        return _publish(engine, partial, folder, Snapshot.model_validate(row))
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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


def _examples(session: Session, data_dir: Path, statuses: Sequence[Status]) -> Iterator[Example]:
    """The pairs of these statuses in the order of their ids, each with the text that stands."""
    after = 0
    while True:
        query = select(Pair, Image).join(Image, col(Pair.image_id) == Image.id)
        query = query.where(col(Pair.status).in_(statuses), col(Pair.id) > after).order_by(col(Pair.id)).limit(CHUNK)
        rows = session.exec(query).all()
        if not rows:
            return
        verdicts = verdicts_of(session, [pair.id or 0 for pair, _ in rows])
        labels = labels_of(session, {pair.image_id for pair, _ in rows})
        for pair, image in rows:
            yield _example(pair, image, data_dir, verdicts[pair.id or 0], labels[pair.image_id])
        after = rows[-1][0].id or 0
        session.expunge_all()


def _example(pair: Pair, image: Image, data_dir: Path, verdicts: list[Verdict], labels: dict[str, str]) -> Example:
    by = [verdict.reviewer for verdict in verdicts if verdict.settles] or [verdict.reviewer for verdict in verdicts]
    provenance = Provenance(
        image_sha256=(image.sha256,),
        pair_id=pair.id,
        status=pair.status.value,
        reviewer=by[-1] if by else None,
        teacher=pair.teacher,
        prompt_version=pair.prompt_version,
        labels=labels,
    )
    return Example(
        images=(os.path.join(data_dir, image.path),),  # a Path for each pair would take as long as its hash
        attribute=pair.attribute,
        question=pair.question,
        answer=pair.stands,
        provenance=provenance,
    )
