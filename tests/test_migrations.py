"""Migrations lead to exactly the tables that the models describe, from nothing and from every older revision.

python -m pytest tests/test_migrations.py
"""

import sqlite3
import threading
from pathlib import Path

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel

from annotation import models
from annotation.database import alembic_config, connect, migrate
from annotation.store import Store


def test_migrations_and_models_agree(tmp_path: Path) -> None:
    engine = connect(tmp_path / "new.db")
    migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []
        tables = {row[0] for row in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")}
    engine.dispose()
    assert tables >= {model.__tablename__ for model in (models.Image, models.Pair, models.Decision, models.Snapshot)}


def test_every_revision_can_be_left_and_reached_again(tmp_path: Path) -> None:
    engine = connect(tmp_path / "steps.db")
    migrate(engine)
    with engine.begin() as connection:
        config = alembic_config(connection)
        revisions = list(ScriptDirectory.from_config(config).walk_revisions())
        assert revisions
        for _ in revisions:
            alembic.command.downgrade(config, "-1")
    migrate(engine)
    with engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == revisions[0].revision
    engine.dispose()


def test_a_database_that_is_up_to_date_keeps_its_rows(data_dir: Path) -> None:
    first = Store.open(data_dir)
    first.close()
    with sqlite3.connect(data_dir / "studio.db") as connection:
        connection.execute(
            "INSERT INTO images (sha256, path, width, height, bytes, source, created_at) "
            "VALUES (?, 'images/x.png', 8, 8, 80, 'test', '2026-01-01 00:00:00')",
            ["0" * 64],
        )
    again = Store.open(data_dir)
    assert again.image_count() == 1
    again.close()


@pytest.mark.parametrize("attempt", range(3))
def test_several_may_open_a_new_data_directory_at_once(data_dir: Path, attempt: int) -> None:
    start = threading.Barrier(6)
    failures: list[Exception] = []

    def open_store() -> None:
        start.wait()
        try:
            Store.open(data_dir / str(attempt)).close()
        except Exception as error:  # any failure at all is the finding
            failures.append(error)

    threads = [threading.Thread(target=open_store) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
