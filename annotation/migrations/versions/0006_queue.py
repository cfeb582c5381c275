"""The review queue at size: indexes for its orders and filters, and full-text search.

Each order has an index of the open pairs alone that holds what the filters ask, so that looking for the next pair
reads neither decided pairs nor texts.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FILTERED = "attribute, race, gender, age, suspicion, run_id, verdicts, overlap"
OPEN = {
    "ix_pairs_open_image": "image_id, id",
    "ix_pairs_open_shuffle": "shuffle, id",
    "ix_pairs_open_suspicion": "(-suspicion), image_id, id",
    "ix_pairs_open_balance": "balance, id",
}
FACETS = "status, attribute, race, gender, age, suspicion, run_id, image_id, shuffle, balance"


def upgrade() -> None:
    """To this revision."""
    op.drop_index("ix_pairs_status", "pairs")
    for name, columns in OPEN.items():
        op.execute(f"CREATE INDEX {name} ON pairs ({columns}, {FILTERED}) WHERE status IN ('pending', 'skipped')")
    op.execute(f"CREATE INDEX ix_pairs_facets ON pairs ({FACETS})")
    op.execute("CREATE INDEX ix_pairs_unplaced ON pairs (id) WHERE balance IS NULL")
    op.execute('CREATE INDEX ix_flags_check ON flags ("check", pair_id)')
    if op.get_bind().dialect.name == "sqlite":
        for statement in SQLITE_SEARCH:
            op.execute(statement)
    else:
        op.execute(
            "ALTER TABLE pairs ADD COLUMN search tsvector GENERATED ALWAYS AS "
            "(to_tsvector('english', question || ' ' || COALESCE(text, answer))) STORED"
        )
        op.execute("CREATE INDEX ix_pairs_search ON pairs USING gin (search)")


# The table keeps no copy of the texts. What it is told to forget must be what it was told before, hence OLD.
SQLITE_SEARCH = (
    "CREATE VIRTUAL TABLE pair_search USING fts5(question, answer, content='', tokenize='porter unicode61')",
    "INSERT INTO pair_search (rowid, question, answer) SELECT id, question, COALESCE(text, answer) FROM pairs",
    """CREATE TRIGGER pair_search_insert AFTER INSERT ON pairs BEGIN
        INSERT INTO pair_search (rowid, question, answer) VALUES (NEW.id, NEW.question, COALESCE(NEW.text, NEW.answer));
    END""",
    """CREATE TRIGGER pair_search_update AFTER UPDATE OF text ON pairs WHEN OLD.text IS NOT NEW.text BEGIN
        INSERT INTO pair_search (pair_search, rowid, question, answer)
            VALUES ('delete', OLD.id, OLD.question, COALESCE(OLD.text, OLD.answer));
        INSERT INTO pair_search (rowid, question, answer) VALUES (NEW.id, NEW.question, COALESCE(NEW.text, NEW.answer));
    END""",
    """CREATE TRIGGER pair_search_delete AFTER DELETE ON pairs BEGIN
        INSERT INTO pair_search (pair_search, rowid, question, answer)
            VALUES ('delete', OLD.id, OLD.question, COALESCE(OLD.text, OLD.answer));
    END""",
)


def downgrade() -> None:
    """Back to slower queues."""
    if op.get_bind().dialect.name == "sqlite":
        for name in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER pair_search_{name}")
        op.execute("DROP TABLE pair_search")
    else:
        op.execute("ALTER TABLE pairs DROP COLUMN search")
    op.drop_index("ix_flags_check", "flags")
    for name in ("ix_pairs_unplaced", "ix_pairs_facets", *OPEN):
        op.drop_index(name, "pairs")
    op.create_index("ix_pairs_status", "pairs", ["status", "id"])
