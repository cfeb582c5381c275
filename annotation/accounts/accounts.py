"""Accounts: the people by name, their roles and passwords. The store's door to them is `store.accounts`.

    store.accounts.add("ann", Role.CURATOR, password="correct horse battery")

An account is never deleted, because its name stands at decisions; it is deactivated. The one surprising fact: names are
compared in Python, since of letters like Ä the databases know upper and lower case only in some builds.
"""

import unicodedata
from collections.abc import Callable, Iterable
from typing import Final

from sqlalchemy import Engine
from sqlmodel import col, func, select

from annotation.accounts.passwords import check_password, hash_password, matches
from annotation.database import reading, writing
from annotation.models import Reviewer, Role
from facellm.errors import DataError

LONGEST_NAME: Final = 40


class Accounts:
    """The accounts of one database."""

    def __init__(self, engine: Engine) -> None:
        """Use `store.accounts`."""
        self._engine = engine

    # Looking

    def all(self) -> list[Reviewer]:
        """All accounts by name, deactivated ones too."""
        with reading(self._engine) as session:
            return sorted(session.exec(select(Reviewer)).all(), key=lambda each: each.name.casefold())

    def have_passwords(self) -> bool:
        """Whether there is an account that can sign in here; once there is one, there always will be."""
        query = select(func.count()).select_from(Reviewer).where(Reviewer.password != "")
        with reading(self._engine) as session:
            return session.exec(query).one() > 0

    def of_session(self, account: int, generation: int) -> Reviewer | None:
        """The active account of this id, if its sessions are still of this generation."""
        query = select(Reviewer).where(Reviewer.id == account, Reviewer.session == generation, col(Reviewer.active))
        with reading(self._engine) as session:
            return session.exec(query).first()

    def of_huggingface(self, user: str) -> Reviewer | None:
        """The account of a Hugging Face user, deactivated or not; there, upper and lower case are the same."""
        with reading(self._engine) as session:
            return _first(session.exec(select(Reviewer)), lambda each: _same(each.huggingface, user))

    def check(self, name: str, password: str) -> Reviewer | None:
        """The active account of this name if it is its password; None takes as long, whatever was wrong."""
        with reading(self._engine) as session:
            found = _first(session.exec(select(Reviewer)), lambda each: _same(each.name, name))
        right = matches(password, found.password if found is not None else "")
        return found if right and found is not None and found.active else None

    # Changing

    def add(self, name: str, role: Role, *, password: str = "", huggingface: str = "") -> Reviewer:
        """Add somebody who signs in with a password, by a Hugging Face account, or either.

        Raises:
            DataError: a name that cannot be one or is taken, a weak password, neither of the two ways to sign in, or
                the first password that is not an admin's: nobody could give out roles then.
        """
        name, huggingface = checked_name(name), huggingface.strip()
        if not password and not huggingface:
            raise DataError(f"{name} has no way to sign in. Give a password, a Hugging Face user name, or both.")
        if password:
            check_password(password)
        hashed = hash_password(password) if password else ""
        row = {"name": name, "role": role, "password": hashed, "huggingface": huggingface}
        with writing(self._engine) as session:
            others = session.exec(select(Reviewer)).all()
            if any(_same(each.name, name) for each in others):
                raise DataError(f"There is an account {name} already. Choose another name.")
            if huggingface and any(_same(each.huggingface, huggingface) for each in others):
                raise DataError(f"The Hugging Face user {huggingface} has an account already. Change that one's role.")
            if password and role is not Role.ADMIN and not any(each.password for each in others):
                raise DataError(
                    "The first account with a password has to be an admin's, who can then add others: from then on "
                    f"everybody has to sign in. Give {name} the role admin, or add an admin first."
                )
            session.add(added := Reviewer.model_validate(row))
            session.flush()
            return added

    def set_role(self, name: str, role: Role) -> Reviewer:
        """Give somebody another role; it holds from the next request on.

        Raises:
            DataError: there is no such account, or no admin would be left.
        """

        def change(account: Reviewer) -> None:
            account.role = role

        return self._change(name, change)

    def set_password(self, name: str, password: str) -> Reviewer:
        """Change somebody's password, which ends all their sessions.

        Raises:
            DataError: there is no such account, or the password is a weak one.
        """
        check_password(password)
        hashed = hash_password(password)

        def change(account: Reviewer) -> None:
            account.password = hashed
            account.session += 1

        return self._change(name, change)

    def set_active(self, name: str, active: bool) -> Reviewer:
        """Let somebody sign in again or no longer; the latter ends all their sessions.

        Raises:
            DataError: there is no such account, or no admin would be left.
        """

        def change(account: Reviewer) -> None:
            account.active = active
            account.session += 1

        return self._change(name, change)

    def end_sessions(self, name: str) -> Reviewer:
        """Sign somebody out everywhere.

        Raises:
            DataError: there is no such account.
        """

        def change(account: Reviewer) -> None:
            account.session += 1

        return self._change(name, change)

    def _change(self, name: str, change: Callable[[Reviewer], None]) -> Reviewer:
        with writing(self._engine) as session:
            accounts = session.exec(select(Reviewer)).all()
            account = _first(accounts, lambda each: _same(each.name, name))
            if account is None:
                known = ", ".join(sorted(each.name for each in accounts)) or "none"
                raise DataError(f"There is no account {name}; there are: {known}.")
            had = _admins(accounts)
            change(account)
            if had and not _admins(accounts):
                raise DataError(f"{account.name} is the last admin. Make somebody else an admin first.")
            session.add(account)
            session.flush()
            return account


def checked_name(name: str) -> str:
    """The name as it is stored: without space around it, each letter in one form.

    Raises:
        DataError: it is empty, too long, or has characters that cannot be seen.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not 1 <= len(name) <= LONGEST_NAME:
        raise DataError(f"The name has {len(name)} characters; expected 1 to {LONGEST_NAME}. Choose another one.")
    if not name.isprintable():
        raise DataError("The name has a character that cannot be printed. Type it anew.")
    return name


def _same(one: str, other: str) -> bool:
    """Whether two names are one person's; an empty one is nobody's."""
    return bool(one) and folded_name(one) == folded_name(other)


def folded_name(name: str) -> str:
    """The name as it is compared: without spaces around it, in one form of its characters, in small letters."""
    return unicodedata.normalize("NFC", name.strip()).casefold()


def _first(accounts: Iterable[Reviewer], wanted: Callable[[Reviewer], bool]) -> Reviewer | None:
    return next(filter(wanted, accounts), None)


def _admins(accounts: Iterable[Reviewer]) -> int:
    return sum(each.active and each.role is Role.ADMIN for each in accounts)
