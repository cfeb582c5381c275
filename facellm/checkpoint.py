"""Load an InternVL checkpoint, from a folder or the Hugging Face Hub, by the Auto classes.

The one surprising fact: transformers fills tensors that a checkpoint lacks with random numbers and only logs it. Such a
checkpoint answers nonsense, so it is refused here.
"""

import importlib.util
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
)
from transformers.utils.logging import disable_progress_bar

from facellm.calibration import faster_type
from facellm.errors import ModelError
from facellm.sources import find_source

Quantization = Literal["none", "8bit", "4bit"]
# Left as they are: the tower is small beside the language model and sees fine detail, and the head decides the words.
_NOT_QUANTIZED = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]


def load_checkpoint(
    checkpoint: str | Path,
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dtype: torch.dtype | None = None,
    quantization: Quantization = "none",
) -> tuple[InternVLForConditionalGeneration, InternVLProcessor]:
    """The model, in evaluation mode on its device, and its processor.

    Args:
        checkpoint: a folder or a Hub id; `#` and a path after it name a folder within.
        dtype: of the weights. Else, on a GPU, bfloat16: half the memory of float32, and decoding is bound by memory.
            On a CPU, what this one computes faster of the checkpoint's own type and float32, if that fits.
        quantization: of the language model's linear layers.

    Raises:
        ModelError: there is no such checkpoint, it is damaged or incomplete, it is not an InternVL model, or it cannot
            be quantized here.
    """
    target = _device(device)
    source, subfolder = find_source(checkpoint, "model")
    disable_progress_bar()  # a bar over tensors says nothing to the reader of a log; downloads keep theirs
    try:
        config = AutoConfig.from_pretrained(source, subfolder=subfolder)
        check_kind(config, str(checkpoint))
        processor = AutoProcessor.from_pretrained(source, subfolder=subfolder)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            source,
            subfolder=subfolder,
            dtype=dtype or (torch.bfloat16 if target.type == "cuda" else "auto"),
            device_map={"": target},
            attn_implementation="sdpa",
            quantization_config=_quantization(quantization),
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise ModelError(
                f"The memory of {target} is too small for {checkpoint}. Choose a smaller model."
            ) from error
        raise _unloadable(checkpoint, error) from error
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(
            f"The checkpoint {checkpoint} is incomplete: {len(missing)} tensors are missing, the first is {missing[0]}."
            " Download or save it again."
        )
    if target.type == "cpu" and dtype is None and quantization == "none":
        model = model.to(faster_type(model))
    return model.eval(), processor


def language_width(checkpoint: str | Path) -> int:
    """The width of a checkpoint's language model, without loading it.

    Raises:
        ModelError: there is no such checkpoint, or it is not an InternVL model.
    """
    source, subfolder = find_source(checkpoint, "model")
    try:
        config = AutoConfig.from_pretrained(source, subfolder=subfolder)
    except (OSError, ValueError, KeyError) as error:
        raise _unloadable(checkpoint, error) from error
    check_kind(config, str(checkpoint))
    return int(config.get_text_config().hidden_size)


def _unloadable(checkpoint: str | Path, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0].rstrip(".")
    return ModelError(
        f"The model {checkpoint} cannot be loaded: {reason}. "
        "Expected a folder, or a repository of the Hugging Face Hub, that holds an InternVL checkpoint."
    )


def check_kind(config: Any, checkpoint: str) -> None:
    """Raise ModelError if a configuration is not that of an InternVL model whose language model sees all tokens."""
    if config.model_type != "internvl":
        raise ModelError(
            f"{checkpoint} is a model of type {config.model_type}; expected internvl, in the layout of transformers "
            "(such as OpenGVLab/InternVL3-1B-hf)."
        )
    if set(config.get_text_config().to_dict().get("layer_types") or []) - {"full_attention"}:
        raise ModelError(
            f"The language model of {checkpoint} has sliding-window layers; expected full attention in all, as "
            "InternVL3 has. Choose another model."
        )


def _quantization(kind: Quantization) -> BitsAndBytesConfig | None:
    if kind == "none":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"Loading in {kind} needs the package bitsandbytes. Install it: pip install bitsandbytes.")
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=_NOT_QUANTIZED)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=_NOT_QUANTIZED,
    )


def share_tensors(model: InternVLForConditionalGeneration, base: InternVLForConditionalGeneration) -> None:
    """Give a model the base's own tensors wherever both are equal, and move the others to the base's device.

    FaceLLM and the InternVL3 it was trained from differ in the language model's linear layers alone.
    """
    known = {name.replace(".base.", "."): tensor for name, tensor in base.named_parameters()}  # adapters may stand by
    chosen: dict[nn.Parameter, nn.Parameter] = {}  # one for each, so that tied ones stay tied
    for name, tensor in list(model.named_parameters(remove_duplicate=False)):
        if tensor not in chosen:
            own = nn.Parameter(tensor.to(base.device), requires_grad=False)
            other = known.get(name)
            chosen[tensor] = own if other is None or not _equal(own, other) else other
        module, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(module), leaf, chosen[tensor])
    nn.Module.to(model, base.device)  # the buffers, which are small; the rest is there


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def _device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("The device is set to cuda, but no GPU was found. Set FACELLM_DEVICE to auto or cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
