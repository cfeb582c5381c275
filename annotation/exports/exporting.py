"""A snapshot as a folder that another tool reads: pairs, pictures and a data card.

    export(snapshot, settings.snapshots_dir / "monday", Path("out"), Form.LLAMAFACTORY)

The folder appears complete or not at all, and one that is there is never touched. The one surprising fact: the
database is not asked for a pair; all is in the snapshot's folder, so the same snapshot gives the same files for ever.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from annotation.exports.card import CARD, Card, write_card
from annotation.exports.facts import read_facts
from annotation.exports.forms import Form, PairWriter, dataset_info
from annotation.exports.pictures import Pictures
from annotation.exports.snapshot_file import read_rows
from annotation.exports.splits import Splits
from annotation.exports.tally import Tally
from annotation.models import Snapshot
from facellm.data import SNAPSHOT_FILE
from facellm.errors import DataError
from facellm.folders import appearing

ALL = "train"  # what a part is called where there are none


@dataclass(frozen=True)
class Exported:
    """What an export holds."""

    out: Path
    pairs: dict[str, int]  # by part
    images: dict[str, int]
    left_out: list[int] = field(default_factory=list)  # ids of pairs that cannot be said in the form
    symbolic: int = 0  # pictures that could be linked only symbolically


def export(
    snapshot: Snapshot,
    folder: Path,
    out: Path,
    form: Form,
    *,
    link: bool = False,
    splits: Splits | None = None,
    advance: Callable[[int], object] = lambda _count: None,
) -> Exported:
    """Write a snapshot in a form.

    Args:
        snapshot: its row.
        folder: where its file lies.
        out: the folder to be made.
        form: who is to read it.
        link: link pictures instead of copying them.
        splits: the parts; all in one unless given.
        advance: is told how many more pairs are done.

    Raises:
        DataError: `out` is there, the disk is full, or the snapshot or a picture is not what it was.
        ConfigError: a part of the splits would have no image.
    """
    if out.exists() or out.is_symlink():
        raise DataError(f"{out} is there already, and an export never overwrites. Give another --out, or move it away.")
    with appearing(out) as partial:
        pictures, tally = Pictures(folder, partial, link=link), Tally()
        left_out = _write_pairs(snapshot, folder, partial, form, splits, pictures, tally, advance)
        if tally.pair_count == 0:
            raise DataError(
                f"No pair of {snapshot.name} can be said in the form {form.value}. Choose another --format."
            )
        if splits is not None:
            splits.check_none_is_empty(pictures.placed)
        names: tuple[str | None, ...] = (None,) if splits is None else splits.names
        if form is Form.LLAMAFACTORY:
            (partial / "dataset_info.json").write_text(dataset_info(snapshot.name, names), encoding="utf-8")
        card = Card(snapshot, form, splits, tally, read_facts(folder), left_out=len(left_out))
        write_card(partial / CARD, card)
    parts = (ALL,) if splits is None else splits.names
    pairs = {part: tally.by(pairs=True, part=part).total() for part in parts}
    images = {part: tally.by(part=part).total() for part in parts}
    return Exported(out, pairs, images, left_out, pictures.symbolic)


def _write_pairs(
    snapshot: Snapshot,
    folder: Path,
    partial: Path,
    form: Form,
    splits: Splits | None,
    pictures: Pictures,
    tally: Tally,
    advance: Callable[[int], object],
) -> list[int]:
    """Write all pairs with their pictures; return the ids of those that the form cannot say."""
    left_out: list[int] = []
    writers: dict[str | None, PairWriter] = {}
    try:
        for row in read_rows(folder / SNAPSHOT_FILE, snapshot.sha256):
            advance(1)
            if not form.takes(row):
                left_out.append(row.pair_id)
                continue
            part = None if splits is None else splits.of(row.image)
            if part not in writers:
                writers[part] = PairWriter(partial / form.file(part))
            image = pictures.place(row, form.folder(part))
            writers[part].write(form.record(row, image))
            tally.add(row, part or ALL)
        for writer in writers.values():
            writer.end()
    finally:
        for writer in writers.values():
            writer.close()
    return left_out
