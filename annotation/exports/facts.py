"""What was known about a snapshot's pairs when it was taken, beside the pairs themselves: `facts.json` in its folder.

Reviewers, rejections and where images came from are not in a pair's own record, and the database goes on changing. So
they are counted in the same read that froze the pairs. The one surprising fact: snapshots of earlier versions have no
such file; their data card says so.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from facellm.errors import DataError

FACTS_FILE = "facts.json"


class Facts(BaseModel):
    """Counts of the moment; the pool is all pairs that the snapshot's filter would take, were it not for the status."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sources: dict[str, int]  # images by where they came from: rendered, fairface, chat, imported, …
    statuses: dict[str, dict[str, int]]  # of the pool, by attribute and status
    reviewers: dict[str, dict[str, int]]  # standing verdicts about the pool, by reviewer and action
    seen_twice: int  # pairs of the snapshot with verdicts of two reviewers or more


def write_facts(folder: Path, facts: Facts) -> None:
    """Write them into a snapshot's folder."""
    (folder / FACTS_FILE).write_text(facts.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_facts(folder: Path) -> Facts | None:
    """Those of a snapshot; None where it was taken by an earlier version.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / FACTS_FILE
    if not path.exists():
        return None
    try:
        return Facts.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged. Restore it from a copy, or take a new snapshot.") from error
