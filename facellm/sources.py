"""Where models and adapters come from: a folder, or a repository of the Hugging Face Hub, and a folder within either.

    OpenGVLab/InternVL3-1B-hf       a repository
    Idiap/FaceLLM-1B#model          the folder `model` in a repository
    data/runs/run-1/adapter         a folder

The one surprising fact: the Hub's client takes a mistyped folder for a repository and tries for half a minute to reach
it, so what cannot be a repository's name is refused here at once.
"""

import re
from pathlib import Path

from facellm.errors import ModelError

_SUCH_AS = {"model": "OpenGVLab/InternVL3-1B-hf", "adapter": "somebody/their-face-lora"}
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def find_source(source: str | Path, what: str) -> tuple[str, str]:
    """A folder or repository, and the path within it, "" for none.

    Args:
        what: "model" or "adapter", for the message.

    Raises:
        ModelError: it is neither.
    """
    place, _, within = str(source).partition("#")
    if Path(place).is_dir() or is_repository(place):
        return place, within
    found = "is a file" if Path(place).is_file() else "does not exist"
    raise ModelError(
        f"The {what} {source} cannot be loaded: {place} {found}. Expected a folder, or a repository of the Hugging "
        f"Face Hub such as {_SUCH_AS[what]}."
    )


def is_repository(place: str) -> bool:
    """Whether this can be a repository of the Hub rather than a folder of this machine."""
    return _REPOSITORY.fullmatch(place) is not None and not Path(place).exists()
