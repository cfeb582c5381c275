"""LoRA adapters on one copy of the base weights: check, add, remove, and choose one for each row of a batch.

Only plain LoRA on linear layers of the language model is taken: everything that would change the base itself, or the
rows of others, is refused with its reason. The one surprising fact: PEFT only reads the adapters here; beside the base
they are computed by `gated_lora`, because PEFT's own way to mix them within a batch rests on hooks that outlive errors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HfHubHTTPError
from peft import LoraConfig, PeftConfig, load_peft_weights
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import InternVLForConditionalGeneration

from facellm.errors import ModelError
from facellm.gated_lora import GatedLinear, RowSpans
from facellm.sources import find_source

WEIGHTS = "adapter_model.safetensors"
KEY_PREFIX = "base_model.model."
LANGUAGE_MODEL = "model.language_model."

# What an adapter's configuration may say freely: it describes the adapter's own matrices, or mattered in training only.
_FREE_FIELDS = {
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_dropout"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core", "runtime_config"),
    *("qalora_group_size", "ensure_weight_tying"),
}
# Other initialisations (PiSSA, OLoRA, ...) subtract something from the base weights, so base and adapter rows could
# not share them.
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class Adapter:
    """An adapter as it was read, before it is known whether it fits."""

    config: LoraConfig
    modules: tuple[str, ...]  # the linear layers it adapts
    weights: dict[str, Tensor]

    def pair(self, module: str) -> tuple[Tensor | None, Tensor | None]:
        """A [rank, in] and B [out, rank] of a module, where they are."""
        down, up = (self.weights.get(f"{KEY_PREFIX}{module}.lora_{side}.weight") for side in "AB")
        return down, up

    def scale(self, module: str, rank: int) -> float:
        """What PEFT multiplies B A x by."""
        patterns = self.config.alpha_pattern or {}
        alpha = patterns.get(get_pattern_key(list(patterns), module), self.config.lora_alpha)
        return float(alpha / (math.sqrt(rank) if self.config.use_rslora else rank))


class AdapterSet:
    """The adapters loaded beside one base model. Not thread-safe: one thread owns it."""

    def __init__(self, base: InternVLForConditionalGeneration) -> None:
        self._base = base
        self._rows = RowSpans()
        self._slots: dict[str, str] = {}  # name → what the layers know it by; a new one each time it is loaded
        self._sources: dict[str, tuple[object, ...]] = {}
        self._added = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the loaded adapters, in the order in which they came."""
        return tuple(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes of all adapters' matrices."""
        return sum(layer.nbytes for _, layer in self._layers())

    def slot(self, name: str) -> str:
        """What stands for an adapter's weights as they are now; it is never given twice.

        Raises:
            ModelError: it is not loaded.
        """
        if name not in self._slots:
            raise ModelError(f"The adapter {name} is not loaded. Choose it again among the models.")
        return self._slots[name]

    def has(self, name: str, source: str | Path) -> bool:
        """Whether this is loaded already, with the weights that the source has now."""
        return self._sources.get(name) == _state(str(source))

    def add(self, name: str, source: str | Path, adapter: "Adapter | None" = None) -> str | None:
        """Load an adapter. The same name with the same weights again does nothing; with others, it is replaced.

        Args:
            adapter: what `read_adapter` has read from the source, where that was done before.

        Returns:
            The slot that it replaces, if there was one; its matrices stay until `take_out`.

        Raises:
            ModelError: it is missing, damaged, or does not fit this base.
        """
        if self.has(name, source):
            return None
        found = _state(str(source))
        adapter = adapter or read_adapter(source)
        linears = check_fits(adapter, self._base, str(source))
        self._added += 1
        slot = f"{self._added}"
        try:
            for module, linear in linears.items():
                self._beside(module, linear).add(slot, *_matrices(adapter, module, linear, self._base.dtype))
        except BaseException:  # such as a full memory: nothing of it stays
            self.take_out(slot)
            raise
        replaced = self._slots.pop(name, None)
        self._slots[name], self._sources[name] = slot, found
        return replaced

    def remove(self, name: str) -> str | None:
        """Forget an adapter's name and return its slot, whose matrices stay until `take_out`; None if there is none."""
        self._sources.pop(name, None)
        return self._slots.pop(name, None)

    def take_out(self, slot: str) -> None:
        """Free the matrices of a slot that no row uses any more."""
        for module, layer in self._layers():
            layer.remove(slot)
            if not layer.adapted:
                self._base.set_submodule(module, layer.base)

    def choose(self, slots: Sequence[str | None]) -> None:
        """Row i of the next forward passes is computed with the adapter in slots[i]; None is the base."""
        self._rows.set(slots)

    def _layers(self) -> list[tuple[str, GatedLinear]]:
        return [(name, layer) for name, layer in self._base.named_modules() if isinstance(layer, GatedLinear)]

    def _beside(self, module: str, linear: nn.Module) -> GatedLinear:
        found = self._base.get_submodule(module)
        if isinstance(found, GatedLinear):
            return found
        gated = GatedLinear(linear, self._rows)
        self._base.set_submodule(module, gated)
        return gated


def _matrices(adapter: Adapter, module: str, linear: nn.Linear, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """A and the scaled B of a module, where the base's weights are, and of the type in which the base computes."""
    down, up = adapter.pair(module)
    assert down is not None and up is not None  # check_fits has seen to it
    scaled = up.float() * adapter.scale(module, len(down))
    return down.to(linear.weight.device, kind), scaled.to(linear.weight.device, kind)


def _state(source: str) -> tuple[object, ...]:
    """What tells whether a source holds other weights now: a run may be deleted and made anew in its place."""
    place, _, within = source.partition("#")
    try:
        found = (Path(place) / within / WEIGHTS).stat()
    except OSError:  # of the Hub, or missing
        return (source,)
    return source, found.st_ino, found.st_mtime_ns, found.st_size


def read_adapter(source: str | Path) -> Adapter:
    """Read an adapter's configuration and matrices from a folder or the Hub; any thread may do it.

    Raises:
        ModelError: it is missing or damaged, or cannot answer beside the base.
    """
    place, within = find_source(source, "adapter")
    folder: dict[str, Any] = {"subfolder": within} if within else {}
    try:
        found = PeftConfig.from_pretrained(place, **folder)
        weights = load_peft_weights(place, device="cpu", **folder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ModelError(
            f"The adapter {source} cannot be loaded: {reason}. "
            "Expected a folder with adapter_config.json and adapter_model.safetensors, as PEFT saves it."
        ) from error
    if not isinstance(found, LoraConfig):
        raise ModelError(f"The adapter {source} is of type {found.peft_type.value}; expected LoRA.")
    _check_plain(found, str(source))
    modules = sorted({_module_of(key) for key in weights})
    return Adapter(found, tuple(modules), weights)


def _check_plain(config: LoraConfig, source: str) -> None:
    plain = LoraConfig()
    for field in fields(config):
        value, usual = getattr(config, field.name), getattr(plain, field.name)
        if field.name not in _FREE_FIELDS and (value or None) != (usual or None):
            raise ModelError(
                f"The adapter {source} uses {field.name} ({value!r}); expected plain LoRA, which can answer beside "
                "the base from one copy of the weights. Train it without, or merge it into a checkpoint of its own."
            )
    if config.init_lora_weights not in _PLAIN_STARTS:
        raise ModelError(
            f"The adapter {source} was started from {config.init_lora_weights!r}, which changes the base's weights. "
            "Convert it to plain LoRA (PEFT: path_initial_model_for_weight_conversion) and use that."
        )


def _module_of(key: str) -> str:
    """`base_model.model.<module>.lora_A.weight` → `<module>`."""
    return key.removeprefix(KEY_PREFIX).rpartition(".lora_")[0] or key


def check_fits(adapter: Adapter, base: nn.Module, source: str) -> dict[str, nn.Linear]:
    """The linear layers that it adapts, by name: all in the language model, and of its matrices' shapes.

    Args:
        base: an InternVLForConditionalGeneration; its weights are not looked at.

    Raises:
        ModelError: it does not fit.
    """
    if not adapter.weights:
        raise ModelError(f"The adapter {source} holds no weights. Save it again.")
    fitting = {}
    modules = dict(base.named_modules())
    for name in adapter.modules:
        layer = modules.get(name)
        if isinstance(layer, GatedLinear):
            layer = layer.base
        if not name.startswith(LANGUAGE_MODEL) or not isinstance(layer, nn.Linear):
            raise ModelError(
                f"The adapter {source} has weights for {name}; expected only linear layers of the base's language "
                f"model ({LANGUAGE_MODEL}*). It was made for another kind of model, or trained on more than that."
            )
        down, up = adapter.pair(name)
        if down is None or up is None:
            raise ModelError(f"The adapter {source} lacks a LoRA matrix of {name}. Save it again.")
        found = (down.shape[-1], up.shape[0])
        if found != (layer.in_features, layer.out_features) or down.shape[0] != up.shape[1]:
            raise ModelError(
                f"The adapter {source} was trained on another base: it adapts {name} from {found[0]} to {found[1]} "
                f"features; the loaded base has {layer.in_features} to {layer.out_features}."
            )
        fitting[name] = layer
    return fitting
