"""What a pair is given when it is stored: copies of its image's groups, its overlap, and its place in the shuffle.

The one surprising fact: which pairs several reviewers see is not drawn, but follows from the pair's shuffle number, so
that a change of the share asks for more of them, or fewer, and never for others.
"""

import zlib
from collections.abc import Mapping

from sqlmodel import Session

from annotation.models import GROUPS, SHUFFLE, Pair, PairInput
from annotation.project import Project, read_project, stirred


class Newcomers:
    """Makes the rows of new pairs."""

    def __init__(self, session: Session, labels: Mapping[int, Mapping[str, str]]) -> None:
        """Give it the labels of the images: image id → name → value."""
        self._labels = labels
        self._project = read_project(session)

    def row(self, image_id: int, pair: PairInput, run_id: int | None = None) -> Pair:
        """A pair that is not stored yet; a decision that comes with it is not looked at."""
        labels = self._labels.get(image_id, {})
        shuffle = shuffle_of(image_id, pair)
        derived = {name: labels.get(name, "") for name in GROUPS} | {
            "image_id": image_id,
            "run_id": run_id,
            "shuffle": shuffle,
            "overlap": overlap_of(self._project, shuffle),
        }
        return Pair.model_validate(pair.model_dump(exclude={"decision"}) | derived)


def shuffle_of(image_id: int, pair: PairInput) -> int:
    """A number in 0…2³¹-1 that follows from what the pair is known by, so that a repeated import gives the same."""
    key = (str(image_id), pair.attribute or "", pair.prompt_version, pair.teacher, pair.parameters)
    return zlib.crc32("\0".join(key).encode()) % SHUFFLE


def overlap_of(project: Project, shuffle: int) -> int:
    """By how many reviewers a pair of this shuffle number is to be decided."""
    return project.overlap if stirred(shuffle) < project.overlap_share * SHUFFLE else 1
