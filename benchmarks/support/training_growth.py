"""How the trainer's cost grows with the pairs of an image, and its memory with the data.

    linear(FOLDER, steps=8, repeats=3)    CPU seconds for an image with 1 to 16 pairs
    memory(FOLDER, sizes=(10_000, 100_000))

The one surprising fact: for the memory, the images are a few files under many names, since what is measured is what
the data cost, not what pictures cost on a disk; the trainer cannot know that they are the same.
"""

import os
from pathlib import Path
from typing import Any

import numpy
from support.trainers import Task, run_ours
from support.training_pairs import make_pairs
from support.watched import Watched

from facellm.data import Example, Provenance

COUNTS = (1, 2, 4, 8, 16)  # pairs of an image
IMAGES = 4  # of a step
WARM_UP = 3  # steps
FILES = 16  # different pictures
SMALL = 64  # pixels; the processor makes one tile of it as of a large one


def linear(folder: Path, *, steps: int, repeats: int, threads: int) -> dict[str, Any]:
    """CPU seconds for an image by the number of its pairs, the line through them, and how far they are from it."""
    found: dict[int, list[float]] = {count: [] for count in COUNTS}
    tokens: dict[int, float] = {}
    for _ in range(repeats):
        for count in COUNTS:
            done = run_ours(Task(folder, count, WARM_UP + steps, batch=IMAGES * count), threads=threads)
            found[count].append(done.per_step(WARM_UP)[0] / IMAGES)
            tokens[count] = _tokens(done) / IMAGES
    seconds = {count: min(values) for count, values in found.items()}
    slope, start = numpy.polyfit(list(COUNTS), list(seconds.values()), 1)
    return {
        "cpu_per_image": seconds,
        "tokens_per_image": tokens,
        "start": float(start),
        "per_pair": float(slope),
        "furthest": max(abs(seconds[count] / (start + slope * count) - 1) for count in COUNTS),
    }


def _tokens(done: Watched) -> float:
    first, last = done.steps[WARM_UP - 1], done.steps[-1]
    return float(last.line["tokens"] - first.line["tokens"]) / (last.number - first.number)


def memory(folder: Path, *, sizes: tuple[int, ...], threads: int) -> dict[str, Any]:
    """The most memory that a run of three steps has resident, in bytes, by the number of its pairs."""
    rows: dict[int, Any] = {}
    for size in sizes:
        done = run_ours(Task(folder, 8, steps=3), threads=threads, examples=_many_pairs(folder, size))
        rows[size] = {"memory": done.memory, "first_step_cpu": done.steps[0].cpu}
    least, most = min(sizes), max(sizes)
    grown = rows[most]["memory"] - rows[least]["memory"]
    return {"sizes": rows, "bytes_per_pair": grown / (most - least) if most > least else None}


def _many_pairs(folder: Path, count: int) -> list[Example]:
    """Pairs of few pictures under many names, eight of each name."""
    few = make_pairs(folder / "small", images=FILES, per_image=8, side=SMALL)
    links = folder / "many"
    links.mkdir(exist_ok=True)
    made: list[Example] = []
    for number in range(count // 8):
        path = links / f"{number:06}.png"
        eight = few[number % FILES * 8 :][:8]
        if not path.exists():
            os.link(eight[0].images[0], path)
        named = {"images": (str(path),), "provenance": Provenance(image_sha256=(f"{number:064x}",))}
        made += [each.model_copy(update=named) for each in eight]
    return made
