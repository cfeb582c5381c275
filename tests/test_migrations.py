"""Migrations lead to exactly the tables that the models describe, from nothing and from every older revision.

python -m pytest tests/test_migrations.py
"""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from postgresql_server import PostgresServer
from sqlalchemy import Engine, inspect
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel

from annotation import models
from annotation.database import alembic_config, connect, is_of, migrate
from annotation.postgresql import connect_postgresql
from annotation.store import Store
from facellm.errors import DataError


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without any table, as `Store.open` is told of it."""
    if request.param == "sqlite":
        yield ""
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.new_database()
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def engine(new_database: str, tmp_path: Path) -> Iterator[Engine]:
    engine = connect_postgresql(new_database) if new_database else connect(tmp_path / "new.db")
    yield engine
    engine.dispose()


@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
def test_migrations_and_models_agree(engine: Engine) -> None:
    migrate(engine)
    with engine.connect() as connection:
        how = {"compare_type": True, "compare_server_default": True, "include_object": is_of(engine.dialect.name)}
        context = MigrationContext.configure(connection, opts=how)
        assert compare_metadata(context, SQLModel.metadata) == []
        tables = set(inspect(connection).get_table_names())
    assert tables >= {model.__tablename__ for model in (models.Image, models.Pair, models.Decision, models.Snapshot)}


def test_every_revision_can_be_left_and_reached_again(engine: Engine) -> None:
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


def test_old_rows_become_the_same_on_both(engine: Engine) -> None:
    with engine.begin() as connection:
        alembic.command.upgrade(alembic_config(connection), "0001")
        for statement in OLD_ROWS.split(";\n"):
            connection.exec_driver_sql(statement)
    migrate(engine)
    with engine.connect() as connection:
        pairs = "SELECT id, status, verdicts, text, overlap, suspicion, shuffle, race FROM pairs ORDER BY id"
        verdicts = "SELECT pair_id, reviewer, revision, action, reason, settles FROM verdicts"
        assert [tuple(row) for row in connection.exec_driver_sql(pairs)] == [
            (3, "rejected", 1, None, 1, 0, 3 * 2654435761 % 2**31, ""),
            (9, "pending", 0, None, 1, 1, 9 * 2654435761 % 2**31, ""),
        ]
        assert [tuple(row) for row in connection.exec_driver_sql(verdicts)] == [(3, "ana", 2, "reject", "wrong", 0)]


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


OLD_ROWS = f"""
INSERT INTO images VALUES (1, '{"0" * 64}', 'images/x.png', 8, 8, 80, 'test', '2026-01-01 00:00:00');
INSERT INTO labels VALUES (1, 1, 'pose', 'left', 'test');
INSERT INTO pairs VALUES
    (3, 1, 'pose', 'Which pose?', 'Left.', 'template', '1', '', 'rejected', 2, '2026-01-02 00:00:00.000007'),
    (9, 1, 'skin', 'Which skin?', 'Fair.', 'template', '1', 'seed 1', 'pending', 0, '2026-01-02 00:00:00');
INSERT INTO decisions VALUES
    (1, '{"a" * 36}', 3, 1, 'ana', 'accept', NULL, NULL, 900, NULL, '2026-01-03 00:00:00'),
    (2, '{"b" * 36}', 3, 2, 'ana', 'reject', 'wrong', NULL, 800, '{"a" * 36}', '2026-01-03 00:00:00');
INSERT INTO flags VALUES (1, 9, 'length', 'info', 'short', 0, 4, '2026-01-04 00:00:00');
INSERT INTO snapshots VALUES (1, 'first', '{{}}', 1, '{"1" * 64}', '2026-01-05 00:00:00');
"""


@pytest.fixture
def old_database(data_dir: Path) -> Path:
    """A database at revision 0001 with a row or two in every table, some of which refer to pairs."""
    path = data_dir / "studio.db"
    engine = connect(path)
    with engine.begin() as connection:
        alembic.command.upgrade(alembic_config(connection), "0001")
    engine.dispose()
    with sqlite3.connect(path) as connection:
        connection.executescript(OLD_ROWS)
    return path


def rows(path: Path) -> dict[str, list[tuple]]:
    with sqlite3.connect(path) as connection:
        return {
            table: connection.execute(f"SELECT {columns} FROM {table} ORDER BY id").fetchall()
            for table, columns in OLD_COLUMNS.items()
        }


OLD_COLUMNS = dict.fromkeys(("images", "labels", "flags", "snapshots"), "*") | {
    "pairs": "id, image_id, attribute, question, answer, teacher, prompt_version, parameters, status, revision, "
    "created_at",
    "decisions": "id, uuid, pair_id, revision, reviewer, action, reason, text, milliseconds, undoes, created_at",
}


def test_the_first_tables_keep_their_rows(old_database: Path) -> None:
    before = rows(old_database)
    store = Store.open(old_database.parent)
    assert rows(old_database) == before
    assert [view.pair.id for view in store.browse()] == [9]
    assert [event.action.value for event in store.events(3)] == ["accept", "reject"]
    assert (store.votes(), store.flagged_count()) == ([], 1)
    (rejected,), (flagged,) = store.pairs([3]), store.pairs([9])
    assert [(v.reviewer, v.action.value, v.reason) for v in rejected.verdicts] == [("ana", "reject", "wrong")]
    assert (rejected.pair.verdicts, flagged.pair.verdicts, flagged.pair.suspicion) == (1, 0, 1)
    with sqlite3.connect(old_database) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            connection.execute("DELETE FROM pairs WHERE id = 3")
        insert = (
            f"INSERT INTO pairs ({OLD_COLUMNS['pairs']}) "
            "SELECT 10, image_id, {}, 'Why?', answer, teacher, '1', 'x', status, 0, created_at"
        )
        for attribute in ("'pose'", "NULL"):
            connection.execute((insert + " FROM pairs WHERE id = 9").format(attribute))
            with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
                connection.execute((insert + " FROM pairs WHERE id = 9").replace("10", "11").format(attribute))
            connection.execute("DELETE FROM pairs WHERE id = 10")
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    store.close()


def test_a_migration_that_finds_lost_rows_changes_nothing(old_database: Path) -> None:
    with sqlite3.connect(old_database) as connection:
        connection.execute("DELETE FROM pairs WHERE id = 3")
    before = rows(old_database)
    with pytest.raises(DataError, match="3 rows of decisions, verdicts refer to missing ones"):
        Store.open(old_database.parent)
    assert rows(old_database) == before
    with sqlite3.connect(old_database) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)


def test_going_back_is_refused_while_a_pair_has_no_attribute(old_database: Path) -> None:
    engine = connect(old_database)
    migrate(engine)
    with sqlite3.connect(old_database) as connection:
        connection.execute("UPDATE pairs SET attribute = NULL WHERE id = 9")
    with pytest.raises(IntegrityError, match="NOT NULL"), engine.begin() as connection:
        alembic.command.downgrade(alembic_config(connection), "0002")
    with engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == "0006"
        assert connection.exec_driver_sql("SELECT count(*) FROM pairs").scalar() == 2
    engine.dispose()


@pytest.mark.parametrize("attempt", range(3))
def test_several_may_open_a_new_data_directory_at_once(data_dir: Path, new_database: str, attempt: int) -> None:
    start = threading.Barrier(6)
    failures: list[Exception] = []

    def open_store() -> None:
        start.wait()
        try:
            Store.open(data_dir / str(attempt), new_database).close()
        except Exception as error:  # any failure at all is the finding
            failures.append(error)

    threads = [threading.Thread(target=open_store) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
