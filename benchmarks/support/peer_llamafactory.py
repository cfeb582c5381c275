"""LLaMA-Factory's trainer on prepared pairs; runs in LLaMA-Factory's own environment, without this checkout.

    ENV/bin/python benchmarks/support/peer_llamafactory.py SETTINGS.json

Its recipe is FaceLLM's: LoRA on all linear layers of the language model, bf16, cutoff 2,048. The one surprising fact:
the template is `intern_vl` but for the system prompt, which is the one that the others have, too.
"""

import json
import sys
from pathlib import Path
from typing import Any

from llamafactory.train.tuner import run_exp
from transformers import TrainerCallback


class StepLines(TrainerCallback):
    """Writes a line after each step, as the watching process expects it."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Note the step and its loss."""
        if "loss" in logs:
            line = {"step": state.global_step, "loss": logs["loss"], "tokens": state.num_input_tokens_seen}
            with self.path.open("a") as out:
                out.write(json.dumps(line) + "\n")


def main() -> None:
    """Train as the settings say."""
    given = json.loads(Path(sys.argv[1]).read_text())
    arguments = {
        "model_name_or_path": given["base"],
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_target": "all",
        "lora_rank": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "dataset": "pairs",
        "dataset_dir": given["data"],
        "template": "intern_vl",
        "default_system": given["system"],
        "cutoff_len": 2048,
        "per_device_train_batch_size": given["batch"],
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "cosine",
        "max_steps": given["steps"],
        "bf16": True,
        "use_cpu": given["cpu"],
        "disable_gradient_checkpointing": not given["checkpointing"],
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "include_num_input_tokens_seen": "non_padding",
        "output_dir": given["output"],
        "overwrite_cache": True,
        "seed": 0,
    }
    run_exp(arguments, callbacks=[StepLines(given["lines"])])


if __name__ == "__main__":
    main()
