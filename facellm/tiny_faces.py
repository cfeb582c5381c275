"""Training pictures of the embedded model: many rendered faces as pixels of the size it sees.

Used by `facellm.tiny`. The one surprising fact: faces are drawn at 96 pixels and scaled by the processor's own image
processor, which gives the same pixels (within noise) as a 256-pixel picture and takes an eighth of the time.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
from torchvision.transforms.v2 import functional as resizing

from facellm import faces

DRAWN_SIZE = 96  # pixels
CHUNK = 250  # faces a worker draws at a time


@dataclass(frozen=True)
class Pictures:
    """Faces, and their pixels as uint8 of shape (faces, 3, size, size)."""

    faces: tuple[faces.Face, ...]
    pixels: torch.Tensor


def draw_all(seeds: Sequence[int], size: int, *, workers: int = 2) -> Pictures:
    """Render the faces of the seeds at `size` pixels, in several processes."""
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        drawn = [torch.from_numpy(part) for part in pool.map(_draw, chunks)]
    pixels = [
        resizing.resize(part.permute(0, 3, 1, 2), [size, size], resizing.InterpolationMode.BICUBIC, antialias=True)
        for part in drawn
    ]
    return Pictures(tuple(faces.sample(seed) for seed in seeds), torch.cat(pixels))


def _draw(seeds: Sequence[int]) -> np.ndarray:
    return np.stack([np.asarray(faces.render(faces.sample(seed), DRAWN_SIZE)) for seed in seeds])
