"""How far the trainer's loss and gradients are from those of transformers alone, in float32.

    exact(FOLDER, threads=1)

One step by the trainer's own parts (rows with a shared prefix, computed a few at a time, the head on answers alone)
against one plain padded batch of the same pairs through the unchanged model, with pixel values and labels. The one
surprising fact: the adapter is made with random values in both its matrices, since LoRA's usual start, a product of
zero, would have no gradient in half of them.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from support.geometry import save_random
from support.training_pairs import SIDE, SYSTEM, make_pairs
from transformers import InternVLProcessor, TrainingArguments

from facellm.checkpoint import load_checkpoint
from facellm.conversation import Turn, messages
from facellm.data import Example, write_examples
from facellm.training.recipe import RunConfig
from facellm.training.row_trainer import RowTrainer
from facellm.training.train import LANGUAGE_LINEARS
from facellm.training.training_data import TrainingData

LENGTH = 4096  # tokens; so long that no row is split
NO_LOSS = -100
SEVERAL_ROWS = ("two images in a step", "groups of 8, 3, 1 and 1")
ACCUMULATED = (1, 3)  # rows at once


def exact(folder: Path, threads: int) -> list[dict[str, Any]]:
    """Each case with its loss difference and its relative gradient error over all LoRA parameters."""
    base = folder / "base-reference"
    if not base.is_dir():
        save_random(base, "reference", system=SYSTEM)
    model, processor = load_checkpoint(base, device="cpu", dtype=torch.float32)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=LANGUAGE_LINEARS, init_lora_weights=False)
    adapted = get_peft_model(model.float(), lora)
    figures = []
    for name, examples in _cases(folder / "exact").items():
        plain = _plain_loss(adapted, processor, examples)
        wanted = _gradient(adapted, plain)
        for at_once in ACCUMULATED if name in SEVERAL_ROWS else (1,):
            with tempfile.TemporaryDirectory() as place:
                loss, found = _rows_step(adapted, processor, examples, at_once, Path(place))
            figures.append(
                {
                    "case": f"{name}; {at_once} {'row' if at_once == 1 else 'rows'} at once",
                    "pairs": len(examples),
                    "loss": plain.item(),
                    "loss_difference": abs(loss - plain.item()),
                    "gradient_error": ((found - wanted).norm() / wanted.norm()).item(),
                }
            )
    return figures


def _cases(folder: Path) -> dict[str, list[Example]]:
    many = make_pairs(folder, images=4, per_image=8)
    eight, others = many[:8], many[8:]
    wide = folder / "wide.png"
    Image.open(many[0].images[0]).resize((2 * SIDE, SIDE)).save(wide)  # two tiles and the whole
    tiled = [each.model_copy(update={"images": (str(wide),)}) for each in eight[:4]]
    two = [each.model_copy(update={"images": (eight[0].images[0], others[0].images[0])}) for each in eight[:4]]
    return {
        "8 pairs of an image": eight,
        "two images in a step": many[:16],
        "an image of three tiles": tiled,
        "two images in a pair": two,
        "groups of 8, 3, 1 and 1": [*eight, *others[:3], others[8], others[16]],
    }


def _rows_step(
    model: PeftModel, processor: InternVLProcessor, examples: Sequence[Example], at_once: int, folder: Path
) -> tuple[float, torch.Tensor]:
    """The loss and the gradient of one step, by the trainer's own parts."""
    write_examples(folder / "train.jsonl", examples)
    config = RunConfig(base_model="none", max_length=LENGTH, held_out=0)
    data = TrainingData(folder / "train.jsonl", processor, config)
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", remove_unused_columns=False)
    trainer = RowTrainer(
        data,
        per_step=len(data),
        at_once=at_once,
        compute_dtype=torch.float32,
        best=folder / "best",
        model=model,
        args=arguments,
    )
    (step,) = trainer.get_train_dataloader()
    model.zero_grad()
    with trainer.headless():
        loss = trainer.training_step(model, step)
    return loss.item(), _flat_gradient(model)


def _plain_loss(model: PeftModel, processor: InternVLProcessor, examples: Sequence[Example]) -> torch.Tensor:
    turns = [
        [
            Turn("user", each.question, tuple(Image.open(path).convert("RGB") for path in each.images)),
            Turn("assistant", each.answer),
        ]
        for each in examples
    ]
    options: dict[str, Any] = {"tokenize": True, "return_dict": True}
    padding = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
    batch = processor.apply_chat_template([messages(turn) for turn in turns], **options, processor_kwargs=padding)
    labels = batch["input_ids"].clone()
    for row, turn in enumerate(turns):
        asked = processor.apply_chat_template(messages(turn[:1]), add_generation_prompt=True, **options)
        labels[row, : len(asked["input_ids"][0])] = NO_LOSS
        labels[row, int(batch["attention_mask"][row].sum()) - 1 :] = NO_LOSS  # the line break after the turn
    return model(**batch, labels=labels).loss


def _gradient(model: PeftModel, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return _flat_gradient(model)


def _flat_gradient(model: PeftModel) -> torch.Tensor:
    weights = [weight.grad for weight in model.parameters() if weight.requires_grad and weight.grad is not None]
    return torch.cat([gradient.flatten() for gradient in weights])
