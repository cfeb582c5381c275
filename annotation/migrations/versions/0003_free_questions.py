"""Pairs without an attribute: free questions, as they come from the chat.

Going back is refused by the database while there is such a pair.
"""

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
    op.create_index(
        "uq_pairs_free_question",
        "pairs",
        ["image_id", "prompt_version", "teacher", "parameters"],
        unique=True,
        sqlite_where=sa.text("attribute IS NULL"),
        postgresql_where=sa.text("attribute IS NULL"),
    )


def downgrade() -> None:
    """Back to pairs that all have an attribute."""
    op.drop_index("uq_pairs_free_question", "pairs")
    with op.batch_alter_table("pairs") as pairs:
        pairs.alter_column("attribute", existing_type=sa.String(32), nullable=False)
