"""What this machine's processor does faster, found out by short trials when a model is loaded.

Takes a tenth of a second or two. The one surprising fact: neither answer can be known beforehand. Some processors
multiply bfloat16 twice as fast as float32 and some ten times slower, and a small model is slower on two cores than on
one, since its products are shorter than the handing over between threads.
"""

import time
from collections.abc import Callable

import psutil
import torch
from torch import nn
from torch.nn import functional
from transformers import InternVLForConditionalGeneration

TRIALS = 5
LONG_STEP = 0.02  # seconds
MARGIN = 0.9  # another way must take less than this share of the time to be chosen
SPARE = 1.3  # times the size that must be free before weights are widened


@torch.no_grad()
def faster_type(model: InternVLForConditionalGeneration) -> torch.dtype:
    """The type in which a CPU answers faster: the weights' own, or float32 where that is faster and there is room.

    Decoding multiplies single tokens by the whole of the weights, so that is what is timed, on the widest layer.
    """
    if model.dtype == torch.float32:
        return torch.float32
    size = sum(weights.numel() for weights in model.parameters())
    if psutil.virtual_memory().available < SPARE * size * 4:
        return model.dtype
    widest = max(
        (layer for layer in model.modules() if isinstance(layer, nn.Linear)), key=lambda one: one.weight.numel()
    )
    own, wide = widest.weight, widest.weight.float()
    two_rows = own.new_ones(2, own.shape[1])
    own_seconds = fastest(lambda: functional.linear(two_rows, own))
    wide_seconds = fastest(lambda: functional.linear(two_rows.float(), wide))
    return torch.float32 if wide_seconds < MARGIN * own_seconds else model.dtype


@torch.no_grad()
def faster_training_type(width: int) -> torch.dtype:
    """The type in which a CPU multiplies many tokens faster: bfloat16, if its processor knows it, or float32.

    Args:
        width: of the language model.
    """
    rows, weight = torch.randn(256, width), torch.randn(4 * width, width)
    wide = fastest(lambda: functional.linear(rows, weight))
    rows, weight = rows.bfloat16(), weight.bfloat16()
    narrow = fastest(lambda: functional.linear(rows, weight))
    return torch.bfloat16 if narrow < MARGIN * wide else torch.float32


@torch.no_grad()
def choose_threads(model: InternVLForConditionalGeneration) -> int:
    """Set and return the number of threads with which this model decodes fastest; fewer where it is about equal.

    A model whose step takes longer than `LONG_STEP` keeps all: it gains by them, and most when it reads pictures.
    """
    most = torch.get_num_threads()
    language = model.model.language_model
    token = torch.zeros(2, 1, dtype=torch.long, device=model.device)

    def step_with(threads: int) -> float:
        torch.set_num_threads(threads)
        return fastest(lambda: language(input_ids=token, use_cache=False))

    best, best_seconds = most, step_with(most)
    for threads in sorted({max(1, most // 2), 1} - {most}, reverse=True) if best_seconds < LONG_STEP else ():
        seconds = step_with(threads)
        if seconds * MARGIN < best_seconds:
            best, best_seconds = threads, min(seconds, best_seconds)
    torch.set_num_threads(best)
    return best


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some trials: what else the machine does only ever adds to them."""
    work()  # warms up
    seconds = []
    for _ in range(TRIALS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
