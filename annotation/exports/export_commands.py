"""The commands by which pairs leave: snapshots, what differs between two, and exports.

    python -m annotation snapshot monday --filter "attribute=skin"
    python -m annotation export monday --format llamafactory --out faces --splits train=0.9,test=0.1

The one surprising fact: only `snapshot` reads the pairs in the database. What is exported is what was frozen, whatever
has been decided since.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from annotation.exports.exporting import Exported, export
from annotation.exports.forms import Form
from annotation.exports.snapshot_diff import EXAMPLES, Difference, compare
from annotation.exports.snapshot_file import read_rows
from annotation.exports.splits import Splits
from annotation.models import Snapshot
from annotation.pair_filter import PairFilter
from annotation.store import Store
from facellm.config import Settings, load_settings
from facellm.data import SNAPSHOT_FILE
from facellm.errors import ConfigError
from facellm.hub import check_repository, check_token, push

app = typer.Typer()
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


class Images(StrEnum):
    """How pictures get into an export."""

    COPY = "copy"
    LINK = "link"


@app.command("snapshot")
def snapshot_command(
    name: Annotated[str, typer.Argument(help="The snapshot's name, also of its folder below snapshots/.")],
    pairs: Annotated[
        str,
        typer.Option(
            "--filter",
            metavar="NAME=VALUE …",
            help='Only these, such as "attribute=skin race=Black"; accepted and edited ones unless it has a status=…',
        ),
    ] = "",
) -> None:
    """Freeze the accepted and edited pairs, or those of a filter, as snapshots/NAME/examples.jsonl."""
    wanted = PairFilter.parse(pairs)
    with _store(load_settings()) as store:
        taken = store.snapshot(name, wanted)
        print(f"{store.data_dir / 'snapshots' / name / SNAPSHOT_FILE}: {taken.count} pairs, sha256 {taken.sha256}")


@app.command("snapshots")
def snapshots_command(as_json: JsonOption = False) -> None:
    """List the snapshots, newest first, with their filters and hashes."""
    with _store(load_settings()) as store:
        found = [_snapshot_numbers(snapshot) for snapshot in store.snapshots()]
    if as_json:
        print(json.dumps({"snapshots": found}, indent=2, ensure_ascii=False))
    elif not found:
        print("There is no snapshot. Take one: python -m annotation snapshot NAME")
    for each in [] if as_json else found:
        print(
            f"{each['created_at'][:16].replace('T', ' ')}  {each['name']}: {each['count']:,} pairs, "
            f"{json.dumps(each['filter'], ensure_ascii=False)}, sha256 {each['sha256']}"
        )


@app.command("diff")
def diff_command(
    first: Annotated[str, typer.Argument(metavar="A", help="The earlier snapshot's name.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The later one's.")],
    examples: Annotated[int, typer.Option(min=0, help="How many changed pairs to show.")] = EXAMPLES,
    as_json: JsonOption = False,
) -> None:
    """Compare two snapshots: pairs added, removed and changed, by attribute, and what changed in some of them."""
    settings = load_settings()
    with _store(settings) as store:
        both = [store.find_snapshot(name) for name in (first, second)]
    paths = [settings.snapshots_dir / snapshot.name / SNAPSHOT_FILE for snapshot in both]
    rows = [read_rows(path, snapshot.sha256) for path, snapshot in zip(paths, both, strict=True)]
    found = compare(rows[0], rows[1], examples=examples)
    print(json.dumps(_difference_numbers(found), indent=2, ensure_ascii=False) if as_json else _difference_text(found))


@app.command("export")
def export_command(
    name: Annotated[str, typer.Argument(help="The snapshot's name.")],
    form: Annotated[Form, typer.Option("--format", help="Who is to read it.")],
    out: Annotated[Path, typer.Option(help="The folder to make; one that is there is refused.")],
    images: Annotated[Images, typer.Option(help="Copy the pictures, or link them to save room.")] = Images.COPY,
    splits: Annotated[
        str | None, typer.Option(help="Parts by image, such as train=0.8,validation=0.1,test=0.1.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives other parts; the same one the same.")] = 0,
    push_to_hub: Annotated[
        str | None,
        typer.Option(metavar="REPO", help="Upload it to this dataset repository, too; a new one is made private."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a snapshot as a folder with pictures and a data card, for another tool or for the Hugging Face Hub."""
    settings = load_settings()
    parts = None if splits is None else Splits.parse(splits, seed)
    if parts is None and seed:
        raise ConfigError("--seed says how to split, so it needs --splits, such as train=0.9,test=0.1.")
    if push_to_hub is not None:
        check_repository(push_to_hub, "--push-to-hub")
        check_token("--push-to-hub")
    with _store(settings) as store:
        snapshot = store.find_snapshot(name)
    folder = settings.snapshots_dir / snapshot.name
    with _progress(snapshot.count) as advance:
        done = export(snapshot, folder, out, form, link=images is Images.LINK, splits=parts, advance=advance)
    address = None if push_to_hub is None else _pushed(out, push_to_hub, snapshot)
    if as_json:
        print(json.dumps(_export_numbers(done, snapshot, address), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_export_lines(done, address)))


def _pushed(out: Path, repository: str, snapshot: Snapshot) -> str:
    """Upload an export. It shows faces, so a repository that is made for it is private."""
    message = f"Snapshot {snapshot.name}, {snapshot.sha256[:12]}"
    again = f"The export is in {out}; to try again: hf upload --repo-type dataset {repository} {out}"
    return push(out, repository, message, kind="dataset", private=True, again=again)


def _snapshot_numbers(snapshot: Snapshot) -> dict[str, Any]:
    fields = snapshot.model_dump(mode="json", include={"name", "count", "sha256", "created_at"})
    return fields | {"filter": json.loads(snapshot.filter)}


def _difference_numbers(found: Difference) -> dict[str, Any]:
    """Everything that `diff --json` prints."""
    counted = {name: _counts(getattr(found, name)) for name in ("added", "removed", "changed", "same")}
    examples = [
        {
            "pair_id": each.pair_id,
            "attribute": each.attribute,
            "before": each.before,
            "after": each.after,
            "words": each.words,
        }
        for each in found.examples
    ]
    return counted | {"examples": examples}


def _counts(of: Counter[str]) -> dict[str, Any]:
    return {"pairs": of.total(), "attributes": dict(sorted(of.items()))}


def _difference_text(found: Difference) -> str:
    lines = []
    for what, of in (("added", found.added), ("removed", found.removed), ("changed", found.changed)):
        by = ", ".join(f"{attribute} {count:,}" for attribute, count in sorted(of.items()))
        lines.append(f"{of.total():,} {what}" + (f": {by}" if by else ""))
    lines.append(f"{found.same.total():,} the same")
    lines += [f"\npair {each.pair_id} ({each.attribute}): {each.words}" for each in found.examples]
    return "\n".join(lines)


def _export_numbers(done: Exported, snapshot: Snapshot, address: str | None) -> dict[str, Any]:
    """Everything that `export --json` prints."""
    return {
        "out": str(done.out),
        "snapshot": _snapshot_numbers(snapshot),
        "pairs": done.pairs,
        "images": done.images,
        "left_out": done.left_out,
        "symbolic_links": done.symbolic,
        "address": address,
    }


def _export_lines(done: Exported, address: str | None) -> Iterator[str]:
    parts = ", ".join(f"{name} {count:,}" for name, count in done.pairs.items())
    total, images = sum(done.pairs.values()), sum(done.images.values())
    yield f"{done.out}: {total:,} pairs about {images:,} images" + (f" ({parts})" if len(done.pairs) > 1 else "")
    if done.left_out:
        ids = ", ".join(map(str, done.left_out[:5])) + (", …" if len(done.left_out) > 5 else "")
        yield f"{len(done.left_out):,} pairs are left out, as their words have a token such as <image>: {ids}"
    if done.symbolic:
        yield f"{done.symbolic:,} images are symbolic links: they break when the data directory is moved."
    if address is not None:
        yield f"Pushed to {address}"


@contextmanager
def _progress(count: int) -> Iterator[Callable[[int], object]]:
    """A bar on stderr for a person; nothing where it goes into a file."""
    hidden = not sys.stderr.isatty()
    with typer.progressbar(length=count, label="pairs", file=sys.stderr, hidden=hidden, update_min_steps=500) as bar:
        yield bar.update


def _store(settings: Settings) -> closing[Store]:
    return closing(Store.of(settings))
