"""PostgreSQL in the place of the SQLite file, so that the apps of a team on several machines share one database.

    engine = connect_postgresql("postgresql://ana:secret@db.example:5432/facellm")

One transaction writes at a time, as in SQLite: `annotation.database.writing` takes an advisory lock of the database
before all else, so that the next statement sees all that was committed before. The one surprising fact: nothing but
that lock is held, nothing is set for longer than a transaction, and a process that dies takes both with it.
"""

from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from facellm.errors import ConfigError, DataError, UnavailableError

DRIVER: Final = "postgresql+psycopg"
NAMES: Final = (DRIVER, "postgresql", "postgres")
FORM: Final = "postgresql://USER:PASSWORD@HOST:PORT/NAME"
INSTALL: Final = "pip install 'psycopg[binary]>=3.2,<4'"
WRITE_LOCK: Final = 0x46414345  # any number that others who use the database would not think of
WAIT_SECONDS: Final = 30  # for the lock, as for SQLite's
IDLE_SECONDS: Final = 120  # of a transaction that writes: who is stopped, or cut off, holds up others no longer
BEGIN_WRITING: Final = (
    f"SELECT set_config('lock_timeout', '{WAIT_SECONDS}s', true), "
    f"set_config('idle_in_transaction_session_timeout', '{IDLE_SECONDS}s', true), pg_advisory_xact_lock({WRITE_LOCK})"
)
# Of a connection, where the URL says nothing else: a server that is gone is noticed, also in the midst of a query.
NETWORK: Final = {"connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 30_000}
POOL: Final = {"pool_size": 5, "max_overflow": 20, "pool_pre_ping": True}  # of the 100 that a server has by default


def connect_postgresql(text: str) -> Engine:
    """An engine for the database of this URL; a connection is made when it is first needed.

    Raises:
        ConfigError: the text is no URL of a PostgreSQL database, or the driver is not installed.
    """
    url = parse_url(text)
    network = {name: value for name, value in NETWORK.items() if name not in url.query}
    try:
        engine = create_engine(url, connect_args=network, isolation_level="READ COMMITTED", **POOL)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The setting database names a PostgreSQL database, and its driver is not installed. Run: {INSTALL}"
        ) from error

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        _check_encoding(connection, url)
        _replace_nul(connection)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if "begin" in connection.get_execution_options():
            connection.exec_driver_sql(BEGIN_WRITING)

    return engine


def parse_url(text: str) -> URL:
    """The URL with its driver. What is wrong with one is told without repeating it: it may hold a password.

    Raises:
        ConfigError: it is none, or not PostgreSQL's.
    """
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise ConfigError(f"The setting database is no URL. Expected {FORM}, or nothing for SQLite.") from None
    if url.drivername not in NAMES:
        raise ConfigError(f"The setting database is of {url.drivername}. Expected {FORM}, or nothing for SQLite.")
    if not url.database:
        raise ConfigError(f"The setting database names no database. Expected {FORM}.")
    if "@" in (url.host or ""):
        raise ConfigError("The setting database has more than one @. Write one that belongs to the password as %40.")
    return url.set(drivername=DRIVER)


def described(url: URL) -> str:
    """The database as it may be shown: without user, password and options."""
    host = url.host or "localhost"
    return f"postgresql://{host}{f':{url.port}' if url.port else ''}/{url.database}"


def explain(error: DBAPIError, url: URL) -> UnavailableError:
    """What is wrong with the database, as the sentence to show; the server's own words are in it, no password."""
    said = str(error.orig).strip().partition("\n")[0].rstrip(".")
    if url.password:
        said = said.replace(str(url.password), "…")
    return UnavailableError(f"The database {described(url)} cannot be used: {said}. {_advice(said, url)}")


def _advice(said: str, url: URL) -> str:
    """What to do about it; a server that speaks another language is given the last one."""
    if "password" in said or "authentication" in said:
        return "Correct user and password in FACELLM_DATABASE, or set PGPASSWORD."
    if said.endswith("does not exist") and "database" in said:
        return f"Make it (createdb {url.database}), or correct FACELLM_DATABASE."
    if "permission denied" in said:
        return f"Give the user its rights, such as: ALTER DATABASE {url.database} OWNER TO {url.username or 'USER'}."
    if "lock timeout" in said:
        return "Something else has been writing for long, such as an import: try again when it is done."
    return "See that the server runs and FACELLM_DATABASE is right, then try again."


def _check_encoding(connection: Any, url: URL) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DataError(
            f"The database {described(url)} is encoded in {encoding}, which cannot hold all texts. Expected UTF8: "
            f"createdb --encoding UTF8 --template template0 {url.database}"
        )


def _replace_nul(connection: Any) -> None:
    """PostgreSQL keeps every character but NUL, which a teacher or a file may send: it is stored as U+FFFD."""
    from psycopg.types.string import StrDumperUnknown  # noqa: PLC0415 - optional; it is there once one connects

    class WithoutNul(StrDumperUnknown):
        def dump(self, text: str) -> Any:
            return super().dump(text.replace("\0", "\ufffd") if "\0" in text else text)

    connection.adapters.register_dumper(str, WithoutNul)
