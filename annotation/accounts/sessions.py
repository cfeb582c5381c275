"""Sessions: a signed cookie that says which account has signed in, and in which of its sessions' generations.

The one surprising fact: the cookie alone opens nothing. The account is looked up at every request, and a cookie of an
older generation (before a sign-out, a new password or a deactivation) is nobody's; so no session has to be stored.
"""

import hashlib
import os
import secrets
import time
from pathlib import Path
from typing import Final

from itsdangerous import BadData, URLSafeTimedSerializer

from annotation.models import Reviewer
from facellm.errors import ConfigError

SECONDS: Final = 14 * 24 * 3600
SECRET_FILE: Final = "session_secret"
SECRET_CHARACTERS: Final = 64


class Sessions:
    """Makes cookies and reads them."""

    def __init__(self, secret: str, *, seconds: int = SECONDS) -> None:
        """Sign with this secret; whoever knows it can be anybody."""
        self.seconds = seconds
        sha256 = {"digest_method": hashlib.sha256}
        self._signer = URLSafeTimedSerializer(secret, salt="facellm.session", signer_kwargs=sha256)
        # A browser keeps one jar for all ports of a machine: two apps there must not sign each other out.
        self.cookie = f"facellm-{hashlib.sha256(b'name' + secret.encode()).hexdigest()[:8]}"

    def sign(self, reviewer: Reviewer) -> str:
        """The cookie of somebody who has just shown the right password."""
        return self._signer.dumps([reviewer.id, reviewer.session])

    def read(self, value: str) -> tuple[int, int] | None:
        """The account's id and the generation that a cookie names; None where it is no cookie of ours, or too old."""
        try:
            account, generation = self._signer.loads(value, max_age=self.seconds)
        except (BadData, ValueError, TypeError):
            return None
        return int(account), int(generation)


def session_secret(setting: str, data_dir: Path) -> str:
    """The secret of the settings; without one, that of the data directory, made at its first use.

    Raises:
        ConfigError: the setting is too short to be safe, or the file holds no secret.
    """
    if setting:
        if len(setting) < SECRET_CHARACTERS // 2:
            raise ConfigError(
                f"FACELLM_SESSION_SECRET has {len(setting)} characters; expected at least {SECRET_CHARACTERS // 2} "
                "random ones. Set it to such, or leave it out: a secret is then made in the data directory."
            )
        return setting
    path = data_dir / SECRET_FILE
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_secret(path)
    with os.fdopen(file, "w") as stream:
        stream.write(secret := secrets.token_hex(SECRET_CHARACTERS // 2))
    return secret


def _read_secret(path: Path) -> str:
    """What another process wrote, which may have begun this very moment."""
    last = time.monotonic() + 2
    while len(found := path.read_text(encoding="utf-8").strip()) < SECRET_CHARACTERS:
        if time.monotonic() > last:
            raise ConfigError(
                f"{path} holds no secret of {SECRET_CHARACTERS} characters. Delete it: a new one is made, and "
                "everybody has to sign in again."
            )
        time.sleep(0.02)
    return found
