"""The trainers on a GPU, at the sizes of InternVL3-1B and 8B with random weights.

    gpu(FOLDER, envs=Path(".bench"), steps=8)

Wall time counts here. Two rates are given: samples a second, which is what a person waits for, and tokens a second,
of which this trainer has fewer to compute for the same samples. The one surprising fact: the share of the card's peak
counts 4 operations for a weight and a token, not 6, since frozen weights have no gradient of their own; the language
model's layers alone are counted, so it is a lower bound.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from support.trainers import SIDES, Task, run
from support.watched import ProcessFailed

BATCH = 16  # pairs of a step
WARM_UP = 3  # steps
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}  # dense bfloat16, by name


class NoGpu(Exception):
    """There is none."""


def gpu(folder: Path, *, envs: Path, steps: int, peers: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each size and side.

    Raises:
        NoGpu: the machine has none.
    """
    if not torch.cuda.is_available():
        raise NoGpu("This machine has no GPU that torch can use, so nothing was measured. Run --gpu on one that has.")
    card = torch.cuda.get_device_name()
    rows = []
    for size in ("1B", "8B"):
        for side in ("ours", "trl", "trl-fastest"):
            row = {"card": card, "size": size, "title": SIDES[side].title}
            if (peer := SIDES[side].peer) is not None and peer not in peers:
                row["missing"] = "not installed"
            else:
                row |= _measured(side, Task(folder, 8, WARM_UP + steps, BATCH, size=size, device="cuda"), envs, card)
            rows.append(row)
    return rows


def _measured(side: str, task: Task, envs: Path, card: str) -> dict[str, Any]:
    try:
        done = run(side, task, envs=envs, threads=4)
        _, wall = done.per_step(WARM_UP)
    except ProcessFailed as error:
        return {"missing": str(error)}
    first, last = done.steps[WARM_UP - 1], done.steps[-1]
    tokens = (last.line["tokens"] - first.line["tokens"]) / (last.number - first.number) / wall
    peak = next((value for name, value in PEAKS.items() if name in card), None)
    share = None if peak is None else 4 * _layer_weights(task.base) * tokens / peak
    return {"samples_per_second": task.batch / wall, "tokens_per_second": tokens, "share_of_peak": share}


def _layer_weights(base: Path) -> int:
    """How many weights the layers of the language model have."""
    count = 0
    for file in base.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dict
                if "language_model" in name and ".layers." in name:
                    count += torch.Size(tensors.get_slice(name).get_shape()).numel()
    return count
