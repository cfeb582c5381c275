"""The database file: connections with the right pragmas, transactions, and migration to the newest schema.

SQLAlchemy's default for SQLite begins a transaction only at the first write, so that what was read before it may be
out of date; here every transaction begins explicitly, and one that writes takes the write lock before it reads.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import alembic.command
import alembic.config
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlmodel import Session

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
        for pragma in ("foreign_keys=ON", "journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")

    return engine


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
    """Bring the schema to the newest revision; several processes may do so at once."""
    with engine.execution_options(begin="IMMEDIATE").begin() as connection:
        alembic.command.upgrade(alembic_config(connection), "head")


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
