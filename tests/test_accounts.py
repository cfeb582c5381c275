"""Accounts, passwords, pauses and sessions, without a server.

python -m pytest tests/test_accounts.py
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotation.accounts.attempts import ADDRESS, KEPT, NAME, NAME_AND_ADDRESS, Attempts
from annotation.accounts.identity import NOBODY, Identity, refusal, require
from annotation.accounts.passwords import LETTERS, check_password, generate_password, hash_password, matches
from annotation.accounts.sessions import Sessions, session_secret
from annotation.models import Role
from annotation.store import Store
from facellm.errors import AccessError, ConfigError, DataError

PASSWORD = "correct horse battery"
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    yield opened
    opened.close()


@pytest.fixture
def team(store: Store) -> Store:
    """An admin, ann, and a reviewer, bob."""
    store.accounts.add("ann", Role.ADMIN, password=PASSWORD)
    store.accounts.add("bob", Role.REVIEWER, password=PASSWORD)
    return store


def test_a_password_matches_its_own_hash_only() -> None:
    stored = hash_password(PASSWORD)
    assert matches(PASSWORD, stored)
    assert not matches(PASSWORD + " ", stored)
    assert not matches("", stored)
    assert not matches(PASSWORD, ""), "an account without a password"
    assert stored != hash_password(PASSWORD), "each has its own salt"
    assert PASSWORD not in stored
    assert matches("pa\u0308sswords", hash_password("p\u00e4sswords")), "one letter, composed in two ways"


def test_an_unknown_name_takes_as_long_as_a_wrong_password(team: Store) -> None:
    """In processor time of this thread; both compute one hash, which is nearly all that they do."""
    team.accounts.check("nobody", PASSWORD)  # the hash that unknown names are compared with is made once

    def seconds(name: str) -> float:
        taken = []
        for _ in range(3):
            before = time.thread_time()
            assert team.accounts.check(name, "a wrong password") is None
            taken.append(time.thread_time() - before)
        return min(taken)

    known, unknown = seconds("ann"), seconds("nobody")
    assert 0.5 < unknown / known < 2


@pytest.mark.parametrize("weak", ["", "short", "x" * 201, "aaaaaaaaaaaa"])
def test_weak_passwords_are_refused(weak: str) -> None:
    with pytest.raises(DataError, match="Choose another one"):
        check_password(weak)


def test_made_passwords_are_good_and_differ() -> None:
    made = {generate_password() for _ in range(100)}
    assert len(made) == 100
    for password in made:
        check_password(password)
        assert set(password) <= {*LETTERS, "-"}


def test_names(team: Store) -> None:
    accounts = team.accounts
    assert accounts.add("  Łucja Ä  ", Role.CURATOR, password=PASSWORD).name == "Łucja Ä"
    for name in ("ANN", "łucja ä", " Ann "):
        with pytest.raises(DataError, match="already"):
            accounts.add(name, Role.REVIEWER, password=PASSWORD)
    for name in ("", "   ", "x" * 41, "a\nb", "a\x00b", "zero\u200bwidth", "right\u202eleft"):
        with pytest.raises(DataError, match="name has"):
            accounts.add(name, Role.REVIEWER, password=PASSWORD)
    assert [each.name for each in accounts.all()] == ["ann", "bob", "Łucja Ä"]


def test_two_at_once_cannot_take_one_name(store: Store) -> None:
    refused = []

    def add(name: str) -> None:
        try:
            store.accounts.add(name, Role.ADMIN, password=PASSWORD)
        except DataError:
            refused.append(name)

    threads = [threading.Thread(target=add, args=(name,)) for name in ("zoe", "Zoe", "ZOE", "zOe")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    assert len(store.accounts.all()) == 1


def test_the_first_with_a_password_is_an_admin(store: Store) -> None:
    store.accounts.add("hub", Role.REVIEWER, huggingface="hub-user")
    with pytest.raises(DataError, match="has to be an admin's"):
        store.accounts.add("bob", Role.REVIEWER, password=PASSWORD)
    assert not store.accounts.have_passwords()
    store.accounts.add("ann", Role.ADMIN, password=PASSWORD)
    assert store.accounts.have_passwords()


def test_the_last_admin_stays(team: Store) -> None:
    accounts = team.accounts
    for change in (lambda: accounts.set_role("ann", Role.CURATOR), lambda: accounts.set_active("ann", False)):
        with pytest.raises(DataError, match="ann is the last admin"):
            change()
    (ann,) = [each for each in accounts.all() if each.name == "ann"]
    assert (ann.role, ann.active) == (Role.ADMIN, True), "nothing of a refused change is stored"
    accounts.set_role("bob", Role.ADMIN)
    assert accounts.set_active("ANN", False).active is False
    with pytest.raises(DataError, match="bob is the last admin"):
        accounts.set_role("bob", Role.REVIEWER)


def test_unknown_accounts_and_missing_ways_to_sign_in_are_told(team: Store) -> None:
    with pytest.raises(DataError, match="There is no account carl; there are: ann, bob"):
        team.accounts.set_role("carl", Role.ADMIN)
    with pytest.raises(DataError, match="no way to sign in"):
        team.accounts.add("carl", Role.REVIEWER)
    team.accounts.add("hub", Role.REVIEWER, huggingface="Hub-User")
    with pytest.raises(DataError, match="has an account already"):
        team.accounts.add("other", Role.REVIEWER, huggingface="hub-user")
    found = team.accounts.of_huggingface("HUB-USER")
    assert found is not None
    assert found.name == "hub"
    assert team.accounts.of_huggingface("") is None, "most accounts have no Hugging Face user"


def test_sessions_end_with_what_they_stood_on(team: Store) -> None:
    accounts = team.accounts
    for end in (
        lambda: accounts.end_sessions("bob"),
        lambda: accounts.set_password("bob", "another password"),
        lambda: accounts.set_active("bob", False),
        lambda: accounts.set_active("bob", True),
    ):
        (bob,) = [each for each in accounts.all() if each.name == "bob"]
        assert bob.id is not None
        end()
        assert accounts.of_session(bob.id, bob.session) is None
    assert accounts.check("bob", "another password") is not None
    accounts.set_active("bob", False)
    assert accounts.check("bob", "another password") is None


def test_a_cookie_is_read_only_if_it_is_ours_and_young(team: Store) -> None:
    (ann, bob) = team.accounts.all()
    sessions = Sessions("a" * 64)
    cookie = sessions.sign(bob)
    assert sessions.read(cookie) == (bob.id, 0)
    assert Sessions("b" * 64).read(cookie) is None, "another secret"
    assert Sessions("b" * 64).cookie != sessions.cookie
    assert Sessions("a" * 64, seconds=-1).read(cookie) is None, "too old"
    forged = sessions.sign(ann).split(".")[0] + "." + cookie.split(".", 1)[1]
    for value in (forged, cookie[:-1], "", "x.y.z", "\x00"):
        assert sessions.read(value) is None


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(session_secret("", tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1
    assert (tmp_path / "session_secret").stat().st_mode & 0o777 == 0o600
    assert session_secret("s" * 32, tmp_path) == "s" * 32
    with pytest.raises(ConfigError, match="FACELLM_SESSION_SECRET has 5"):
        session_secret("short", tmp_path)


def test_pauses_grow_and_end() -> None:
    now = 0.0
    attempts = Attempts(clock=lambda: now)
    for _ in range(NAME_AND_ADDRESS.free):
        assert attempts.begin("ann", "1.2.3.4") == 0
    pauses = []
    for _ in range(12):
        pauses.append(wait := attempts.begin("Ann", "1.2.3.4"))
        assert attempts.begin("ann", "1.2.3.4") == wait, "an attempt in a pause is none"
        now += wait
        assert attempts.begin("ann", "1.2.3.4") == 0
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == NAME_AND_ADDRESS.longest
    attempts.succeeded("ann", "1.2.3.4")
    assert attempts.begin("ann", "1.2.3.4") == 0


def test_many_names_from_one_address_and_one_name_from_many_addresses() -> None:
    now = 0.0
    attempts = Attempts(clock=lambda: now)
    waits = [attempts.begin(f"name {number}", "1.2.3.4") for number in range(ADDRESS.free + 1)]
    assert waits == [0] * ADDRESS.free + [1]
    attempts = Attempts(clock=lambda: now)
    waits = [attempts.begin("ann", f"1.2.3.{number}") for number in range(NAME.free + 1)]
    assert waits == [0] * NAME.free + [1]
    for number in range(2 * KEPT):
        now += 1
        attempts.begin(f"name {number}", f"address {number}")
    assert len(attempts._failures) <= KEPT, "whoever tries many names fills no memory"


def test_who_may_what() -> None:
    bob, ann = Identity("bob", Role.REVIEWER), Identity("ann", Role.ADMIN)
    require(bob, Role.REVIEWER, "decide")
    require(ann, Role.CURATOR, "take a snapshot")
    with pytest.raises(AccessError) as caught:
        require(bob, Role.CURATOR, "take a snapshot")
    assert str(caught.value) == (
        "Only a curator can take a snapshot; you are signed in as bob, a reviewer. "
        "Ask an admin to do it, or to give you that role."
    )
    assert refusal(NOBODY, Role.REVIEWER, "decide about pairs") == (
        "Only a reviewer can decide about pairs; you are not signed in. Sign in at the top of the page."
    )
    assert [role.rank for role in Role] == [0, 1, 2, 3]


def accounts_command(*arguments: str, password: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "annotation", "accounts", *arguments],
        input=password,
        stdin=subprocess.DEVNULL if password is None else None,
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_commands(data_dir: Path) -> None:
    assert "No accounts" in accounts_command("list").stdout
    refused = accounts_command("add", "ann", "--role", "admin")
    assert refused.returncode == 1
    assert refused.stderr == (
        "error: There is no terminal to ask for the password. Pipe it in, with --password-stdin.\n"
    )
    added = accounts_command("add", "ann", "--role", "admin", "--password-stdin", password=PASSWORD + "\n")
    assert added.stdout == "ann  admin  (password)\n", added.stderr
    accounts_command("add", "Bob B.", "--role", "reviewer", "--huggingface", "bobby")
    assert accounts_command("role", "bob b.", "curator").stdout == "Bob B.  curator  (Hugging Face: bobby)\n"
    assert accounts_command("deactivate", "ann").stderr.startswith("error: ann is the last admin.")
    assert "curator, deactivated" in accounts_command("deactivate", "Bob B.").stdout
    changed = accounts_command("password", "ann", "--password-stdin", password="another password\n")
    assert changed.returncode == 0
    listed = json.loads(accounts_command("list", "--json").stdout)
    assert [(each["name"], each["role"], each["active"], each["password"]) for each in listed] == [
        ("ann", "admin", True, True),
        ("Bob B.", "curator", False, False),
    ]
    store = Store.open(data_dir)
    assert store.accounts.check("ann", "another password") is not None
    assert "scrypt" not in json.dumps(listed)
    store.close()
