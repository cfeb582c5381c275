"""Looks at the database past the store, whichever database the test is on."""

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from annotation.database import connect
from annotation.postgresql import connect_postgresql


def rows(data_dir: Path, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a query; an INSERT, which gives none, is committed."""
    engine = open_engine(data_dir)
    try:
        with engine.begin() as connection:
            result = connection.exec_driver_sql(sql.replace("%", "%%") if engine.dialect.name != "sqlite" else sql)
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        engine.dispose()


def open_engine(data_dir: Path) -> Engine:
    """A connection of the test's own to the database of the data directory, or of FACELLM_DATABASE."""
    url = os.environ["FACELLM_DATABASE"]
    return connect_postgresql(url) if url else connect(data_dir / "studio.db")
