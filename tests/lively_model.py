"""A tiny model for tests whose answers depend on every word and pixel, and adapters for it that change them.

The untrained tiny model repeats one token whatever it sees. With larger weights its answers are nonsense still, but
nonsense of which each character changes with the face, the question, the adapter and the neighbours in a wrong batch.
"""

import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText

NO_TOKEN = 10**9
LANGUAGE_LINEARS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


def save_lively(untrained: Path, folder: Path) -> Path:
    """Copy the untrained checkpoint with its language model's weights and projector scaled up.

    No token ends its answers, so they are as long as is asked for.
    """
    shutil.copytree(untrained, folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and ("language_model.layers" in name or "multi_modal_projector" in name):
            weight.data.mul_(5)
    model.generation_config.eos_token_id = NO_TOKEN
    model.save_pretrained(folder)
    return folder


def save_adapter(checkpoint: Path, folder: Path, *, seed: int, **config: object) -> Path:
    """Save a LoRA adapter with random matrices, B included: it changes every answer."""
    torch.manual_seed(seed)
    base = AutoModelForImageTextToText.from_pretrained(checkpoint)
    model = get_peft_model(base, LoraConfig(**config))  # type: ignore[arg-type]
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    return folder
