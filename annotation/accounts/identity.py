"""Who is asking, and what they may do: what every tab asks before an event changes something.

    require(who(request), Role.CURATOR, "take a snapshot")

The one surprising fact: a name alone means little here. Where there are no accounts, everybody is the admin of the
settings; and a visitor without a name has not signed in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from annotation.models import Role
from facellm.errors import AccessError

ARTICLES: Final = {
    Role.VISITOR: "a visitor",
    Role.REVIEWER: "a reviewer",
    Role.CURATOR: "a curator",
    Role.ADMIN: "an admin",
}


@dataclass(frozen=True)
class Identity:
    """Somebody, as the server knows them."""

    name: str  # empty: not signed in
    role: Role

    def may(self, role: Role) -> bool:
        """Whether they may do what this role may."""
        return self.role.rank >= role.rank


NOBODY: Final = Identity("", Role.VISITOR)
Who = Callable[[Any], Identity]  # of a gr.Request, a Starlette request, or None where there is none


def refusal(identity: Identity, role: Role, what: str) -> str:
    """Why somebody may not; empty where they may.

    Args:
        identity: who is asking.
        role: the least role that may.
        what: goes on from "Only a curator can", such as "take a snapshot".
    """
    if identity.may(role):
        return ""
    only = f"Only {ARTICLES[role]} can {what}"
    if not identity.name:
        return f"{only}; you are not signed in. Sign in at the top of the page."
    return (
        f"{only}; you are signed in as {identity.name}, {ARTICLES[identity.role]}. "
        "Ask an admin to do it, or to give you that role."
    )


def require(identity: Identity, role: Role, what: str) -> None:
    """Go on only if somebody may; the arguments are those of `refusal`.

    Raises:
        AccessError: they may not.
    """
    if why := refusal(identity, role, what):
        raise AccessError(why)
