"""What is counted for a team: the store's door to it is `store.team`.

The one surprising fact: nothing is kept here. Every number is read from the rows as they are, so the dashboard, the
commands and a second process show the same.
"""

from sqlalchemy import Engine

from annotation.database import reading
from annotation.team.progress import Progress, read_progress
from annotation.team.replaying import Replay, check_replay
from annotation.team.reviewers import ReviewerQuality, read_reviewers


class TeamNumbers:
    """Progress, reviewers, and whether what is stored follows from the events."""

    def __init__(self, engine: Engine) -> None:
        """Use `store.team`."""
        self._engine = engine

    def progress(self) -> Progress:
        """How far the work has come; see `progress`."""
        with reading(self._engine) as session:
            return read_progress(session)

    def reviewers(self) -> list[ReviewerQuality]:
        """How well and fast each reviewer works; see `reviewers`."""
        with reading(self._engine) as session:
            return read_reviewers(session)

    def replay(self) -> Replay:
        """Whether all events add up to what is stored; see `replaying`."""
        with reading(self._engine) as session:
            return check_replay(session)
