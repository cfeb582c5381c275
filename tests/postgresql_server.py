"""A PostgreSQL server of the tests' own: in a temporary folder, reached by a socket there and not by any network.

Its order of texts is English, which is another than SQLite's, so that a test that depends on it fails. The one
surprising fact: PostgreSQL refuses to run as root, so there it runs as Debian's user `postgres`.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

SYSTEM_USER = "postgres"
TEMPLATE = "migrated"
GUARDED = "guarded"  # a user who has to know a password
QUICK = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "jit": "off",
    "shared_buffers": "32MB",
    "max_connections": "80",
    "listen_addresses": "",
}


def missing() -> str | None:
    """Why there can be no server here; None where there can."""
    if binaries() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            return f"PostgreSQL does not run as root, and there is no user {SYSTEM_USER}"
    return None


def binaries() -> Path | None:
    """The folder with `initdb` and `postgres`, the newest where there are several."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    found = shutil.which("postgres")
    return debian[-1] if debian else Path(found).resolve().parent if found else None


class PostgresServer:
    """A running server; `url` names its databases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0

    def start(self) -> None:
        """Start it, on the data that is there, and wait until it answers."""
        options = [word for name, value in QUICK.items() for word in ("-c", f"{name}={value}")]
        command = [_binary("postgres"), "-D", str(self._data), "-k", str(self.folder), *options]
        log = (self.folder / "log").open("ab")
        with closing(log):
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **_as_user())
        last = time.monotonic() + 60
        while True:
            try:
                self.run("SELECT 1")
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > last:
                    raise RuntimeError((self.folder / "log").read_text()) from None
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, with all its connections."""
        if self._process is not None:
            self._process.send_signal(3)  # SIGQUIT: what pg_ctl calls immediate
            self._process.wait(30)
            self._process = None

    def url(self, database: str, *, user: str = SYSTEM_USER, password: str = "") -> str:
        """As FACELLM_DATABASE has it."""
        who = f"{user}:{password}" if password else user
        return f"postgresql://{who}@/{database}?host={self.folder}"

    def run(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement; the rows that it gives, if any."""
        with self.connect(database) as connection:
            cursor = connection.execute(sql)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def connect(self, database: str) -> Any:
        """A connection that commits each statement."""
        return psycopg.connect(host=str(self.folder), user=SYSTEM_USER, dbname=database, autocommit=True)

    def new_database(self, template: str = "template1") -> str:
        """Create a database; return its name."""
        self._made += 1
        name = f"test_{self._made}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, database: str) -> None:
        """Remove a database, whoever is still connected."""
        with suppress(psycopg.OperationalError):  # a test may have stopped the server
            self.run(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A new server, which is gone with its data afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # not pytest's, whose path may be too long for a socket's
    if os.geteuid() == 0:
        shutil.chown(folder, SYSTEM_USER)
    server = PostgresServer(folder)
    try:
        english = ["--encoding", "UTF8", "--locale", "C.UTF-8", "--locale-provider", "icu", "--icu-locale", "en"]
        command = [_binary("initdb"), "-D", str(folder / "data"), "-U", SYSTEM_USER, "--auth", "trust", "--no-sync"]
        subprocess.run([*command, *english], check=True, capture_output=True, **_as_user())
        rules = folder / "data" / "pg_hba.conf"
        rules.write_text(f"local all {GUARDED} scram-sha-256\n" + rules.read_text())
        server.start()
        server.run(f"CREATE ROLE {GUARDED} LOGIN PASSWORD 'right'")
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _binary(name: str) -> str:
    folder = binaries()
    assert folder is not None
    return str(folder / name)


def _as_user() -> dict[str, Any]:
    """Arguments of subprocess: who runs the server, and where."""
    if os.geteuid() != 0:
        return {}
    return {"user": SYSTEM_USER, "group": SYSTEM_USER, "extra_groups": [], "cwd": "/"}
