"""Whether whoever presses a button may do so, as the model side asks it: by a callable, since it knows no accounts.

The one surprising fact: the same question is asked twice, when the page is drawn, to show what can be pressed, and when
it is pressed, because only that counts.
"""

from collections.abc import Callable
from typing import Any

from facellm.errors import AccessError

# (a gr.Request, what goes on from "Only a curator can") → why not, as a sentence; empty where it may be done.
Refusal = Callable[[Any, str], str]


def check(refusal: Refusal, request: Any, what: str) -> None:
    """Go on only if whoever sends the request may.

    Raises:
        AccessError: they may not.
    """
    if why := refusal(request, what):
        raise AccessError(why)
