"""Who is asking, where a tab is served alone and it does not matter how they signed in."""

from typing import Any

from annotation.accounts.identity import Identity
from annotation.models import Role


def ana(_request: Any) -> Identity:
    """A reviewer, whoever asks."""
    return Identity("ana", Role.REVIEWER)


def cleo(_request: Any) -> Identity:
    """A curator, whoever asks."""
    return Identity("cleo", Role.CURATOR)


def nobody_is_refused(_request: Any, _what: str) -> str:
    """Whoever asks may do what they ask for."""
    return ""
