"""How fast this machine trains, found out by a trial of a fraction of a second on tensors of a model's shape.

The one surprising fact: simple functions, such as activations, decide the speed as much as the matrix products do.
Tensors too large for the allocator to keep are given back to the kernel each time, and getting their pages anew takes
ten times longer than the arithmetic.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch.nn import functional

from facellm.calibration import faster_training_type, fastest
from facellm.training.recipe import RunConfig

LAYER_CALL = 0.0008  # seconds that a layer takes in one direction, however small it is
MOST_WEIGHTS, MOST_PRODUCTS = 2**24, 10**10  # of a trial's layer
MOST_NUMBERS = 25_000_000  # of its activation: more than the allocator keeps, which gives back 32 MiB at once
CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Speed:
    """What this machine does in a second."""

    products: float  # operations of matrix products
    moved: float  # bytes that simple functions read and write
    call: float  # seconds that a layer takes however small it is


def measure_speed(device: str, dtype: torch.dtype, width: int, inner: int, *, tokens: int) -> Speed:
    """Try a linear layer of a model and the activation after it, with as many threads as training takes.

    Args:
        device: "cpu" or "cuda".
        dtype: of the products.
        width: of the layer's input.
        inner: of its output.
        tokens: that are computed at once; of a large model fewer are tried.
    """
    columns = max(1, min(inner, MOST_WEIGHTS // width))
    rows = max(32, min(tokens, MOST_PRODUCTS // (2 * width * columns)))
    numbers = max(2**14, min(tokens * inner, MOST_NUMBERS))
    return _tried(device, dtype, width, columns, rows, numbers)


@lru_cache(64)  # whoever tries numbers of a recipe asks again and again
def _tried(device: str, dtype: torch.dtype, width: int, columns: int, rows: int, numbers: int) -> Speed:
    before = torch.get_num_threads()
    torch.set_num_threads(training_threads())
    try:
        weight, inputs = (torch.ones(size, width, device=device, dtype=dtype) for size in (columns, rows))
        outputs = torch.ones(numbers, device=device, dtype=dtype)
        linear = fastest(lambda: _finished(functional.linear(inputs, weight)))
        simple = fastest(lambda: _finished(functional.silu(outputs) * outputs))
    finally:
        torch.set_num_threads(before)
    return Speed(2 * rows * width * columns / linear, 5 * outputs.nbytes / simple, LAYER_CALL)


def _finished(result: torch.Tensor) -> None:
    if result.device.type == "cuda":
        torch.cuda.synchronize()


def compute_type(config: RunConfig, device: str, width: int) -> torch.dtype:
    """The type in which a run computes: the wanted one; with "auto", bfloat16 where this processor is faster in it.

    Args:
        device: "cpu" or "cuda".
        width: of the language model.
    """
    if config.quantization != "none":  # bitsandbytes widens its weights to bfloat16 only
        return torch.bfloat16
    if config.dtype != "auto":
        return torch.float32 if config.dtype == "float32" else torch.bfloat16
    if device == "cuda":
        return torch.bfloat16
    return faster_training_type(width)


def training_threads() -> int:
    """One thread fewer than there are cores: the app goes on beside a run, and torch's threads wait for the slowest.

    On two cores with another busy process, two threads were ten times slower than one. A container's limit counts as
    its cores; torch sees all of the machine's.
    """
    cores = os.cpu_count() or 1
    try:
        quota, period = CGROUP_LIMIT.read_text().split()
    except OSError:  # no container, or not Linux
        quota = "max"
    if quota != "max":
        cores = min(cores, round(int(quota) / int(period)))
    return max(1, cores - 1)
