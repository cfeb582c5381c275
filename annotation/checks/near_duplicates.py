"""Answers that repeat an earlier one almost word for word, found by MinHash.

    near_duplicates(["...", "..."])        {1: (0, 0.93)}: text 1 repeats text 0, 93 % of their phrases are the same

Two texts are compared by their sets of five words in a row (Lee et al., "Deduplicating Training Data Makes Language
Models Better", 2021); they are near duplicates from a Jaccard similarity of 0.8. MinHash only proposes who may be
alike, and each proposal is then counted exactly. The one surprising fact: a repeated text is not compared with again,
so a thousand copies of one sentence cost no more than a thousand comparisons.
"""

import re
import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

WORDS_IN_A_ROW: Final = 5
SIMILAR: Final = 0.8
SHORTEST: Final = 20  # words; shorter answers repeat each other by chance: "The head faces the camera."
BANDS: Final = 25
ROWS: Final = 5  # values a band: of texts with a similarity of 0.8, 99.99 % share a band; of 0.4, 23 %
_PROPOSED: Final = SIMILAR - 0.15  # of the signature's values that must agree before a pair is counted exactly

Hashes = npt.NDArray[np.uint64]
_WORD: Final = re.compile(r"\w+")


def near_duplicates(texts: Sequence[str]) -> dict[int, tuple[int, float]]:
    """For each text that repeats an earlier one: the earlier one's position, and their Jaccard similarity.

    Args:
        texts: in the order in which they count as earlier; those of fewer than 20 words are never reported.
    """
    multipliers, offsets = _permutations()
    buckets: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)
    kept: dict[int, Hashes] = {}
    rows = np.zeros((len(texts), BANDS * ROWS), np.uint32)
    exact: dict[bytes, int] = {}
    found: dict[int, tuple[int, float]] = {}
    for number, text in enumerate(texts):
        hashes = _phrases(text)
        if hashes is None:
            continue
        same = exact.setdefault(hashes.tobytes(), number)
        if same != number:
            found[number] = (same, 1.0) if same not in found else (found[same][0], found[same][1])
            continue
        rows[number] = _signature(hashes, multipliers, offsets)
        keys = [(band, rows[number, band * ROWS : (band + 1) * ROWS].tobytes()) for band in range(BANDS)]
        candidates = sorted({other for key in keys for other in buckets.get(key, ())})
        best = _most_similar(number, hashes, candidates, rows, kept)
        if best is not None:
            found[number] = best
            continue
        kept[number] = hashes
        for key in keys:
            buckets[key].append(number)
    return found


def _permutations() -> tuple[Hashes, Hashes]:
    """Multipliers and offsets of the random hash functions, always the same: (1, bands × rows) each."""
    rng = np.random.default_rng(4)
    shape = (1, BANDS * ROWS)
    return (
        rng.integers(0, 2**64, shape, dtype=np.uint64) | np.uint64(1),
        rng.integers(0, 2**64, shape, dtype=np.uint64),
    )


def _phrases(text: str) -> Hashes | None:
    """The sorted hashes of all five words in a row, each once; None for a text that is too short."""
    words = _WORD.findall(text.lower())
    if len(words) < SHORTEST:
        return None
    numbers = np.fromiter((zlib.crc32(word.encode()) for word in words), np.uint64, len(words))
    mixed = np.zeros(len(words) - WORDS_IN_A_ROW + 1, np.uint64)
    for place in range(WORDS_IN_A_ROW):
        mixed = (mixed ^ numbers[place : place + len(mixed)]) * np.uint64(0x9E3779B97F4A7C15)  # wraps around
        mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed)


def _signature(hashes: Hashes, multipliers: Hashes, offsets: Hashes) -> npt.NDArray[np.uint32]:
    """The smallest value of each hash function over all phrases."""
    return ((hashes[:, None] * multipliers + offsets) >> np.uint64(32)).min(axis=0).astype(np.uint32)


def _most_similar(
    number: int, hashes: Hashes, candidates: list[int], rows: npt.NDArray[np.uint32], kept: dict[int, Hashes]
) -> tuple[int, float] | None:
    """The candidate with the highest exact similarity, if that is high enough."""
    if not candidates:
        return None
    alike = (rows[candidates] == rows[number]).mean(axis=1)
    best: tuple[int, float] | None = None
    for other in (candidate for candidate, share in zip(candidates, alike, strict=True) if share >= _PROPOSED):
        common = np.intersect1d(hashes, kept[other], assume_unique=True).size
        similarity = common / (hashes.size + kept[other].size - common)
        if similarity >= max(SIMILAR, best[1] if best else 0) and (best is None or similarity > best[1]):
            best = (other, similarity)
    return best
