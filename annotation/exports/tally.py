"""What a set of pairs consists of: counted while it is written, told in its data card.

The one surprising fact: pairs and images are counted apart, because eight pairs about one face are one face.
"""

from collections import Counter

from annotation.exports.snapshot_file import Row
from annotation.models import FREE_QUESTION, GROUPS

Group = tuple[str, ...]  # race, gender, age; '' where unknown


class Tally:
    """Counts of pairs and images by what is known about them."""

    def __init__(self) -> None:
        self.attributes: Counter[str] = Counter()  # of pairs, as are the next four
        self.teachers: Counter[str] = Counter()
        self.prompt_versions: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, Group]] = Counter()  # by part and group
        self.images: Counter[tuple[str, Group]] = Counter()
        self.labels: Counter[tuple[str, str]] = Counter()  # of images, by name and value
        self._seen: set[str] = set()

    def add(self, row: Row, part: str) -> None:
        """Count a pair, and its image if that is new."""
        provenance = row.record["provenance"]
        group = tuple(row.labels.get(name, "") for name in GROUPS)
        self.attributes[row.attribute or FREE_QUESTION] += 1
        self.teachers[provenance["teacher"] or "unknown"] += 1
        self.prompt_versions[provenance["prompt_version"] or "unknown"] += 1
        self.statuses[provenance["status"] or "unknown"] += 1
        self.pairs[part, group] += 1
        if row.image not in self._seen:
            self._seen.add(row.image)
            self.images[part, group] += 1
            self.labels.update(row.labels.items())

    @property
    def pair_count(self) -> int:
        """All pairs."""
        return self.pairs.total()

    @property
    def image_count(self) -> int:
        """All images."""
        return self.images.total()

    @property
    def is_grouped(self) -> bool:
        """Whether race, gender or age of any image is known."""
        return any(any(group) for _, group in self.images)

    def by(self, *names: str, pairs: bool = False, part: str | None = None) -> Counter[Group]:
        """Images (or pairs) by one or several of race, gender and age; of one part, or of all."""
        places = [GROUPS.index(name) for name in names]
        found: Counter[Group] = Counter()
        for (within, group), count in (self.pairs if pairs else self.images).items():
            if part in (None, within):
                found[tuple(group[place] for place in places)] += count
        return found
