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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile

import torch
from PIL import Image
from torch import Tensor
from transformers import InternVLForConditionalGeneration, InternVLProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from facellm.conversation import Turn, as_plain_text
from facellm.data import Example, open_image
from facellm.errors import DataError
from facellm.inputs import count_tiles, look_at, prompt_tokens

NO_LOSS = -100  # the label of a token that is not to be learnt
PADDING = -1  # its segment
_STAND_IN = Image.new("RGB", (1, 1))  # a prompt says where an image is, not what it shows


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


class ImageTable:
    """The images of a data set by number, and their projected vision features once they have been needed.

    The vision tower is frozen, so an image has the same features in every epoch; they are kept up to a budget. What
    came first stays: epochs visit all images in turn, and dropping the oldest would drop each just before its use.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        processor: InternVLProcessor,
        *,
        budget: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Open every image once, so that a missing or damaged one is found before the first step.

        Args:
            budget: bytes of features to keep.
            check: called before each image; what it raises ends the work.

        Raises:
            ImageError: an image cannot be opened.
        """
        self.paths = sorted({path for example in examples for path in example.images})
        self.numbers = {path: number for number, path in enumerate(self.paths)}
        self._processor = processor
        self._budget = budget
        self._kept: dict[int, Tensor] = {}
        self.tiles = [self._count_tiles(path, check) for path in self.paths]

    def _count_tiles(self, path: str, check: Callable[[], None]) -> int:
        check()
        return count_tiles(open_image(path), self._processor)

    def features(self, numbers: Sequence[int], model: InternVLForConditionalGeneration) -> Tensor:
        """The features of these images, one after another: [tiles, tokens of a tile, width of the language model]."""
        new = [number for number in dict.fromkeys(numbers) if number not in self._kept]
        computed = dict(zip(new, self._compute(new, model), strict=True))
        features = torch.cat([computed[number] if number in computed else self._kept[number] for number in numbers])
        for number, some in computed.items():
            if some.nbytes <= self._budget:
                self._kept[number] = some
                self._budget -= some.nbytes
        return features

    @torch.no_grad()
    def _compute(self, numbers: Sequence[int], model: InternVLForConditionalGeneration) -> list[Tensor]:
        return look_at([open_image(self.paths[number]) for number in numbers], self._processor, model)


def encode(
    examples: Sequence[Example],
    processor: InternVLProcessor,
    table: ImageTable,
    max_length: int,
    *,
    check: Callable[[], None] = lambda: None,
) -> list[Pair]:
    """Each example in the tokens that the model sees when it chats, plus its answer.

    Args:
        check: called before each example; what it raises ends the work.

    Raises:
        DataError: examples are longer than `max_length` tokens; the message counts them.
    """
    tokenizer = processor.tokenizer
    special = [str(token) for token in tokenizer.added_tokens_decoder.values()]

    @cache  # a data set asks the same few questions of every image
    def prompt(question: str, tiles: tuple[int, ...]) -> list[int]:
        turn = Turn("user", question, (_STAND_IN,) * len(tiles))
        return prompt_tokens([turn], processor, tiles)

    def pair(example: Example) -> Pair:
        check()
        images = tuple(table.numbers[path] for path in example.images)
        answer = tokenizer(as_plain_text(example.answer, special), add_special_tokens=False)["input_ids"]
        tiles = tuple(table.tiles[image] for image in images)
        return Pair(images, prompt(example.question, tiles), [*answer, tokenizer.eos_token_id])

    pairs = [pair(example) for example in examples]
    long = [index for index, pair in enumerate(pairs) if len(pair) > max_length]
    if long:
        longest = max(long, key=lambda index: len(pairs[index]))
        raise DataError(
            f"{len(long)} of {len(pairs)} pairs are longer than max_length, {max_length} tokens; the longest has "
            f"{len(pairs[longest])} (line {longest + 1}: {examples[longest].question[:60]!r}). "
            "Raise max_length, or shorten or reject those pairs."
        )
    return pairs


def make_rows(pairs: Sequence[Pair], max_length: int, *, share_prefix: bool = True) -> list[Row]:
    """Put the pairs of the same images into one row, or into several where one would be longer than `max_length`.

    Args:
        share_prefix: False gives each pair a row of its own.
    """
    groups: dict[object, list[Pair]] = {}
    for index, pair in enumerate(pairs):
        groups.setdefault(pair.images if share_prefix else index, []).append(pair)
    return [_row(part) for group in groups.values() for part in _split(group, max_length)]


def _split(group: Sequence[Pair], max_length: int) -> Iterator[list[Pair]]:
    """The pairs in their order, cut into parts whose rows are at most `max_length` tokens long."""
    part: list[Pair] = []
    for pair in group:
        if part and _length([*part, pair]) > max_length:
            yield part
            part = []
        part.append(pair)
    yield part


def _length(part: Sequence[Pair]) -> int:
    return sum(map(len, part)) - (len(part) - 1) * _shared(part)


def _shared(part: Sequence[Pair]) -> int:
    """How many tokens the prompts have in common at their start.

    The last token of a prompt is never shared: it is the one that foretells the answer, so each branch needs its own.
    """
    columns = zip(*(pair.prompt[:-1] for pair in part), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _row(part: Sequence[Pair]) -> Row:
    shared = _shared(part)
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


def attention_mask(segments: Tensor) -> Tensor:
    """Which token sees which, bool [rows, 1, length, length seen], from the segments [rows, length].

    Filling sees itself, since attention to nothing at all is not a number.
    """
    sees, seen = segments[:, :, None], segments[:, None, :]
    before = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device).tril()
    return (before & ((seen == 0) | (seen == sees)))[:, None]


def model_inputs(
    batch: Mapping[str, Tensor], table: ImageTable, model: InternVLForConditionalGeneration
) -> tuple[dict[str, object], Tensor]:
    """What the model's `forward` takes for a batch, and the labels [rows, kept] of the logits that it returns.

    Logits are asked for only where a row of the batch has an answer's next token: the head is the costliest layer.
    """
    features = table.features(batch["images"].tolist(), model)
    next_labels = batch["labels"].roll(-1, dims=1)
    next_labels[:, -1] = NO_LOSS
    kept = (next_labels != NO_LOSS).any(dim=0).nonzero().squeeze(1)
    inputs: dict[str, object] = {
        "input_ids": batch["input_ids"],
        "position_ids": batch["position_ids"],
        "attention_mask": attention_mask(batch["segments"]),
        "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features)},
        "logits_to_keep": kept,
        "use_cache": False,
    }
    return inputs, next_labels[:, kept]
