"""From examples to a run directory: what the Fine-tune button and `python -m facellm prepare` have in common.

    source = find_examples(settings, "monday")
    prepare(settings, source, configure(settings, settings.base_checkpoint, {"rank": 8}, "--set"))

The one surprising fact: the database is not asked. That would be the data side's business, and a snapshot's folder
holds all that a run needs; its hash follows from its examples.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facellm.answerers import BASE
from facellm.config import Settings
from facellm.data import SNAPSHOT_FILE, read_examples
from facellm.errors import DataError
from facellm.training.recipe import RunConfig, adjusted, portable_name, recipe
from facellm.training.run_directory import SnapshotRef, create_run


def reserved_names(settings: Settings) -> set[str]:
    """What a run cannot be called, because another model of the chat is."""
    return {BASE} | ({settings.adapter_name} if settings.adapter_name else set())


def configure(settings: Settings, base: str, changes: Mapping[str, Any], source: str) -> RunConfig:
    """The recipe for a base model on the device of the settings, with changes; see `recipe.adjusted`.

    Beside the configured base an adapter may be in use, which the run is then measured against.
    """
    is_configured = portable_name(base) == portable_name(settings.base_checkpoint)
    in_use = settings.find_adapter(None, beside=None if is_configured else base)
    return adjusted(recipe(base), {"device": settings.device, "compare_with": in_use, **changes}, source)


def find_examples(settings: Settings, given: str) -> SnapshotRef:
    """The snapshot of this name, or the JSONL file at this path, which may be a snapshot's, too.

    Raises:
        DataError: there is neither.
    """
    named, path = settings.snapshots_dir / given / SNAPSHOT_FILE, Path(given)
    if Path(given).name == given and named.is_file():
        path = named
    if not path.is_file():
        found = sorted(each.parent.name for each in settings.snapshots_dir.glob(f"*/{SNAPSHOT_FILE}"))
        raise DataError(
            f"There is neither a snapshot nor a file {given}. Expected a JSONL file of examples, or a snapshot of "
            f"{settings.data_dir} ({', '.join(found) or 'which has none'}). Take one: python -m annotation snapshot."
        )
    is_snapshot = path.resolve().parent.parent == settings.snapshots_dir.resolve() and path.name == SNAPSHOT_FILE
    return SnapshotRef(path.resolve().parent.name if is_snapshot else None, None, path)


def prepare(settings: Settings, source: SnapshotRef, config: RunConfig, *, name: str | None = None) -> Path:
    """Make a run directory of these examples.

    Raises:
        DataError, ConfigError: see `run_directory.create_run`.
    """
    if source.name is not None:
        config = config.model_copy(update={"snapshot": source.name, "snapshot_sha256": source.sha256})
    examples = list(read_examples(source.path))
    return create_run(settings.runs_dir, examples, config, name=name, reserved=reserved_names(settings))
