"""Load an InternVL checkpoint, from a folder or the Hugging Face Hub, by the Auto classes.

The one surprising fact: transformers fills tensors that a checkpoint lacks with random numbers and only logs it. Such a
checkpoint answers nonsense, so it is refused here.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    InternVLForConditionalGeneration,
    InternVLProcessor,
)
from transformers.utils.logging import disable_progress_bar

from facellm.errors import ModelError

SMALL_MODEL = 100_000_000  # parameters


def load_checkpoint(
    checkpoint: str | Path, *, device: Literal["auto", "cpu", "cuda"] = "auto", subfolder: str = ""
) -> tuple[InternVLForConditionalGeneration, InternVLProcessor]:
    """The model, in evaluation mode on its device, and its processor.

    On a GPU the weights are bfloat16: half the memory of float32, and decoding is bound by memory. On a CPU the type
    of the checkpoint is kept, since float32 would double the memory of a large one; small models run in float32, which
    most CPUs compute faster.

    Raises:
        ModelError: there is no such checkpoint, it is damaged or incomplete, or it is not an InternVL model.
    """
    target = _device(device)
    source = str(checkpoint)
    disable_progress_bar()  # a bar over tensors says nothing to the reader of a log; downloads keep theirs
    try:
        config = AutoConfig.from_pretrained(source, subfolder=subfolder)
        if config.model_type != "internvl":
            raise ModelError(
                f"{source} is a model of type {config.model_type}; expected internvl, in the layout of transformers "
                "(such as OpenGVLab/InternVL3-1B-hf)."
            )
        processor = AutoProcessor.from_pretrained(source, subfolder=subfolder)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            source,
            subfolder=subfolder,
            dtype=torch.bfloat16 if target.type == "cuda" else "auto",
            device_map={"": target},
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"The model {source} cannot be loaded: {reason} "
            "Expected a folder, or a repository of the Hugging Face Hub, that holds an InternVL checkpoint."
        ) from error
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(
            f"The checkpoint {source} is incomplete: {len(missing)} tensors are missing, the first is {missing[0]}. "
            "Download or save it again."
        )
    if target.type == "cpu" and model.num_parameters() <= SMALL_MODEL:
        model = model.float()
    return model.eval(), processor


def _device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("The device is set to cuda, but no GPU was found. Set FACELLM_DEVICE to auto or cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
