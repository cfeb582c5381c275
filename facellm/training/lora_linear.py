"""A linear layer with its LoRA adapter as one operation, for training.

PEFT computes W x, then B A x, scales that and adds it: two passes over outputs as wide as the layer, and copies of its
inputs in float32 and back. Here the scale goes to the few numbers in between, and what B says is added by the product
itself; forward and backward alike. The one surprising fact: PEFT's layers stay, with their names and weights; for as
long as it trains, only their `forward` is another.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class _LoraLinear(torch.autograd.Function):
    """W x + b + scale · B A x, of which A, B and x are differentiable."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        dtype = weight.dtype
        flat = states.flatten(0, -2).to(dtype)
        narrow_down, narrow_up = down.to(dtype), up.to(dtype)
        with torch.autocast(states.device.type, enabled=False):
            inner = functional.linear(flat, narrow_down) * scale
            output = functional.linear(flat, weight, bias).addmm_(inner, narrow_up.T)
        ctx.save_for_backward(flat, weight, narrow_down, narrow_up, inner)
        ctx.scale = scale
        ctx.types = states.dtype, down.dtype
        return output.unflatten(0, states.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        flat, weight, down, up, inner = ctx.saved_tensors
        state_dtype, dtype = ctx.types
        outer = slope.flatten(0, -2)
        between = (outer @ up) * ctx.scale
        of_up = (outer.T @ inner).to(dtype)
        of_down = (between.T @ flat).to(dtype)
        of_states = None
        if ctx.needs_input_grad[0]:
            of_states = (outer @ weight).addmm_(between, down).unflatten(0, slope.shape[:-1]).to(state_dtype)
        return of_states, None, None, of_down, of_up, None


@contextmanager
def fused_lora(model: PeftModel) -> Iterator[None]:
    """While the block runs, the adapted linear layers compute that way where they can.

    They cannot where inputs are dropped, where the base is quantized, or where an adapter is not plain LoRA.
    """
    layers = [layer for layer in model.modules() if type(layer) is Linear and _is_plain(layer)]
    for layer in layers:
        layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(layer: Linear) -> bool:
    return (
        type(layer.get_base_layer()) is nn.Linear
        and not layer.lora_variant
        and not layer.lora_bias[layer.active_adapters[0]]
        and all(isinstance(dropout, nn.Identity) for dropout in layer.lora_dropout.values())
    )


def _forward(layer: Linear, states: Tensor) -> Tensor:
    (name,) = layer.active_adapters
    base: Any = layer.get_base_layer()
    if name not in layer.lora_A:  # another adapter may leave this layer as it is
        return base(states)
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    return _LoraLinear.apply(states, base.weight, base.bias, down, up, layer.scaling[name])
