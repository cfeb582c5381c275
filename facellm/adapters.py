"""LoRA adapters on one copy of the base weights: check, add, remove, and generate with a different one in each row.

Only plain LoRA on linear layers of the language model is taken: everything that would change the base itself, or that
PEFT cannot mix within a batch, is refused with its reason. The one surprising fact: when anything raises inside
`generate`, PEFT 0.21 leaves its forward hooks on the layers, and later answers mix adapters without an error
(peft#3475); `generate` here removes them.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HfHubHTTPError
from peft import LoraConfig, PeftConfig, PeftModel, load_peft_weights, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from torch import nn
from transformers import InternVLForConditionalGeneration

from facellm.errors import ModelError

BASE_ROW = "__base__"  # PEFT's name for a row without adapter
KEY_PREFIX = "base_model.model."
LANGUAGE_MODEL = "model.language_model."

# What an adapter's configuration may say freely: it describes the adapter's own matrices, or mattered in training only.
_FREE_FIELDS = {
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_bias", "lora_dropout"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core", "runtime_config"),
    *("qalora_group_size", "ensure_weight_tying"),
}
# Other initialisations (PiSSA, OLoRA, ...) subtract something from the base weights, so base and adapter rows could
# not share them.
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class _Adapter:
    config: LoraConfig
    modules: tuple[str, ...]  # the linear layers it adapts
    weights: dict[str, torch.Tensor]


class AdapterSet:
    """The adapters loaded beside one base model. Not thread-safe: one thread owns it."""

    def __init__(self, base: InternVLForConditionalGeneration) -> None:
        self._base: Any = base
        self._peft: PeftModel | None = None
        self._slots: dict[str, str] = {}  # name → PEFT's name, which must not contain a dot
        self._sources: dict[str, str] = {}
        self._added = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the loaded adapters, in the order in which they came."""
        return tuple(self._slots)

    def add(self, name: str, source: str | Path) -> None:
        """Load an adapter. The same name with the same source again does nothing; with another, it is replaced.

        Raises:
            ModelError: it is missing, damaged, or does not fit this base.
        """
        if self._sources.get(name) == str(source):
            return
        adapter = _read(str(source))
        _check_fits(adapter, self._base, str(source))
        self.remove(name)
        self._added += 1
        slot = f"adapter{self._added}"
        try:
            self._inject(slot, adapter)
        except BaseException:
            self._discard(slot)
            raise
        self._slots[name], self._sources[name] = slot, str(source)

    def remove(self, name: str) -> None:
        """Unload an adapter; nothing happens if it is not loaded."""
        if name in self._slots:
            del self._sources[name]
            self._discard(self._slots.pop(name))

    def generate(self, names: Sequence[str | None], **inputs: Any) -> None:
        """Call the model's `generate` for a batch whose row i is answered by adapter names[i]; None is the base.

        The answers go to the streamer among the inputs.

        Raises:
            ModelError: an adapter is not loaded.
        """
        if unknown := sorted({name for name in names if name is not None and name not in self._slots}):
            raise ModelError(f"The adapter {unknown[0]} is not loaded. Choose it again among the models.")
        if self._peft is None:
            self._base.generate(**inputs)
            return
        rows = [BASE_ROW if name is None else self._slots[name] for name in names]
        try:
            self._peft.generate(adapter_names=rows, **inputs)
        except BaseException:
            self._remove_hooks()
            raise

    def _inject(self, slot: str, adapter: _Adapter) -> None:
        if self._peft is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # PEFT reads a name that transformers is about to drop
                # Keep the type of the base's weights: PEFT would otherwise hold bfloat16 adapters in float32.
                self._peft = PeftModel(self._base, adapter.config, adapter_name=slot, autocast_adapter_dtype=False)
        else:
            self._peft.add_adapter(slot, adapter.config, autocast_adapter_dtype=False)
        set_peft_model_state_dict(self._peft, adapter.weights, adapter_name=slot)
        self._peft.eval()  # the dropout that came with the new layers is born in training mode

    def _discard(self, slot: str) -> None:
        if self._peft is None or slot not in self._peft.peft_config:
            return
        if len(self._peft.peft_config) == 1:
            self._base = self._peft.unload()  # back to the plain model
            self._peft = None
        else:
            self._peft.delete_adapter(slot)
            # PEFT ignores adapter_names silently unless an adapter that exists is the active one.
            self._peft.set_adapter(next(iter(self._peft.peft_config)), inference_mode=True)

    def _remove_hooks(self) -> None:
        assert self._peft is not None
        for module in self._peft.modules():
            if isinstance(module, LoraLayer):
                module._forward_pre_hooks.clear()
                module._forward_pre_hooks_with_kwargs.clear()


def _read(source: str) -> _Adapter:
    """The adapter's matrices with a configuration that names exactly the modules they belong to."""
    try:
        found = PeftConfig.from_pretrained(source)
        weights = load_peft_weights(source, device="cpu")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"The adapter {source} cannot be loaded: {reason} "
            "Expected a folder with adapter_config.json and adapter_model.safetensors, as PEFT saves it."
        ) from error
    if not isinstance(found, LoraConfig):
        raise ModelError(f"The adapter {source} is of type {found.peft_type.value}; expected LoRA.")
    _check_plain(found, source)
    modules = sorted({_module_of(key) for key in weights})
    config = LoraConfig(
        r=found.r,
        lora_alpha=found.lora_alpha,
        rank_pattern=found.rank_pattern,
        alpha_pattern=found.alpha_pattern,
        use_rslora=found.use_rslora,
        lora_bias=found.lora_bias,
        target_modules=modules,
        init_lora_weights=False,  # every matrix is loaded
        inference_mode=True,
    )
    return _Adapter(config, tuple(modules), weights)


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


def _check_fits(adapter: _Adapter, base: InternVLForConditionalGeneration, source: str) -> None:
    """Every matrix belongs to a linear layer of the language model, and has that layer's shape."""
    modules = {name.replace(".base_layer", ""): module for name, module in base.named_modules()}
    if not adapter.weights:
        raise ModelError(f"The adapter {source} holds no weights. Save it again.")
    for name in adapter.modules:
        layer = modules.get(name)
        if isinstance(layer, LoraLayer):
            layer = layer.get_base_layer()
        if not name.startswith(LANGUAGE_MODEL) or not isinstance(layer, nn.Linear):
            raise ModelError(
                f"The adapter {source} has weights for {name}; expected only linear layers of the base's language "
                f"model ({LANGUAGE_MODEL}*). It was made for another kind of model, or trained on more than that."
            )
        pair = [adapter.weights.get(f"{KEY_PREFIX}{name}.lora_{side}.weight") for side in "AB"]
        if pair[0] is None or pair[1] is None:
            raise ModelError(f"The adapter {source} lacks a LoRA matrix of {name}. Save it again.")
        found = (pair[0].shape[-1], pair[1].shape[0])
        if found != (layer.in_features, layer.out_features) or pair[0].shape[0] != pair[1].shape[1]:
            raise ModelError(
                f"The adapter {source} was trained on another base: it adapts {name} from {found[0]} to {found[1]} "
                f"features; the loaded base has {layer.in_features} to {layer.out_features}."
            )
