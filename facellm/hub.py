"""An export to the Hugging Face Hub, as a dataset repository.

The token is read by huggingface_hub itself: from HF_TOKEN, or where `hf auth login` has put it. The one surprising
fact: a repository that is made here is private, for the pictures are faces; one that is there stays as public as it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from facellm.errors import ConfigError, DataError


def check_can_push(repository: str) -> None:
    """See before the work what can be seen without the network.

    Raises:
        ConfigError: there is no token, or the name is none of a repository.
    """
    from huggingface_hub import get_token  # noqa: PLC0415 - it takes half a second, and few need it
    from huggingface_hub.utils import HFValidationError, validate_repo_id  # noqa: PLC0415

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(
            f"--push-to-hub {repository} is no name of a repository. Expected NAME or OWNER/NAME."
        ) from error
    if get_token() is None:
        raise ConfigError(
            "--push-to-hub needs a token that may write: set HF_TOKEN, or sign in once with `hf auth login`."
        )


def push(folder: Path, repository: str, message: str) -> str:
    """Upload an export; return the address of its repository, which is made, private, where there is none.

    Raises:
        DataError: the Hub cannot be reached or refuses; the export stays where it is.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415 - it takes half a second, and few need it
    from huggingface_hub.utils import logging  # noqa: PLC0415

    logging.set_verbosity_error()  # what it tries again on its own is no news
    with _explained(folder, repository):
        api = HfApi()
        made = api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=made.repo_id, repo_type="dataset", commit_message=message)
        return str(made)


@contextmanager
def _explained(folder: Path, repository: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled  # noqa: PLC0415

    again = f"The export is in {folder}; to try again: hf upload --repo-type dataset {repository} {folder}"
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
