"""Pairs without an attribute: free questions, as they come from the chat.

Going back is refused by the database while there is such a pair.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    with op.batch_alter_table("pairs") as pairs:
        pairs.alter_column("attribute", existing_type=sa.String(32), nullable=True)
    is_free = sa.text("attribute IS NULL")
    told = ["image_id", "prompt_version", "teacher"]
    if op.get_context().dialect.name == "postgresql":
        digest: list[Any] = [*told, sa.text("md5(parameters)")]
        op.create_index("uq_pairs_free_identity", "pairs", digest, unique=True, postgresql_where=is_free)
    else:
        op.create_index("uq_pairs_free_question", "pairs", [*told, "parameters"], unique=True, sqlite_where=is_free)


def downgrade() -> None:
    """Back to pairs that all have an attribute."""
    is_postgresql = op.get_context().dialect.name == "postgresql"
    op.drop_index("uq_pairs_free_identity" if is_postgresql else "uq_pairs_free_question", "pairs")
    with op.batch_alter_table("pairs") as pairs:
        pairs.alter_column("attribute", existing_type=sa.String(32), nullable=False)
