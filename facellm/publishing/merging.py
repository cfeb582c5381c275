"""An adapter computed into its base: a checkpoint that loads in plain transformers, without peft or this program.

    python -m facellm merge run-1 faces-1b

Tensor by tensor, so that it takes the memory of one file of 2 GB, however large the base is: W + scale · B A in
float32, rounded once to the type that the base's config.json names. The one surprising fact: in bfloat16 that rounding
loses part of a small update, so a merged model may answer a shade differently than the base with the adapter beside it.
"""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from facellm.adapters import Adapter, check_fits, read_adapter
from facellm.errors import ConfigError, DataError, ModelError
from facellm.folders import appearing, check_new, check_room
from facellm.publishing.stored_weights import INDEX, SINGLE, StoredWeights
from facellm.training.recipe import find_base, portable_name

SHARD_BYTES = 2_000_000_000
_TAKEN_ALONG = ("*.json", "*.jinja", "*.txt", "*.model", "LICENSE*", "NOTICE*")


@dataclass(frozen=True)
class Merged:
    """What a merge has written."""

    out: Path
    base: str
    named_base: str | None  # the base that the adapter itself names
    modules: int  # linear layers that were changed
    nbytes: int
    files: int  # of weights

    @property
    def other_base(self) -> bool:
        """Whether the adapter names another base than the one that it was merged into."""
        return self.named_base is not None and portable_name(self.named_base) != portable_name(self.base)


def merge(source: str | Path, out: Path, *, base: str | None = None, shard_bytes: int = SHARD_BYTES) -> Merged:
    """Write the base with the adapter computed into it; the folder appears complete or not at all.

    Args:
        source: the adapter's folder or Hub id.
        out: the folder to be made.
        base: a folder or Hub id; the one that the adapter names by default.
        shard_bytes: the largest file of weights, unless one tensor is larger.

    Raises:
        ConfigError: the adapter names no base, or the place is taken.
        ModelError: the adapter or the base cannot be read, or they do not fit.
        DataError: there is no room for it, or it cannot be written.
    """
    check_new(out)
    adapter = read_adapter(source)
    named: str | None = adapter.config.base_model_name_or_path
    if not (chosen := base or named):
        raise ConfigError(f"The adapter {source} does not say what its base is. Name it with --model.")
    weights = StoredWeights.open(find_base(chosen))
    linears = check_fits(adapter, weights.skeleton, str(source))
    changed = {f"{module}.weight" for module in linears}
    sizes = {name: _size(weights, name) for name in weights.tensors}
    check_room(out, sum(sizes.values()))
    shards = list(_shards(sizes, shard_bytes))
    with appearing(out) as partial:
        _take_along(weights.folder, partial)
        for number, names in enumerate(shards, start=1):
            tensors = {weights.tensors[name].key: _merged(weights, adapter, name, name in changed) for name in names}
            _save(tensors, partial / _file(number, len(shards)), out)
        if len(shards) > 1:
            _write_index(weights, shards, sum(sizes.values()), partial)
    return Merged(out, chosen, named, len(changed), sum(sizes.values()), len(shards))


def _merged(weights: StoredWeights, adapter: Adapter, name: str, changed: bool) -> Tensor:
    tensor = weights.read(name)
    if changed:
        module = name.removesuffix(".weight")
        down, up = adapter.pair(module)
        assert down is not None and up is not None  # check_fits has seen to it
        tensor = tensor.float().addmm_(up.float(), down.float(), alpha=adapter.scale(module, len(down)))
        if not bool(tensor.isfinite().all()):
            raise ModelError(f"The merged {name} would hold numbers that are not finite. The adapter is damaged.")
    return tensor.to(weights.kind(name)).contiguous()


def _size(weights: StoredWeights, name: str) -> int:
    return math.prod(weights.tensors[name].shape) * weights.kind(name).itemsize


def _shards(sizes: dict[str, int], most: int) -> Iterator[list[str]]:
    """Names of the tensors of each file, in their order."""
    names: list[str] = []
    total = 0
    for name, size in sizes.items():
        if names and total + size > most:
            yield names
            names, total = [], 0
        names.append(name)
        total += size
    yield names


def _file(number: int, count: int) -> str:
    return SINGLE if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def _write_index(weights: StoredWeights, shards: list[list[str]], total: int, folder: Path) -> None:
    files = {
        weights.tensors[name].key: _file(number, len(shards))
        for number, names in enumerate(shards, start=1)
        for name in names
    }
    index = {"metadata": {"total_size": total}, "weight_map": files}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _take_along(base: Path, folder: Path) -> None:
    """Copy configuration, processor, tokenizer and licence; weights and the base's own model card stay behind."""
    for pattern in _TAKEN_ALONG:
        for path in base.glob(pattern):
            if path.is_file() and not path.name.endswith(".index.json"):
                shutil.copyfile(path, folder / path.name)


def _save(tensors: dict[str, Tensor], path: Path, out: Path) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
        shutil.copymode(path.with_name("config.json"), path)  # safetensors lets nobody else read what it writes
    except SafetensorError as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise DataError(f"{out} was not written: {reason}. Make room, or choose another place.") from error
