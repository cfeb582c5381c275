"""Rows for training: the pairs of one image share its prefix.

An image costs hundreds of tokens and each of its eight answers far fewer, so a row holds the image and the common start
of its questions once (segment 0), then each pair as a branch of its own (segments 1, 2, ...):

    tokens     <img> … </img> Describe │ the skin … │ the pose … │ this image …
    segment             0              │     1      │     2      │      3
    position   0  1  …            p-1  │ p  p+1 …   │ p  p+1 …   │ p  p+1 …

A token sees what is before it in segment 0 and in its own branch, and positions go on from the prefix in each branch.
The one surprising fact: this is no approximation. Each pair gets the same numbers as in a row alone, and the same
gradients; only the order of the sums differs.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NO_LOSS = -100  # the label of a token that is not to be learnt
PADDING = -1  # its segment


@dataclass(frozen=True)
class Pair:
    """One example in tokens. The answer ends with the end of the turn."""

    images: tuple[int, ...]  # numbers of its images in the ImageTable
    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class Row:
    """A prefix and its branches, one list entry for each token."""

    images: tuple[int, ...]
    input_ids: list[int]
    positions: list[int]
    segments: list[int]
    labels: list[int]  # of the token itself; the loss compares each with what its predecessor says

    def __len__(self) -> int:
        return len(self.input_ids)


def split(group: Sequence[Pair], max_length: int) -> Iterator[list[Pair]]:
    """The pairs of the same images in their order, cut into parts whose rows are at most `max_length` tokens long."""
    part: list[Pair] = []
    shared = own = 0  # tokens that all have in common at the start, and all tokens of the pairs
    for pair in group:
        common = min(shared, _common(part[0], pair)) if part else len(pair.prompt) - 1
        if part and own + len(pair) - len(part) * common > max_length:
            yield part
            part, own, common = [], 0, len(pair.prompt) - 1
        part.append(pair)
        own, shared = own + len(pair), common
    yield part


def _common(one: Pair, other: Pair) -> int:
    """How many tokens both prompts have in common at their start.

    The last token of a prompt is never shared: it is the one that foretells the answer, so each branch needs its own.
    """
    most = min(len(one.prompt), len(other.prompt)) - 1
    return bisect_right(range(1, most + 1), False, key=lambda size: one.prompt[:size] != other.prompt[:size])


def make_row(part: Sequence[Pair]) -> Row:
    """The row of these pairs, which have the same images."""
    shared = min((_common(part[0], pair) for pair in part[1:]), default=len(part[0].prompt) - 1)
    row = Row(
        images=part[0].images,
        input_ids=part[0].prompt[:shared],
        positions=list(range(shared)),
        segments=[0] * shared,
        labels=[NO_LOSS] * shared,
    )
    for segment, pair in enumerate(part, start=1):
        asked = pair.prompt[shared:]
        row.input_ids.extend([*asked, *pair.answer])
        row.positions.extend(range(shared, len(pair)))
        row.segments.extend([segment] * (len(pair) - shared))
        row.labels.extend([NO_LOSS] * len(asked) + pair.answer)
    return row


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """One batch: input_ids, position_ids, segments and labels [rows, longest row], and image numbers [images].

    Shorter rows are filled on the right; those tokens are seen by no other.
    """
    length = max(map(len, rows))

    def padded(lists: Sequence[list[int]], filler: int) -> Tensor:
        return torch.tensor([[*items, *[filler] * (length - len(items))] for items in lists])

    return {
        "input_ids": padded([row.input_ids for row in rows], 0),
        "position_ids": padded([row.positions for row in rows], 0),
        "segments": padded([row.segments for row in rows], PADDING),
        "labels": padded([row.labels for row in rows], NO_LOSS),
        "images": torch.tensor([image for row in rows for image in row.images]),
    }


def answer_places(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which tokens foretell one of an answer, bool [rows, length], and these answers' tokens [tokens].

    Args:
        labels: [rows, length], each the token itself.
    """
    following = labels.roll(-1, dims=1)
    following[:, -1] = NO_LOSS
    places = following != NO_LOSS
    return places, following[places]
