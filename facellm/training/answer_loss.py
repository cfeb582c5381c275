"""The cross entropy of answers' tokens from hidden states, a chunk of tokens at a time.

The head is the widest layer: for 151,674 words the logits of one 2,048-token row take 1.2 GB in float32, and their
gradient as much. Here a chunk's logits live only until its loss and its gradient are known. The one surprising fact:
the gradient is computed in the forward pass, since the head is frozen and the loss is only ever scaled afterwards.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

CHUNK_BYTES = 64 * 1024 * 1024  # of one chunk's logits in float32


class _SummedLoss(torch.autograd.Function):
    """Σ −log p(label) over tokens; differentiable in the hidden states alone."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, labels: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        size = max(1, CHUNK_BYTES // (4 * head.shape[0]))
        for first in range(0, len(hidden), size):
            part = slice(first, first + size)
            logits = functional.linear(hidden[part].to(head.dtype), head)
            chances = functional.log_softmax(logits, dim=-1, dtype=torch.float32)
            right = (torch.arange(len(chances), device=chances.device), labels[part])
            total -= chances[right].sum()
            if gradient is not None:
                slope = chances.exp_()
                slope[right] -= 1
                gradient[part] = slope.to(head.dtype) @ head
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * scale, None, None


def summed_loss(hidden: Tensor, head: Tensor, labels: Tensor) -> Tensor:
    """The summed cross entropy, a float32 scalar.

    Args:
        hidden: of the tokens before the labels' [tokens, width].
        head: the frozen weight of the language model's head [words, width]; logits are computed in its type.
        labels: token ids [tokens].
    """
    return _SummedLoss.apply(hidden, head, labels)
