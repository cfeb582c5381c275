"""A folder to the Hugging Face Hub: an export as a dataset repository, an adapter as a model repository.

The token is read by huggingface_hub itself: from HF_TOKEN, or where `hf auth login` has put it, and never shown. The
one surprising fact: a repository that is there stays as public as it is; `private` is for one that is made.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import httpx2

from facellm.errors import ConfigError, DataError


def check_repository(name: str, what: str) -> None:
    """Raise ConfigError if this can be no repository's name; `what` is the option by which a person gave it."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id  # noqa: PLC0415 - it takes half a second

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"{what} {name} is no name of a repository. Expected NAME or OWNER/NAME.") from error


def check_token(what: str) -> None:
    """Raise ConfigError if there is no token to push with; `what` is the option that needs it."""
    from huggingface_hub import get_token  # noqa: PLC0415 - it takes half a second, and few need it

    if get_token() is None:
        raise ConfigError(f"{what} needs a token that may write: set HF_TOKEN, or sign in once with `hf auth login`.")


def push(
    folder: Path, repository: str, message: str, *, kind: Literal["dataset", "model"], private: bool, again: str
) -> str:
    """Upload a folder; return the address of its repository, which is made where there is none.

    Args:
        folder: with what is to be there.
        repository: NAME or OWNER/NAME.
        message: of the commit.
        kind: of repository.
        private: whether a repository that is made is hidden from others.
        again: what to do after a failure, a sentence.

    Raises:
        DataError: the Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415 - it takes half a second, and few need it
    from huggingface_hub.utils import logging  # noqa: PLC0415

    logging.set_verbosity_error()  # what it tries again on its own is no news
    with _explained(repository, again):
        api = HfApi()
        made = api.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=made.repo_id, repo_type=kind, commit_message=message)
        return str(made)


@contextmanager
def _explained(repository: str, again: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled  # noqa: PLC0415

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise DataError(f"Nothing was pushed to {repository}: HF_HUB_OFFLINE is set. {again}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = {
            401: "the token is not valid",
            403: "the token may not write there",
            404: "there is no such owner, or the token may not see it",
            429: "the Hub asks to wait",
        }.get(status, "it is in trouble" if status >= 500 else error.server_message or "it did not say why")
        raise DataError(f"The Hub refused to take {repository} (HTTP {status}): {reason}. {again}") from error
    except (OSError, httpx2.HTTPError) as error:
        raise DataError(f"The Hub could not be reached to push {repository}: {error}. {again}") from error
