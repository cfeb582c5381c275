"""The database: connections, transactions, and migration to the newest schema; SQLite's here, see also postgresql.py.

SQLAlchemy's default for SQLite begins a transaction only at the first write, so that what was read before it may be
out of date; here every transaction begins explicitly, and one that writes takes the write lock before it reads.
"""

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import alembic.command
import alembic.config
from alembic.migration import MigrationContext
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlmodel import Session

from annotation.postgresql import explain
from facellm.errors import DataError, UnavailableError

MIGRATIONS = Path(__file__).resolve().parent / "migrations"
BUSY_SECONDS = 30
WRITING: Final = {"begin": "IMMEDIATE"}  # execution options: the transaction holds the write lock from its start
READING: Final[dict[str, dict[str, Any]]] = {
    "sqlite": {},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}


def connect(path: Path) -> Engine:
    """An engine for the SQLite file at `path`, which is created where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    url = URL.create("sqlite", database=str(path))  # a string would be parsed, and end at a "?" in the path
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours to send
        _use_wal(connection)
        for pragma in ("foreign_keys=ON", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; while others do the same to a new file, SQLite reports it locked at once instead of waiting."""
    last = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > last:
                raise
        time.sleep(0.01)


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that sees the database as it is at its first query, whatever others write meanwhile.

    Raises:
        DataError: the database cannot be reached.
    """
    reader = engine.execution_options(**READING[engine.dialect.name])
    with _told(engine), Session(reader, expire_on_commit=False) as session:
        yield session


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A session that holds the write lock from its start, and commits at the end unless something is raised.

    Raises:
        DataError: the database cannot be reached, or somebody else has held the lock for half a minute.
    """
    writer = engine.execution_options(**WRITING)
    with _told(engine), Session(writer, expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def _told(engine: Engine) -> Iterator[None]:
    """What happens to a database while it is used, as a sentence: a full disk, a lost connection, a lock."""
    try:
        yield
    except (OperationalError, InterfaceError, InternalError) as error:
        if engine.dialect.name == "postgresql":
            raise explain(error, engine.url) from error
        raise UnavailableError(
            f"{engine.url.database} cannot be used: {error.orig}. Try again when nothing else holds it and there is "
            "room on the disk."
        ) from error


def insert_into(session: Session, table: type) -> Any:
    """The INSERT of this database, which can be told what to do about a row that is there (`on_conflict_…`)."""
    kinds: dict[str, Callable[..., Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    return kinds[session.get_bind().dialect.name](table)


def insert_new(session: Session, table: Any, row: dict[str, object]) -> int | None:
    """Add a row unless a unique constraint says that it is there; return its id, None where it is."""
    adding = insert_into(session, table).values(row).on_conflict_do_nothing().returning(table.id)
    added: int | None = session.execute(adding).scalar()
    return added


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest revision; several processes may do so at once.

    In SQLite foreign keys are off meanwhile, because it alters a table by dropping it for a changed copy; before the
    commit they are checked instead.

    Raises:
        DataError: a row refers to one that is not there; the database stays as it was.
    """
    is_sqlite = engine.dialect.name == "sqlite"
    writer = engine.execution_options(**WRITING)
    with (
        writer.connect() as connection,
        _foreign_keys_off(connection) if is_sqlite else nullcontext(),
        connection.begin(),
    ):
        before = MigrationContext.configure(connection).get_current_revision()
        alembic.command.upgrade(alembic_config(connection), "head")
        if is_sqlite and before != MigrationContext.configure(connection).get_current_revision():
            _check_foreign_keys(connection)


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    """Sent past SQLAlchemy, which would begin a transaction first; within one the pragma does nothing."""
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _check_foreign_keys(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        tables = ", ".join(sorted({row[0] for row in broken}))
        raise DataError(
            f"The database cannot be brought up to date: {len(broken)} rows of {tables} refer to missing ones. "
            "Restore it from a backup."
        )


def alembic_config(connection: Connection) -> alembic.config.Config:
    """Alembic's configuration, without an alembic.ini, for an open connection."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def is_of(dialect: str) -> Callable[..., bool]:
    """For Alembic's comparison of schema and models: whether a part of the schema is to be compared here.

    What the full-text search keeps is made by the migrations alone: no model is of it.
    """
    return lambda item, name, *_: (
        item.info.get("dialect", dialect) == dialect
        and name not in ("search", "ix_pairs_search")
        and not str(name).startswith("pair_search")
    )


def write_revision(message: str) -> None:
    """Write the next migration from the difference between the newest schema and the models; for developers."""
    with tempfile.TemporaryDirectory() as folder:
        engine = connect(Path(folder) / "empty.db")
        migrate(engine)
        with engine.connect() as connection:
            alembic.command.revision(alembic_config(connection), message, autogenerate=True)
        engine.dispose()
