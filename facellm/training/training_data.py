"""The examples of a run as rows for training, made when they are needed, so that memory does not grow with the data.

    data = TrainingData(run_dir / "train.jsonl", processor, config)
    data[data.training[:4]]         the first four rows that are trained on, in tokens

Only numbers are kept of an example: where its line begins in the file, and to which row it belongs. The one surprising
fact: images are held out, not pairs. An image that is trained on would give away what is asked about it.
"""

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from torch.utils.data import Dataset
from transformers import InternVLProcessor

from facellm.conversation import Turn, as_plain_text
from facellm.data import ContentHash, Example, parse_example, read_examples
from facellm.errors import DataError
from facellm.inputs import prompt_tokens
from facellm.training.collate import Pair, Row, make_row, split
from facellm.training.image_table import ImageTable, Room
from facellm.training.recipe import RunConfig

PROMPTS = 4096  # kept in tokens: a data set asks the same few questions of every image
_STAND_IN = Image.new("RGB", (1, 1))  # a prompt says where an image is, not what it shows


class TrainingData(Dataset[list[Row]]):
    """A JSONL file of examples, cut into rows of pairs that share their images.

    Attributes:
        sha256: the content hash of the examples.
        images: the table of their images.
        lengths, answers: of each row its tokens, and those of them that are learnt.
        training, held_out: the numbers of the rows that are trained on, and of those that are only measured.
        pairs: how many examples there are in `training` and in `held_out`.
    """

    def __init__(
        self, path: Path, processor: InternVLProcessor, config: RunConfig, *, check: Callable[[], None] = lambda: None
    ) -> None:
        """Read all examples and open all images once.

        Args:
            config: its max_length, share_prefix and held_out count.
            check: called before each example and image; what it raises ends the work.

        Raises:
            DataError: a line is not an example, or pairs are longer than max_length tokens; the message counts them.
            ImageError: an image is missing or damaged.
        """
        self._file = path.open("rb")
        self._folder = path.parent.resolve()
        self._processor = processor
        self._special = [str(token) for token in processor.tokenizer.added_tokens_decoder.values()]
        self._prompt = lru_cache(PROMPTS)(self._encode_prompt)
        content = ContentHash()
        groups: dict[object, array[int]] = {}
        pictures: dict[str, str] = {}  # path → what names the picture wherever it lies
        for index, example in enumerate(content.of(read_examples(path))):
            check()
            pictures.update(zip(example.images, _names(example), strict=True))
            groups.setdefault(example.images if config.share_prefix else index, array("q")).append(index)
        self.sha256 = content.hexdigest()
        self._starts = _line_starts(self._file)
        self.images = ImageTable(pictures, processor, Room(), check=check)
        self._members, self._firsts = array("q"), array("q", [0])  # of each row, one after another
        self.lengths, self.answers = array("q"), array("q")
        self._seen: list[tuple[int, ...]] = []  # of each row the numbers of its images
        self._cut(groups.values(), config.max_length, check)
        self._hold_out(pictures, config.held_out)

    def __len__(self) -> int:
        """All rows."""
        return len(self.lengths)

    def __getitem__(self, rows: Sequence[int]) -> list[Row]:
        """These rows, in tokens."""
        return [make_row([self._pair(self._example(index)) for index in self._indexes(row)]) for row in rows]

    def image_count(self, rows: Sequence[int]) -> int:
        """How many images these rows have in all."""
        return len({image for row in rows for image in self._seen[row]})

    @property
    def again(self) -> set[int]:
        """Numbers of the images that are needed more than once in an epoch, or are measured."""
        seen: set[int] = set()
        twice: set[int] = set()
        held = set(self.held_out)
        for row, images in enumerate(self._seen):
            twice.update(images if row in held else seen.intersection(images))
            seen.update(images)
        return twice

    def _cut(self, groups: Iterable[Sequence[int]], max_length: int, check: Callable[[], None]) -> None:
        """Make the rows; complain of pairs that are too long all at once."""
        long = longest = worst = 0
        for group in groups:
            check()
            pairs = [self._pair(self._example(index)) for index in group]
            for index, pair in zip(group, pairs, strict=True):
                long += len(pair) > max_length
                if len(pair) > longest:
                    longest, worst = len(pair), index
            done = 0
            for part in split(pairs, max_length):
                row = make_row(part)
                self._members.extend(group[done : done + len(part)])
                self._firsts.append(len(self._members))
                self.lengths.append(len(row))
                self._seen.append(row.images)
                self.answers.append(sum(len(pair.answer) for pair in part))
                done += len(part)
        if long:
            raise DataError(
                f"{long} of {len(self._members)} pairs are longer than max_length, {max_length} tokens; the longest "
                f"has {longest} (line {worst + 1}: {self._example(worst).question[:60]!r}). "
                "Raise max_length, or shorten or reject those pairs."
            )

    def _hold_out(self, pictures: Mapping[str, str], share: float) -> None:
        """Choose the images by a hash of their names, so that runs on much the same images measure much the same."""
        names = sorted(set(pictures.values()), key=lambda name: hashlib.sha256(name.encode()).digest())
        chosen = set(names[: int(share * len(names))])
        held = {number for number, path in enumerate(self.images.paths) if pictures[path] in chosen}
        self.training, self.held_out = array("q"), array("q")
        for row, images in enumerate(self._seen):
            (self.training if held.isdisjoint(images) else self.held_out).append(row)
        if not self.training:
            raise DataError(
                f"held_out is {share:g}, and no image is left to train on, since the {len(names)} images share their "
                "pairs. Set held_out to 0."
            )
        self.pairs = tuple(sum(len(self._indexes(row)) for row in rows) for rows in (self.training, self.held_out))

    def _indexes(self, row: int) -> Sequence[int]:
        return self._members[self._firsts[row] : self._firsts[row + 1]]

    def _example(self, index: int) -> Example:
        first, end = self._starts[index : index + 2]
        line = os.pread(self._file.fileno(), end - first, first)
        return parse_example(line, self._folder)

    def _pair(self, example: Example) -> Pair:
        """An example in the tokens that the model sees when it chats, plus its answer."""
        tokenizer = self._processor.tokenizer
        images = tuple(self.images.numbers[path] for path in example.images)
        tiles = tuple(self.images.tiles[image] for image in images)
        answer = tokenizer(as_plain_text(example.answer, self._special), add_special_tokens=False)["input_ids"]
        return Pair(images, self._prompt(example.question, tiles), [*answer, tokenizer.eos_token_id])

    def _encode_prompt(self, question: str, tiles: tuple[int, ...]) -> list[int]:
        turn = Turn("user", question, (_STAND_IN,) * len(tiles))
        return prompt_tokens([turn], self._processor, tiles)


def _names(example: Example) -> Sequence[str]:
    """What names each image of an example wherever it lies: its SHA-256, or its file's name where that is not known."""
    known = example.provenance.image_sha256
    return known if len(known) == len(example.images) else [Path(path).name for path in example.images]


def _line_starts(file: BinaryIO) -> "array[int]":
    """Where each line begins, and where the last one ends, in bytes."""
    starts = array("q", [0])
    for line in file:
        starts.append(starts[-1] + len(line))
    return starts
