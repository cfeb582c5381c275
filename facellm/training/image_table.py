"""The images of a data set by number, and their projected vision features, computed once and kept.

The vision tower is frozen, so an image has the same features in every epoch. They are kept in memory up to a budget,
then on the disk up to another. The one surprising fact: what came first stays, since epochs visit all images in turn,
and dropping the oldest would drop each just before its use.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import InternVLForConditionalGeneration, InternVLProcessor

from facellm.data import open_image
from facellm.inputs import count_tiles, look_at
from facellm.training.disk_space import is_of_a_full_disk

log = logging.getLogger(__name__)


@dataclass
class Room:
    """Where features may be kept, in bytes, and for which images it is worth it."""

    memory: int = 0
    disk: int = 0
    folder: Path | None = None  # of the files on the disk; several processes of one machine may share it
    again: Collection[int] | None = None  # numbers of the images that come again; None: all


class ImageTable:
    """The images of a data set, each once, whatever it is called in how many pairs."""

    def __init__(
        self,
        paths: Iterable[str],
        processor: InternVLProcessor,
        room: Room,
        *,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Open every image once, so that a missing or damaged one is found before the first step.

        Args:
            room: for the features.
            check: called before each image; what it raises ends the work.

        Raises:
            ImageError: an image cannot be opened.
        """
        self.paths = sorted(set(paths))
        self.numbers = {path: number for number, path in enumerate(self.paths)}
        self.room = room
        self._processor = processor
        self._kept: dict[int, Tensor] = {}
        self.tiles = [self._count_tiles(path, check) for path in self.paths]

    def _count_tiles(self, path: str, check: Callable[[], None]) -> int:
        check()
        return count_tiles(open_image(path), self._processor)

    def features(self, numbers: Sequence[int], model: InternVLForConditionalGeneration) -> Tensor:
        """The features of these images, one after another: [tiles, tokens of a tile, width of the language model]."""
        found: dict[int, Tensor | None] = {
            number: self._find(number, model.device) for number in dict.fromkeys(numbers)
        }
        new = [number for number, some in found.items() if some is None]
        for number, computed in zip(new, self._compute(new, model), strict=True):
            self._keep(number, computed)
            found[number] = computed
        return torch.cat([some for number in numbers if (some := found[number]) is not None])

    def _find(self, number: int, device: torch.device) -> Tensor | None:
        if number in self._kept:
            return self._kept[number]
        file = self._file(number)
        return load_file(file, device=str(device))["features"] if file is not None and file.is_file() else None

    @torch.no_grad()
    def _compute(self, numbers: Sequence[int], model: InternVLForConditionalGeneration) -> list[Tensor]:
        return look_at([open_image(self.paths[number]) for number in numbers], self._processor, model)

    def _keep(self, number: int, some: Tensor) -> None:
        if self.room.again is not None and number not in self.room.again:
            return
        if some.nbytes <= self.room.memory:
            self._kept[number] = some
            self.room.memory -= some.nbytes
        elif (file := self._file(number)) is not None and some.nbytes <= self.room.disk:
            self._write(file, some)

    def _write(self, file: Path, some: Tensor) -> None:
        """The file appears complete or not at all; a full disk only ends the keeping."""
        partial = file.with_suffix(f".{uuid4().hex}")
        try:
            file.parent.mkdir(exist_ok=True)
            save_file({"features": some.contiguous()}, partial)
            partial.replace(file)
            self.room.disk -= some.nbytes
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            if not is_of_a_full_disk(error, file.parent):
                raise
            log.info(f"The disk of {file.parent} is full: features of images are computed again instead of kept.")
            self.room.disk = 0

    def _file(self, number: int) -> Path | None:
        return None if self.room.folder is None else self.room.folder / f"{number}.safetensors"
