"""Fixtures shared by the tests: a data directory of their own, databases, a tiny model, a headless browser.

A test that takes `database`, itself or by its store, runs on SQLite and on PostgreSQL: `pytest_generate_tests`.
"""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgresql_server import TEMPLATE, PostgresServer, missing, postgres_server

from annotation.database import migrate
from annotation.postgresql import connect_postgresql

# Before torch is imported: the suite runs in parallel processes on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "0")

os.environ["TRACKIO_DIR"] = os.path.join(tempfile.gettempdir(), f"facellm-tests-trackio-{os.getuid()}")

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory, named in FACELLM_DATA_DIR so that subprocesses use it too, and a free port for them."""
    folder = tmp_path / "data"
    monkeypatch.setenv("FACELLM_DATA_DIR", str(folder))
    monkeypatch.setenv("FACELLM_DATABASE", "")  # SQLite there, whatever the developer's own is
    with socket.socket() as probe:  # an app on the usual port must not be in the way
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("GRADIO_SERVER_PORT", str(probe.getsockname()[1]))
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server with a migrated database to copy, or a skip where there can be none."""
    if why := missing():
        pytest.skip(why)
    with postgres_server() as server:
        server.run(f"CREATE DATABASE {TEMPLATE}")
        engine = connect_postgresql(server.url(TEMPLATE))
        migrate(engine)
        engine.dispose()
        yield server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what takes `database` on both; where a module says MOSTLY_ON_SQLITE, only what is marked `both_databases`."""
    if "database" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker("both_databases")
        both = marked or not getattr(metafunc.module, "MOSTLY_ON_SQLITE", False)
        metafunc.parametrize("database", ["sqlite", "postgresql"] if both else ["sqlite"], indirect=True)


@pytest.fixture
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty database for `Store.open`, once of each kind; in FACELLM_DATABASE so that subprocesses use it too."""
    if request.param == "sqlite":
        yield ""
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.new_database(TEMPLATE)
    monkeypatch.setenv("FACELLM_DATABASE", server.url(name))
    yield server.url(name)
    server.drop(name)


@pytest.fixture(autouse=True)
def no_running_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a test call asyncio.run: Playwright's loop stays marked as running in this thread, also between its tests."""
    if "browser" in request.fixturenames:
        yield
        return
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    yield
    asyncio._set_running_loop(running)


@pytest.fixture(scope="session")
def untrained_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's architecture with random weights, as a checkpoint on disk."""
    from facellm import tiny  # noqa: PLC0415 - torch is loaded only by the tests that need it

    folder = tmp_path_factory.mktemp("tiny") / "untrained"
    tiny.save_untrained(folder)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator["object"]:
    """A headless Chromium, or a skip where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if chromium is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield instance
        instance.close()
