"""A checkpoint's tensors on disk, one at a time: neither a whole model in memory, nor a copy of it.

    weights = StoredWeights.open("OpenGVLab/InternVL3-8B-hf")
    weights.read("model.language_model.layers.0.self_attn.q_proj.weight")

The one surprising fact: files of one architecture name their tensors in several ways (`language_model.model.layers.0`,
`model.language_model.layers.0`). The names here are those of the loaded module, found by transformers' own rules.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from facellm.checkpoint import check_kind
from facellm.errors import ModelError
from facellm.sources import find_source

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "LICENSE*", "NOTICE*")


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies, and what it is."""

    file: Path
    key: str  # what the file calls it
    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self) -> Tensor:
        """The tensor, on the CPU."""
        with safe_open(self.file, framework="pt") as file:
            found: Tensor = file.get_tensor(self.key)
        return found


class StoredWeights:
    """The tensors of an InternVL checkpoint by the names that they have in the loaded model."""

    def __init__(self, source: str, folder: Path, skeleton: nn.Module, tensors: dict[str, Stored]) -> None:
        self.source = source
        self.folder = folder
        self.skeleton = skeleton  # the model without memory for its weights
        self.tensors = tensors
        config: Any = skeleton.config
        self.config = config
        self.tied = {"lm_head.weight": "model.language_model.embed_tokens.weight"} if config.tie_word_embeddings else {}

    @classmethod
    def open(cls, checkpoint: str | Path) -> "StoredWeights":
        """Find a checkpoint's tensors; only their headers are read.

        Args:
            checkpoint: a folder or a Hub id; `#` and a path after it name a folder within.

        Raises:
            ModelError: it is missing, damaged, quantized, no InternVL, or not stored as safetensors.
        """
        folder = _folder(checkpoint)
        try:
            config = AutoConfig.from_pretrained(folder)
            check_kind(config, str(checkpoint))
            if getattr(config, "quantization_config", None) is not None:
                raise ModelError(
                    f"The weights of {checkpoint} are quantized; expected plain numbers. Name the checkpoint that they "
                    "were made from."
                )
            with torch.device("meta"):
                skeleton = AutoModelForImageTextToText.from_config(config)
            found = dict(_stored(folder, skeleton))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise ModelError(
                f"The checkpoint {checkpoint} cannot be read: {reason}. Expected the files of an InternVL checkpoint "
                "with its weights as safetensors. Download or save it again."
            ) from error
        weights = cls(str(checkpoint), folder, skeleton, found)
        weights._check_complete()
        return weights

    def _check_complete(self) -> None:
        expected = {name: tuple(tensor.shape) for name, tensor in self.skeleton.state_dict().items()}
        for name, shape in expected.items():
            stored = self.tensors.get(self.place(name))
            if stored is None or stored.shape != shape:
                found = "is missing" if stored is None else f"has the shape {list(stored.shape)}"
                raise ModelError(
                    f"The checkpoint {self.source} is damaged: its tensor {name} {found}; config.json says "
                    f"{list(shape)}. Download or save it again."
                )

    def place(self, name: str) -> str:
        """The name under which a tensor is stored: another's, where the two are one and it is not stored itself."""
        return name if name in self.tensors else self.tied.get(name, name)

    def read(self, name: str) -> Tensor:
        """A tensor as it is stored, on the CPU."""
        return self.tensors[self.place(name)].read()

    def kind(self, name: str) -> torch.dtype:
        """The type in which a tensor is loaded: what config.json says, whatever the file holds."""
        stored = self.tensors[self.place(name)].dtype
        wanted = self.config.dtype
        return wanted if wanted is not None and stored.is_floating_point else stored


def _folder(checkpoint: str | Path) -> Path:
    """The folder of this machine that holds the files; those of the Hub are downloaded."""
    place, within = find_source(checkpoint, "model")
    if not Path(place).is_dir():
        patterns = [f"{within}/{name}" if within else name for name in _FILES]
        try:
            place = snapshot_download(place, allow_patterns=patterns)
        except (OSError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise ModelError(
                f"The model {checkpoint} cannot be downloaded: {reason}. Name a folder, or try again with a network."
            ) from error
    return Path(place) / within


def _stored(folder: Path, skeleton: Any) -> Iterator[tuple[str, Stored]]:
    """Each tensor of the files with its name in the loaded model."""
    rules = get_model_conversion_mapping(skeleton)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    others = [rule for rule in rules if isinstance(rule, WeightConverter)]
    known = skeleton.state_dict()
    for file in _weight_files(folder):
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - it is no dict
                name, conversion = rename_source_key(key, renamings, others, skeleton.base_model_prefix, known)
                if conversion is not None:
                    raise ValueError(f"its tensor {key} is not stored as the model has it")
                # An empty tensor has the type that the whole has; its own slice says it in another language.
                piece = opened.get_slice(key)
                shape = tuple(piece.get_shape())
                yield name, Stored(file, key, shape, piece[0:0].dtype if shape else opened.get_tensor(key).dtype)


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.is_file():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / name for name in dict.fromkeys(names)]
    return [folder / SINGLE]
