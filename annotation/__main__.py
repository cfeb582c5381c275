"""The data side's commands: python -m annotation --help.

The one surprising fact: only `seed` and the app's first start put demo data into an empty data directory. The other
commands take it as it is, so that a mistyped directory never yields a plausible training set.
"""

import json
import sys
from contextlib import closing
from typing import Annotated, Any

import typer

from annotation.models import Snapshot, Status
from annotation.seed import seed
from annotation.store import Store
from facellm.config import load_settings
from facellm.data import Attribute
from facellm.errors import FaceLLMError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Images, generated pairs, decisions and snapshots.")


@app.command("snapshot")
def snapshot_command(
    name: Annotated[str, typer.Argument(help="The snapshot's name, also of its folder below snapshots/.")],
) -> None:
    """Freeze the accepted and edited pairs as snapshots/NAME/examples.jsonl."""
    with _store() as store:
        taken = store.snapshot(name)
        print(f"{store.data_dir / 'snapshots' / name / 'examples.jsonl'}: {taken.count} pairs, sha256 {taken.sha256}")


@app.command("stats")
def stats_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Count images, pairs by status and attribute, decisions by reviewer, flags and snapshots."""
    with _store() as store:
        numbers = stats(store)
    if not numbers["images"]:
        print(f"{store.data_dir} is empty. For demo data: python -m annotation seed", file=sys.stderr)
    print(json.dumps(numbers, indent=2) if as_json else _tables(numbers))


@app.command("seed")
def seed_command(
    faces: Annotated[int | None, typer.Option(min=1, help="How many; the setting seed_faces unless given.")] = None,
) -> None:
    """Store rendered faces with answers of a template teacher; what is there already stays as it is."""
    settings = load_settings()
    count = settings.seed_faces if faces is None else faces
    store = Store.open(settings.data_dir)
    try:
        print(f"{settings.data_dir}: {seed(store, count)} pairs of {count} faces added.")
    finally:
        store.close()


def stats(store: Store) -> dict[str, Any]:
    """Everything that `stats --json` prints."""
    counts = store.counts()
    by_status = {status.value: sum(of[status] for of in counts.values()) for status in Status}
    return {
        "images": store.image_count(),
        "pairs": sum(by_status.values()),
        **by_status,
        "flagged": store.flagged_count(),
        "attributes": {a.value: {s.value: number for s, number in of.items()} for a, of in counts.items()},
        "reviewers": store.reviewer_counts(),
        "flags": store.flag_counts(),
        "snapshots": [_snapshot_numbers(snapshot) for snapshot in store.snapshots()],
    }


def _snapshot_numbers(snapshot: Snapshot) -> dict[str, Any]:
    fields = snapshot.model_dump(mode="json", include={"name", "count", "sha256", "created_at"})
    return fields | {"filter": json.loads(snapshot.filter)}


def _tables(numbers: dict[str, Any]) -> str:
    """The same for reading."""
    statuses = [status.value for status in Status]
    lines = [f"{numbers['images']} images, {numbers['pairs']} pairs, {numbers['flagged']} flagged", ""]
    lines.append(f"{'':14}" + "".join(f"{status:>10}" for status in statuses))
    for attribute in Attribute:
        of = numbers["attributes"][attribute.value]
        lines.append(f"{attribute.value:14}" + "".join(f"{of[status]:>10}" for status in statuses))
    lines.append(f"{'all':14}" + "".join(f"{numbers[status]:>10}" for status in statuses))
    lines += ["", *(f"reviewer {name}: {count} decisions" for name, count in numbers["reviewers"].items())]
    lines += [f"check {name}: {count} pairs flagged" for name, count in numbers["flags"].items()]
    lines += [f"snapshot {s['name']}: {s['count']} pairs, sha256 {s['sha256']}" for s in numbers["snapshots"]]
    return "\n".join(lines)


def _store() -> closing[Store]:
    """The store as it is."""
    return closing(Store.open(load_settings().data_dir))


def main() -> None:
    """Run a command; a FaceLLMError is printed as one line and exits with 1."""
    try:
        app()
    except FaceLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
