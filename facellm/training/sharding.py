"""The language model's weights spread over processes by FSDP2, for models that one GPU cannot hold.

    accelerate launch --use_fsdp --fsdp_version 2 --num_processes 8 -m facellm train RUN_DIR

Each decoder layer is gathered while it is computed. The vision tower and the projector stay whole in each process: they
are small, and images are looked at outside the sharded model's forward pass. The one surprising fact: Accelerate shards
on accelerators alone, while torch does it on a CPU as well, where it can be tested.
"""

import warnings

import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import InternVLForConditionalGeneration

from facellm.errors import ConfigError


def shard_on_cpu(accelerator: Accelerator) -> bool:
    """Do what Accelerate does where there are GPUs; False where there is but one process."""
    state = accelerator.state
    if state.distributed_type != DistributedType.MULTI_CPU:
        return False
    state.fsdp_plugin = FullyShardedDataParallelPlugin()
    state.distributed_type = DistributedType.FSDP
    return True


def spare_the_eyes(accelerator: Accelerator, base: InternVLForConditionalGeneration) -> None:
    """Say what is sharded, and in which units; the rest is moved to its device.

    Raises:
        ConfigError: FSDP's first version was asked for.
    """
    if not accelerator.is_fsdp2:
        raise ConfigError(
            "The launcher asked for the first version of FSDP, which cannot keep the vision tower whole. "
            "Add --fsdp_version 2."
        )
    eyes = [base.model.vision_tower, base.model.multi_modal_projector]
    for module in eyes:
        module.to(accelerator.device)
    # Of the view that is returned in place of logits: nothing is done to it in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    plugin = accelerator.state.fsdp_plugin
    plugin.ignored_modules = eyes
    plugin.auto_wrap_policy = transformer_auto_wrap_policy
    plugin.transformer_cls_names_to_wrap = [type(base.model.language_model.layers[0]).__name__]


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be spread; all processes call it at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def spread_like(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, the same in all processes, as the other one is spread."""
    if isinstance(other, DTensor):
        return distribute_tensor(value, other.device_mesh, other.placements)
    return value
