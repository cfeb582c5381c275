"""TRL's SFTTrainer on prepared pairs; runs in TRL's own environment, without this checkout.

    ENV/bin/python benchmarks/support/peer_trl.py SETTINGS.json

The one surprising fact: LoRA's target is a pattern, since the usual names are those of the vision tower's layers, too.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Image, List, load_dataset
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from trl import SFTConfig, SFTTrainer


class StepLines(TrainerCallback):
    """Writes a line after each step, as the watching process expects it."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Note the step and its loss."""
        if "loss" in logs:
            line = {"step": state.global_step, "loss": logs["loss"], "tokens": logs.get("num_tokens")}
            with self.path.open("a") as out:
                out.write(json.dumps(line) + "\n")


def main() -> None:
    """Train as the settings say."""
    given = json.loads(Path(sys.argv[1]).read_text())
    data = load_dataset("json", data_files=given["data"], split="train", cache_dir=given["output"])
    data = data.cast_column("images", List(Image()))
    arguments = SFTConfig(
        output_dir=given["output"],
        per_device_train_batch_size=given["batch"],
        max_steps=given["steps"],
        learning_rate=1e-5,
        lr_scheduler_type="cosine",
        max_length=2048,
        bf16=True,
        use_cpu=given["cpu"],
        gradient_checkpointing=given["checkpointing"],
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        seed=0,
    )
    linears = r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"
    trainer = SFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(given["base"], dtype=torch.bfloat16),
        args=arguments,
        train_dataset=data,
        processing_class=AutoProcessor.from_pretrained(given["base"]),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=linears),
        callbacks=[StepLines(given["lines"])],
    )
    trainer.train()


if __name__ == "__main__":
    main()
