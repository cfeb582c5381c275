"""Alembic's entry: migrates the connection that `annotation.database.migrate` hands over, in its transaction.

A new revision, written from the difference between the tables and the models:

    python -c "from annotation.database import write_revision; write_revision('what changes')"

SQLite cannot alter most things in place, so migrations run in batch mode: a table is copied into its new form.
"""

from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from sqlmodel import AutoString, SQLModel

from annotation import database, models


def render_item(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Write plain SQLAlchemy types, so that an old migration does not depend on what the models import today."""
    if kind != "type":
        return False
    if isinstance(item, models.UtcDateTime):
        return "sa.DateTime()"
    if isinstance(item, sa.Enum | sa.String | AutoString):
        return f"sa.String({item.length})" if item.length else "sa.String()"
    return False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
    render_item=render_item,
    include_object=database.is_of(connection.dialect.name),
)
context.run_migrations()
