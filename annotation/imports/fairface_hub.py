"""FairFace as a Hugging Face dataset: by name from the Hub, or from a folder that holds a copy.

    python -m annotation import-fairface HuggingFaceM4/FairFace --config 0.25 --split validation

Its files are read directly, by pyarrow alone: the library `datasets` brings a dozen packages that may not agree with
those of this app, and first writes a second copy of everything. It is needed for nothing here: the files hold each
picture's bytes as they were, and say in their schema what the labels' numbers mean. A folder may be a clone of the
repository, or what `datasets` wrote with `save_to_disk`. The one surprising fact: there are no file names, so a face is
called by its index.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from annotation.imports.fairface_labels import NAMES, check_labels
from annotation.imports.fairface_table import Face
from annotation.imports.import_report import BadRow
from facellm.errors import ConfigError, DataError

REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
CONFIGS: Final = ("0.25", "1.25")  # how much of the picture around the face, as a share of it
BATCH: Final = 500  # rows in memory at once


@dataclass(frozen=True)
class HubDataset:
    """The files of one configuration and split."""

    files: list[Path]
    split: str
    total: int  # rows

    def rows(self) -> Iterator[Face | BadRow]:
        """The faces in their order; the number of each is its index."""
        number = 0
        for file in self.files:
            with _readable(file):
                names, batches = _open(file)
                for batch in batches:
                    for values in batch.to_pylist():
                        yield _face(number, f"{self.split}/{number}", values, names)
                        number += 1


def is_dataset(source: str) -> bool:
    """Whether this is a folder, or can be a dataset's name on the Hub, rather than a CSV."""
    path = Path(source)
    could_be_name = REPOSITORY.fullmatch(source) and path.suffix.lower() not in (".csv", ".tsv", ".txt")
    return path.is_dir() or (not path.exists() and bool(could_be_name))


def open_dataset(source: str, config: str, split: str) -> HubDataset:
    """Find a dataset's files; those of a name are downloaded unless they are in the Hub's cache.

    Args:
        source: a folder, or a name on the Hub.
        config: one of CONFIGS.
        split: `train` or `validation`.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: it cannot be had, or holds no such split, or not FairFace's columns.
    """
    _pyarrow()
    folder = Path(source) if Path(source).is_dir() else _download(source, config, split)
    files = _files(folder, config, split)
    if not files:
        raise DataError(
            f"{source} has no split {split} of the configuration {config}. Expected files such as "
            f"{config}/{split}-00000-of-00001.parquet, or a folder that datasets wrote with save_to_disk."
        )
    return HubDataset(files, split, sum(_count(file) for file in files))


def _pyarrow() -> Any:
    try:
        import pyarrow.ipc  # noqa: PLC0415 - only who imports a Hugging Face dataset needs it
        import pyarrow.parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(
            "A Hugging Face dataset is read by pyarrow, which is not installed. Install it: pip install pyarrow"
        ) from error
    return pyarrow


def _download(name: str, config: str, split: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - it takes half a second, and few need it

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=f"{config}/{split}*"))
    except (OSError, ValueError) as error:  # what the Hub's client raises without a network or such a dataset
        first = str(error).strip().split("\n")[0].rstrip(".")
        raise DataError(
            f"The dataset {name} cannot be had from the Hugging Face Hub: {first}. Give the folder of a copy instead, "
            "or FairFace's CSV with --images."
        ) from error


def _files(folder: Path, config: str, split: str) -> list[Path]:
    """Parquet as on the Hub, or what save_to_disk writes for one split or for all."""
    for place in (folder / config, folder, folder / "data"):
        for pattern in (f"{split}-*.parquet", f"{split}/*.parquet", f"{split}.parquet", f"{split}/data-*.arrow"):
            if found := sorted(place.glob(pattern)):
                return found
    state = folder / "state.json"
    if state.is_file() and json.loads(state.read_text(encoding="utf-8")).get("_split") in (split, None):
        return sorted(folder.glob("data-*.arrow"))
    return []


def _open(file: Path) -> tuple[dict[str, list[str]], Iterator[Any]]:
    """The class names of the labels that are numbers, and the rows in batches."""
    arrow = _pyarrow()
    if file.suffix == ".parquet":
        table = arrow.parquet.ParquetFile(file)
        schema, batches = table.schema_arrow, table.iter_batches(BATCH)
    else:
        stream = arrow.ipc.open_stream(arrow.memory_map(str(file)))
        schema, batches = stream.schema, iter(stream)
    missing = [name for name in ("image", *NAMES) if name not in schema.names]
    if missing:
        raise DataError(f"{file} has no column {', '.join(missing)}. Expected FairFace: image, {', '.join(NAMES)}.")
    return _class_names(schema.metadata or {}), batches


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (_pyarrow().ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read: {str(error).rstrip('.')}. Download it again.") from error


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """What the numbers of a label mean, in the order that `datasets` has noted in the file's schema."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return {name: feature["names"] for name, feature in features.items() if "names" in feature}


def _count(file: Path) -> int:
    with _readable(file):
        if file.suffix == ".parquet":
            return int(_pyarrow().parquet.ParquetFile(file).metadata.num_rows)
        return sum(batch.num_rows for batch in _open(file)[1])


def _face(number: int, name: str, values: dict[str, Any], names: dict[str, list[str]]) -> Face | BadRow:
    try:
        labels = check_labels({label: _text(label, values[label], names.get(label)) for label in NAMES})
        data = (values["image"] or {}).get("bytes")
        if not data:
            raise DataError("it has no picture")
    except DataError as error:
        return BadRow(number, name, str(error))
    return Face(number, name, labels, data)


def _text(label: str, value: object, names: list[str] | None) -> str:
    """A label's value as text; -1 is how `datasets` marks a class that is not known."""
    if value is None or value == -1:
        return ""
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    if names is None or not 0 <= value < len(names):
        raise DataError(f"{label} is the number {value}, and the file does not say what it means")
    return names[value]
