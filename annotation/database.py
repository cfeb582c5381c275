"""The database file: connections with the right pragmas, transactions, and migration to the newest schema.

SQLAlchemy's default for SQLite begins a transaction only at the first write, so that what was read before it may be
out of date; here every transaction begins explicitly, and one that writes takes the write lock before it reads.
"""

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from alembic.migration import MigrationContext
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlmodel import Session

from facellm.errors import DataError

MIGRATIONS = Path(__file__).resolve().parent / "migrations"
BUSY_SECONDS = 30


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
    """A session that sees the database as it is at its first query, whatever others write meanwhile."""
    with Session(engine, expire_on_commit=False) as session:
        yield session


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A session that holds the write lock from its start, and commits at the end unless something is raised."""
    with Session(engine.execution_options(begin="IMMEDIATE"), expire_on_commit=False) as session, session.begin():
        yield session


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest revision; several processes may do so at once.

    Foreign keys are off meanwhile, because SQLite alters a table by dropping it for a changed copy; before the commit
    they are checked instead.

    Raises:
        DataError: a row refers to one that is not there; the database stays as it was.
    """
    writer = engine.execution_options(begin="IMMEDIATE")
    with writer.connect() as connection, _foreign_keys_off(connection), connection.begin():
        before = MigrationContext.configure(connection).get_current_revision()
        alembic.command.upgrade(alembic_config(connection), "head")
        if before != MigrationContext.configure(connection).get_current_revision():
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


def write_revision(message: str) -> None:
    """Write the next migration from the difference between the newest schema and the models; for developers."""
    with tempfile.TemporaryDirectory() as folder:
        engine = connect(Path(folder) / "empty.db")
        migrate(engine)
        with engine.connect() as connection:
            alembic.command.revision(alembic_config(connection), message, autogenerate=True)
        engine.dispose()
