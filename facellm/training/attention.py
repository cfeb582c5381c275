"""Which kernel computes the attention of rows whose branches share a prefix; all give the same numbers.

    kernel = choose_kernel("auto", base, torch.bfloat16, base.device)
    with attend_by(kernel, base):
        base(..., attention_mask={"full_attention": mask_for(kernel, segments, torch.bfloat16)})

`attention_mask` says what is computed. SDPA does it by `branch_attention`, on every device. FlexAttention is compiled
for the mask and skips its empty blocks; it learns on a GPU only. The one surprising fact: which one is faster is tried
out when training begins, with the model's own heads, and so is whether FlexAttention works there and says the same.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import InternVLForConditionalGeneration
from transformers.integrations.flex_attention import flex_attention_forward

from facellm.calibration import fastest
from facellm.errors import ModelError
from facellm.training.branch_attention import Layout, attend, branch_attention, layout

FLEX_NAME = "flex_attention"  # transformers' name of it
# Tokens of the prefix and of the branches of rows to try out: one tile, and answers of 60 to 100 words.
TRIED_ROWS = ((280, (120,) * 8), (280, (150,) * 7), (280, (90, 120, 100)), (40, (30, 70)))
# Another length, another number of rows, and learning or measuring: each may have a kernel compiled. Past the limit,
# torch would compute without one, slowly and with all scores in memory.
KERNELS = 64
# The largest difference, relative to the size of what is compared: several roundings of the type.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
log = logging.getLogger(__name__)


class Kernel(StrEnum):
    """How attention is computed."""

    SDPA = "sdpa"
    FLEX = "flex"


def attention_mask(segments: Tensor) -> Tensor:
    """Which token sees which, bool [rows, 1, length, length seen], from the segments [rows, length].

    Filling sees itself, since attention to nothing at all is not a number.
    """
    sees, seen = segments[:, :, None], segments[:, None, :]
    before = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device).tril()
    return (before & ((seen == 0) | (seen == sees)))[:, None]


def block_mask(segments: Tensor) -> BlockMask:
    """The same for FlexAttention."""

    def is_seen(row: Tensor, _head: Tensor, sees: Tensor, seen: Tensor) -> Tensor:
        segment = segments[row, seen]
        return (sees >= seen) & ((segment == 0) | (segment == segments[row, sees]))

    rows, length = segments.shape
    return create_block_mask(is_seen, rows, None, length, length, device=segments.device)


def mask_for(kernel: Kernel, segments: Tensor, dtype: torch.dtype) -> Layout | BlockMask:
    """What a kernel needs to know of a batch.

    Args:
        segments: [rows, length]: 0 for the prefix, from 1 for the branches, −1 for filling.
        dtype: of the queries.
    """
    return layout(segments, dtype) if kernel is Kernel.SDPA else block_mask(segments)


@contextmanager
def attend_by(kernel: Kernel, base: InternVLForConditionalGeneration) -> Iterator[None]:
    """While the block runs, the language model attends by this kernel."""
    if kernel is Kernel.SDPA:
        with branch_attention(base):
            yield
        return
    language: Any = base.model.language_model
    usual = language.config._attn_implementation
    language.set_attn_implementation(FLEX_NAME)
    try:
        with torch._dynamo.config.patch(recompile_limit=KERNELS):
            yield
    finally:
        language.set_attn_implementation(usual)


def choose_kernel(
    wanted: Literal["auto", "sdpa", "flex"],
    base: InternVLForConditionalGeneration,
    dtype: torch.dtype,
    device: torch.device,
) -> Kernel:
    """The kernel that was asked for, or, by auto, the fastest that works here.

    Where FlexAttention does not work, SDPA takes its place, and a line of the log says why.

    Args:
        dtype: of the queries.
        device: where the base will be trained; it may not be there yet.
    """
    if wanted == "sdpa" or (wanted == "auto" and device.type != "cuda"):
        return Kernel.SDPA
    try:
        if device.type != "cuda":
            raise ModelError(f"it learns on a GPU only, and this is the {device.type}")
        seconds = seconds_of_kernels(base, dtype, device)
    except ModelError as error:
        log.info(f"FlexAttention is not used, since {error}. SDPA takes its place, with the same result.")
        return Kernel.SDPA
    log.info("Attention of four rows: " + ", ".join(f"{name} {1000 * took:.2f} ms" for name, took in seconds.items()))
    return Kernel.FLEX if wanted == "flex" else min(seconds, key=lambda kernel: seconds[kernel])


def seconds_of_kernels(
    base: InternVLForConditionalGeneration, dtype: torch.dtype, device: torch.device
) -> dict[Kernel, float]:
    """How long one layer's attention takes, forward and backward, by each kernel.

    Raises:
        ModelError: FlexAttention fails here, or says something else than SDPA; the message is a clause.
    """
    config = base.model.language_model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    segments = _segments(device)
    generator = torch.Generator(device).manual_seed(0)
    heads = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
    states = [
        torch.randn(len(segments), number, segments.shape[1], width, generator=generator, device=device)
        .to(dtype)
        .requires_grad_()
        for number in heads
    ]
    is_token = segments >= 0  # what filling says is used by none
    masks = {kernel: mask_for(kernel, segments, dtype) for kernel in Kernel}

    def tried(kernel: Kernel) -> list[Tensor]:
        """What it says, and the gradients."""
        by: Any = attend if kernel is Kernel.SDPA else flex_attention_forward
        said = by(nn.Module(), *states, masks[kernel], scaling=width**-0.5)[0][is_token]
        gradients = torch.autograd.grad(said, states, said.detach())
        if device.type == "cuda":
            torch.cuda.synchronize()
        return [said.detach(), *gradients]

    expected = tried(Kernel.SDPA)
    try:
        found = tried(Kernel.FLEX)
    except Exception as error:  # whatever a compiler may raise
        raise ModelError(f"it fails here ({str(error).strip().splitlines()[0]})") from error
    for one, other in zip(expected, found, strict=True):
        difference = float((one.float() - other.float()).norm() / one.float().norm())
        if not difference <= TOLERANCES[dtype]:
            raise ModelError(f"its numbers differ here by {difference:.1%} from those of SDPA")
    return {kernel: fastest(lambda kernel=kernel: tried(kernel)) for kernel in Kernel}  # type: ignore[misc]


def _segments(device: torch.device) -> Tensor:
    """Those of `TRIED_ROWS`."""
    rows = [
        [0] * prefix + [number for number, size in enumerate(branches, start=1) for _ in range(size)]
        for prefix, branches in TRIED_ROWS
    ]
    length = max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (length - len(row))] for row in rows], device=device)
