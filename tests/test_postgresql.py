"""What PostgreSQL adds: a server that may be away, passwords, several apps at once. The rest: tests with `database`.

python -m pytest tests/test_postgresql.py
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_votes import a_vote
from postgresql_server import GUARDED, PostgresServer, missing, postgres_server
from sqlmodel import select

from annotation.database import reading, writing
from annotation.models import Acknowledgement, Image
from annotation.postgresql import BEGIN_WRITING, described, parse_url
from annotation.store import Store
from facellm.config import Settings
from facellm.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parent.parent
SECRET = "geheim-17"


@pytest.fixture
def url(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database without tables, also for subprocesses."""
    name = postgres.new_database()
    monkeypatch.setenv("FACELLM_DATABASE", postgres.url(name))
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
def store(url: str, data_dir: Path) -> Iterator[Store]:
    opened = Store.open(data_dir, url)
    yield opened
    opened.close()


def annotation(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "annotation", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine", "is no URL"),
        (f"postgresql://ana:{SECRET}@db:many/facellm", "is no URL"),
        (f"mysql://ana:{SECRET}@db/facellm", "of mysql"),
        (f"postgresql://ana:{SECRET}@db", "names no database"),
        (f"postgresql://ana:p@{SECRET}@db/facellm", "more than one @"),
    ],
)
def test_what_is_no_url_is_one_sentence_without_the_password(data_dir: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Store.open(data_dir, text)
    assert SECRET not in str(caught.value)


def test_no_name_of_a_database_tells_a_password(data_dir: Path) -> None:
    text = f"postgres://ana:{SECRET}@db.example:5433/facellm?password={SECRET}"
    url = parse_url(text)
    assert (url.drivername, described(url)) == ("postgresql+psycopg", "postgresql://db.example:5433/facellm")
    assert SECRET not in repr(Settings(data_dir=data_dir, database=text))


def test_what_the_server_refuses_is_one_sentence(postgres: PostgresServer, data_dir: Path) -> None:
    latin = "latin"
    postgres.run(f"CREATE DATABASE {latin} ENCODING LATIN1 LOCALE 'C' TEMPLATE template0 LOCALE_PROVIDER libc")
    postgres.run("CREATE ROLE newcomer LOGIN")
    for url, message in {
        postgres.url("postgres", user=GUARDED, password=SECRET): "password authentication failed.*Correct user",
        postgres.url("nowhere"): r'"nowhere" does not exist.*createdb nowhere',
        postgres.url(latin): "encoded in LATIN1.*Expected UTF8",
        postgres.url("postgres", user="newcomer"): "permission denied.*rights",
        "postgresql://ana@127.0.0.1:1/facellm": "127.0.0.1:1/facellm cannot be used.*See that the server runs",
        f"postgresql://ana:{SECRET}@no-such-host.invalid/facellm": "cannot be used.*See that the server runs",
    }.items():
        with pytest.raises(DataError, match=message) as caught:
            Store.open(data_dir, url)
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)
    postgres.drop(latin)


@pytest.mark.usefixtures("url")
def test_commands_work_on_it_and_say_what_is_wrong(postgres: PostgresServer, data_dir: Path) -> None:
    assert annotation("seed", "--faces", "3").stdout == f"{data_dir}: 24 pairs of 3 faces added.\n"
    assert "24" in annotation("stats").stdout
    assert annotation("snapshot", "first").returncode == 0
    assert (data_dir / "snapshots" / "first" / "examples.jsonl").is_file()
    assert not (data_dir / "studio.db").exists()
    wrong = postgres.url("postgres", user=GUARDED, password=SECRET)
    done = annotation("stats", FACELLM_DATABASE=wrong)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert SECRET not in done.stderr


def test_a_newer_schema_is_left_alone(store: Store, url: str, data_dir: Path) -> None:
    with writing(store._engine) as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DataError, match="made by a newer FaceLLM Studio.*name another database"):
        Store.open(data_dir, url)


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_a_server_that_comes_back_is_used_again(data_dir: Path) -> None:
    with postgres_server() as server:
        store = Store.open(data_dir, server.url(server.new_database()))
        assert store.add_vote(a_vote())
        server.stop()
        for use in (store.vote_count, lambda: store.add_vote(a_vote())):
            with pytest.raises(DataError, match="cannot be used.*See that the server runs"):
                use()
        server.start()
        assert store.add_vote(a_vote())
        assert store.vote_count() == 2
        with pytest.raises(DataError, match="cannot be used"), writing(store._engine) as session:
            session.add(Acknowledgement(subject="lost", who="ana"))
            session.flush()
            server.stop()
            session.exec(select(Image)).all()
        server.start()
        assert not store.ledger.acknowledged("lost")
        store.close()


def test_one_writes_at_a_time_and_sees_what_the_others_have_written(store: Store, url: str, data_dir: Path) -> None:
    """Each reads a number and writes the next one: without a lock before the first look, some would be the same."""
    stores = [store, Store.open(data_dir, url)]

    def count(store: Store) -> None:
        for _ in range(20):
            with writing(store._engine) as session:
                taken = session.exec(select(Acknowledgement.subject)).all()
                session.add(Acknowledgement(subject=str(len(taken)), who="ana"))

    threads = [threading.Thread(target=count, args=(each,)) for each in stores * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(store._engine) as session:
        found = session.exec(select(Acknowledgement.subject)).all()
    assert sorted(map(int, found)) == list(range(120))
    stores[1].close()


def test_what_is_read_is_one_state(store: Store) -> None:
    with reading(store._engine) as session:
        assert session.exec(select(Acknowledgement)).all() == []
        store.ledger.acknowledge("policy", "ana")
        assert session.exec(select(Acknowledgement)).all() == []
    assert store.ledger.acknowledged("policy")


HOLDER = f"""
import os, psycopg, time
connection = psycopg.connect(os.environ["FACELLM_DATABASE"])
connection.execute({BEGIN_WRITING!r})
connection.execute("INSERT INTO acknowledgements (subject, who, created_at) VALUES ('half', 'ana', now())")
print("held", flush=True)
time.sleep(600)
"""


def test_a_killed_process_leaves_neither_lock_nor_half_a_write(store: Store) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiting = threading.Thread(target=store.ledger.acknowledge, args=("after", "ben"))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive(), "it waits for the lock"
    holder.kill()
    holder.communicate()
    waiting.join(20)
    assert not waiting.is_alive()
    assert (store.ledger.acknowledged("after"), store.ledger.acknowledged("half")) == (True, False)


def test_a_character_that_it_cannot_hold_is_replaced(store: Store) -> None:
    store.ledger.acknowledge("null\0 byte", "ana")
    assert store.ledger.acknowledged("null\0 byte")
    with reading(store._engine) as session:
        assert session.exec(select(Acknowledgement.subject)).one() == "null\ufffd byte"
