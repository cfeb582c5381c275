"""Attention of rows whose branches share a prefix, without computing what no token sees.

A mask over whole rows would have most of it computed in vain: a branch of 120 tokens in a row of 1,400 sees its prefix
of 280 and itself. Here the prefixes attend to themselves, and each branch, as a batch entry of its own, to its row's
prefix and to itself. The same numbers, by torch's scaled_dot_product_attention in its fastest form for the device.

The one surprising fact: transformers hands whatever stands in a dict of masks on to the attention function unseen, so a
layout can take a mask's place.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, InternVLForConditionalGeneration

NAME = "facellm_branches"


@dataclass(frozen=True)
class Layout:
    """Where the prefixes and branches of a batch of rows stand; N branches, the longest of L tokens."""

    prefix: int  # the longest prefix; of a shorter one's row this many tokens are computed as well, and not used
    rows: Tensor  # of each branch [N]
    places: Tensor  # of the branches' tokens in the batch, row by row [N × L]; where a branch is shorter, any
    source: Tensor  # of each token of the batch: its place among those of all prefixes, then of all branches
    mask: Tensor  # additive [N, 1, L, prefix + L]
    _repeated: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def mask_for(self, groups: int) -> Tensor:
        """The mask of so many queries for each token, one after another; made once, since autograd keeps it."""
        if groups not in self._repeated:
            self._repeated[groups] = self.mask.repeat(1, 1, groups, 1)
        return self._repeated[groups]


def layout(segments: Tensor, dtype: torch.dtype) -> Layout:
    """The layout of a batch of rows.

    Args:
        segments: [rows, length]: 0 for the prefix, from 1 for the branches one after another, −1 for filling.
        dtype: of the queries.
    """
    height, length = segments.shape
    device = segments.device
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    prefixes = (segments == 0).sum(dim=1)
    firsts = (starts & (segments > 0)).flatten().nonzero().squeeze(1)  # of each branch, in the flattened batch
    rows = firsts // length
    branch = (starts & (segments > 0)).flatten().cumsum(0) - 1  # of each token
    sizes = torch.bincount(branch[(segments > 0).flatten()], minlength=len(firsts))
    prefix, longest = int(prefixes.max()), int(sizes.max())
    steps = torch.arange(longest, device=device)
    places = firsts[:, None] + torch.minimum(steps, sizes[:, None] - 1)
    source = torch.zeros(height * length, dtype=torch.long, device=device)
    tokens = torch.arange(height * length, device=device)
    in_prefix = (segments == 0).flatten()
    source[in_prefix] = (tokens // length * prefix + tokens % length)[in_prefix]
    in_branch = (segments > 0).flatten()
    source[in_branch] = (height * prefix + branch * longest + tokens - firsts[branch])[in_branch]
    sees_prefix = torch.arange(prefix, device=device) < prefixes[rows, None]
    before = steps[:, None] >= steps
    mask = torch.cat([sees_prefix[:, None].expand(-1, longest, -1), before.expand(len(firsts), -1, -1)], dim=2)
    additive = torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill_(~mask, float("-inf"))
    return Layout(prefix, rows, places.flatten(), source, additive[:, None])


def attend(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Layout,
    *,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface.

    Args:
        query: [rows, heads, length, width of a head]; key and value may have fewer heads.
        attention_mask: the layout.

    Returns:
        [rows, length, heads, width of a head], and no weights.
    """
    rows, heads, length, width = query.shape
    groups = heads // key.shape[1]
    where = attention_mask
    top = slice(0, where.prefix)
    of_prefixes = scaled_dot_product_attention(
        query[:, :, top],
        key[:, :, top].repeat_interleave(groups, dim=1),
        value[:, :, top].repeat_interleave(groups, dim=1),
        is_causal=True,
        scale=scaling,
    )
    count = len(where.rows)

    def branches(states: Tensor) -> Tensor:
        """[N, L, heads, width] of [rows, heads, length, width]."""
        flat = states.transpose(1, 2).reshape(rows * length, -1)
        return flat.index_select(0, where.places).view(count, -1, states.shape[1], width)

    def with_prefix(states: Tensor) -> Tensor:
        """[N, heads, prefix + L, width]."""
        above = states[:, :, top].transpose(1, 2).index_select(0, where.rows)
        return torch.cat([above, branches(states)], dim=1).transpose(1, 2)

    # The query heads that share a key head are laid one after another, so that keys need no copy for each.
    asking = branches(query).unflatten(2, (-1, groups)).permute(0, 2, 3, 1, 4).flatten(2, 3)
    of_branches = scaled_dot_product_attention(
        asking, with_prefix(key), with_prefix(value), attn_mask=where.mask_for(groups), scale=scaling
    )
    ordered = of_branches.unflatten(2, (groups, -1)).permute(0, 3, 1, 2, 4)
    both = [of_prefixes.transpose(1, 2).reshape(-1, heads * width), ordered.reshape(-1, heads * width)]
    found = torch.cat(both).index_select(0, where.source)
    return found.view(rows, length, heads, width), None


@contextmanager
def branch_attention(base: InternVLForConditionalGeneration) -> Iterator[None]:
    """While the block runs, the language model attends by the layout that it is given as its mask."""
    AttentionInterface.register(NAME, attend)
    language: Any = base.model.language_model
    usual = language.config._attn_implementation
    language.set_attn_implementation(NAME)
    try:
        yield
    finally:
        language.set_attn_implementation(usual)
