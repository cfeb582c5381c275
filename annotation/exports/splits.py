"""Training, validation and test parts, by image and never by pair.

    splits = Splits.parse("train=0.8,validation=0.1,test=0.1", seed=0)
    splits.of("9f86d0…")        "train"

Where an image falls follows from its content and the seed alone: a hash of both is a number from 0 to 1, and the parts
lie side by side on that line. So an image keeps its part whatever pairs, labels or images are added, on any machine;
and where a share is changed a little, few images move.

The one surprising fact: that is also why strata are met on average only. Exact shares in each group would need to know
the group's other images, and then an image added today moves another one tomorrow. Of n images of a group, the share
in a part deviates from p by √(p(1-p)/n) as a rule: 0.9 points for a tenth of 1,200 images. The data card tells the
shares that came out in each group.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from facellm.errors import ConfigError

PARTS: Final = ("train", "validation", "test")
_EXPECTED: Final = "Expected shares that add up to 1, such as train=0.8,validation=0.1,test=0.1."
_WHOLE: Final = 2**64  # the hash of an image is below it


@dataclass(frozen=True)
class Splits:
    """The parts with their shares, in the order of PARTS; each share is above 0, and they add up to 1."""

    shares: tuple[tuple[str, float], ...]
    seed: int = 0

    @classmethod
    def parse(cls, text: str, seed: int = 0) -> "Splits":
        """Read `train=0.8,validation=0.1,test=0.1`.

        Raises:
            ConfigError: an unknown or repeated part, a share that is no number above 0, or a sum that is not 1.
        """
        found: dict[str, float] = {}
        for item in text.split(","):
            name, _, share = (part.strip() for part in item.partition("="))
            if name not in PARTS or name in found:
                raise ConfigError(f"--splits has the part {name!r}; the parts are {', '.join(PARTS)}, each once.")
            try:
                found[name] = float(share)
            except ValueError as error:
                raise ConfigError(f"--splits gives {name} the share {share!r}. {_EXPECTED}") from error
            if not 0 < found[name] < 1:
                raise ConfigError(f"--splits gives {name} the share {share}, which is not between 0 and 1. {_EXPECTED}")
        if abs(sum(found.values()) - 1) > 1e-6:
            raise ConfigError(f"The shares of --splits add up to {sum(found.values()):g}. {_EXPECTED}")
        return cls(tuple((name, found[name]) for name in PARTS if name in found), seed)

    @property
    def names(self) -> tuple[str, ...]:
        """The parts there are."""
        return tuple(name for name, _ in self.shares)

    def of(self, sha256: str) -> str:
        """The part of the image with this SHA-256."""
        digest = hashlib.sha256(f"split {self.seed} {sha256}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / _WHOLE
        end = 0.0
        for name, share in self.shares:
            end += share
            if place < end:
                return name
        return self.shares[-1][0]  # the shares may add up to a little less than 1

    def check_none_is_empty(self, images: Iterable[str]) -> None:
        """See that each part has got an image.

        Raises:
            ConfigError: one has none.
        """
        there = {self.of(sha256) for sha256 in images}
        for name, share in self.shares:
            if name not in there:
                raise ConfigError(
                    f"Of these images none falls into {name}, whose share is {share:g}: they are too few. "
                    f"Leave {name} out, or give another --seed."
                )

    def __str__(self) -> str:
        return ",".join(f"{name}={share:g}" for name, share in self.shares)
