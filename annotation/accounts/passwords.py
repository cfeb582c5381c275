"""Passwords: hashed with scrypt, compared in constant time.

    stored = hash_password("correct horse battery")
    matches("correct horse battery", stored)  # True

scrypt is in Python's own library and needs memory to try, as Argon2 does, so a library of C code would add a
dependency and little safety. The one surprising fact: where there is no such account, a hash is computed all the same;
otherwise the time that an answer takes would tell which names exist.
"""

import base64
import functools
import hashlib
import hmac
import secrets
import threading
import unicodedata
from typing import Final

from facellm.errors import DataError

SHORTEST: Final = 10
LONGEST: Final = 200
LOG_N, R, P = 14, 8, 5  # OWASP's parameters for 16 MB: about as hard to try as n = 2**17 once
SALT_BYTES: Final = 16
LETTERS: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # without those that look alike
_room = threading.BoundedSemaphore(2)  # so that many who sign in at once cannot take memory and cores from the rest


def check_password(password: str) -> None:
    """Whether this can become somebody's password.

    Raises:
        DataError: it is too short, too long, or all one character.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise DataError(
            f"The password has {len(password)} characters; expected {SHORTEST} to {LONGEST}. Choose another one."
        )
    if len(set(password)) == 1:
        raise DataError("The password is one character over and over. Choose another one.")


def generate_password() -> str:
    """A random password that can be read out, such as k3fm-9xqz-h2tb-w7ce: 79 bits."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(4))


def hash_password(password: str) -> str:
    """What to store: the parameters, a new salt and the hash, such as `scrypt$14$8$5$…$…`."""
    salt = secrets.token_bytes(SALT_BYTES)
    return "$".join(["scrypt", *map(str, (LOG_N, R, P)), _text(salt), _text(_scrypt(password, salt, LOG_N, R, P))])


def matches(password: str, stored: str) -> bool:
    """Whether it is the password of a stored hash; an empty hash matches nothing, and takes as long."""
    _, log_n, r, p, salt, wanted = (stored or _nobodys()).split("$")
    found = _scrypt(password, base64.b64decode(salt), int(log_n), int(r), int(p))
    return hmac.compare_digest(found, base64.b64decode(wanted)) and bool(stored)


@functools.cache
def _nobodys() -> str:
    return hash_password(secrets.token_hex())


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    """The same characters, however a keyboard composes them, give the same hash."""
    secret = unicodedata.normalize("NFKC", password).encode()
    with _room:
        return hashlib.scrypt(secret, salt=salt, n=2**log_n, r=r, p=p, maxmem=256 * r * 2**log_n, dklen=32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
