"""Reviewers: accounts, what stands of each, leases, overlap; what pairs are filtered and ordered by; traps and audits.

Decisions were one line of events for each pair, and now there is one for each reviewer: what stands is derived anew.
"""

from collections import defaultdict
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SHUFFLE = 2**31
WEIGHTS = {"error": 10_000, "warning": 100, "info": 1}
STATUS_AFTER = {"accept": "accepted", "edit": "edited", "reject": "rejected", "skip": "skipped"}
COLUMNS = {
    "text": "VARCHAR",
    "overlap": "INTEGER DEFAULT 1 NOT NULL",
    "verdicts": "INTEGER DEFAULT 0 NOT NULL",
    "suspicion": "INTEGER DEFAULT 0 NOT NULL",
    "race": "VARCHAR DEFAULT '' NOT NULL",
    "gender": "VARCHAR DEFAULT '' NOT NULL",
    "age": "VARCHAR DEFAULT '' NOT NULL",
    "run_id": "INTEGER CONSTRAINT fk_pairs_run_id_generation_runs REFERENCES generation_runs (id)",
    "shuffle": "INTEGER DEFAULT 0 NOT NULL",
    "balance": "BIGINT",
}


def upgrade() -> None:
    """To this revision. Columns are added in plain SQL: Alembic's way copies the largest table for each."""
    for name, kind in COLUMNS.items():
        op.execute(f"ALTER TABLE pairs ADD COLUMN {name} {kind}")
    op.create_index("ix_pairs_run_id", "pairs", ["run_id"])
    for name, kind in {"note": "VARCHAR", "lot": "VARCHAR(36)"}.items():
        op.execute(f"ALTER TABLE decisions ADD COLUMN {name} {kind}")
    op.execute("ALTER TABLE decisions ADD COLUMN settles BOOLEAN DEFAULT false NOT NULL")
    op.execute("ALTER TABLE decisions ADD COLUMN blind BOOLEAN DEFAULT true NOT NULL")
    _create_tables()
    _fill_pairs()
    _derive()


def _create_tables() -> None:
    op.create_table(
        "verdicts",
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("decision_uuid", sa.String(36), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(32), nullable=True),
        sa.Column("text", sa.String(), nullable=True),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("settles", sa.Boolean(), nullable=False),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_verdicts_pair_id_pairs")),
        sa.ForeignKeyConstraint(
            ["decision_uuid"], ["decisions.uuid"], name=op.f("fk_verdicts_decision_uuid_decisions")
        ),
        sa.PrimaryKeyConstraint("pair_id", "reviewer", name=op.f("pk_verdicts")),
    )
    op.create_index("ix_verdicts_reviewer", "verdicts", ["reviewer", "pair_id"])
    op.create_table(
        "leases",
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("holder", sa.String(36), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_leases_pair_id_pairs")),
        sa.PrimaryKeyConstraint("pair_id", "reviewer", name=op.f("pk_leases")),
    )
    op.create_index("ix_leases_reviewer", "leases", ["reviewer"])
    op.create_index("ix_leases_expires_at", "leases", ["expires_at"])
    op.create_table(
        "reviewers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("password", sa.String(), nullable=False),
        sa.Column("huggingface", sa.String(), nullable=False),
        sa.Column("session", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviewers")),
        sa.UniqueConstraint("name", name=op.f("uq_reviewers_name")),
    )
    op.create_table(
        "project",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_project")),
    )
    _create_quality_tables()


def _create_quality_tables() -> None:
    op.create_table(
        "traps",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("attribute", sa.String(32), nullable=False),
        sa.Column("question", sa.String(), nullable=False),
        sa.Column("answer", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("made_from", sa.Integer(), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("before_pair", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_traps_image_id_images")),
        sa.ForeignKeyConstraint(["made_from"], ["pairs.id"], name=op.f("fk_traps_made_from_pairs")),
        sa.ForeignKeyConstraint(["before_pair"], ["pairs.id"], name=op.f("fk_traps_before_pair_pairs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_traps")),
        sa.UniqueConstraint("reviewer", "before_pair", name=op.f("uq_traps_reviewer_before_pair")),
    )
    op.create_index(op.f("ix_traps_before_pair"), "traps", ["before_pair"])
    op.create_index(op.f("ix_traps_made_from"), "traps", ["made_from"])
    op.create_table(
        "trap_answers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uuid", sa.String(36), nullable=False),
        sa.Column("trap_id", sa.Integer(), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(32), nullable=True),
        sa.Column("text", sa.String(), nullable=True),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("milliseconds", sa.Integer(), nullable=True),
        sa.Column("lot", sa.String(36), nullable=True),
        sa.Column("undone", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["trap_id"], ["traps.id"], name=op.f("fk_trap_answers_trap_id_traps")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trap_answers")),
        sa.UniqueConstraint("uuid", name=op.f("uq_trap_answers_uuid")),
    )
    op.create_index(op.f("ix_trap_answers_trap_id"), "trap_answers", ["trap_id"])
    op.create_index("ix_trap_answers_reviewer", "trap_answers", ["reviewer", "id"])
    op.create_table(
        "audits",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("population", sa.String(), nullable=False),
        sa.Column("by_attribute", sa.Boolean(), nullable=False),
        sa.Column("drawn_by", sa.String(), nullable=False),
        sa.Column("drawn_at", sa.DateTime(), nullable=False),
        sa.Column("is_right", sa.Boolean(), nullable=True),
        sa.Column("auditor", sa.String(), nullable=True),
        sa.Column("judged_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_audits_pair_id_pairs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audits")),
    )
    op.create_index(op.f("ix_audits_pair_id"), "audits", ["pair_id"])


def _fill_pairs() -> None:
    """Labels, run and suspicion from their own tables; a shuffle number for each pair there is."""
    for name in ("race", "gender", "age"):
        newest = (
            "SELECT value FROM labels WHERE labels.image_id = pairs.image_id AND labels.name = "
            f"'{name}' ORDER BY labels.id DESC LIMIT 1"
        )
        op.execute(f"UPDATE pairs SET {name} = COALESCE(({newest}), '')")
    op.execute("UPDATE pairs SET run_id = (SELECT MIN(run_id) FROM tasks WHERE tasks.pair_id = pairs.id)")
    weights = " ".join(f"WHEN '{severity}' THEN {weight}" for severity, weight in WEIGHTS.items())
    op.execute(
        "UPDATE pairs SET suspicion = COALESCE((SELECT SUM(CASE severity "
        f"{weights} ELSE 0 END) FROM flags WHERE flags.pair_id = pairs.id), 0)"
    )
    # Knuth's multiplicative hash of the id: no random() that two databases would call differently.
    op.execute(f"UPDATE pairs SET shuffle = CAST((CAST(id AS BIGINT) * 2654435761) % {SHUFFLE} AS INTEGER)")


def _derive() -> None:
    """Fill `verdicts` and what pairs repeat of them."""
    connection = op.get_bind()
    events: dict[tuple[int, str], list[Any]] = defaultdict(list)
    for row in connection.execute(sa.text("SELECT * FROM decisions ORDER BY id")).mappings():
        events[row["pair_id"], row["reviewer"]].append(row)
    standing: dict[int, list[Any]] = defaultdict(list)
    for (pair_id, _), rows in events.items():
        undone = {row["undoes"] for row in rows}
        left = [row for row in rows if row["action"] != "undo" and row["uuid"] not in undone]
        standing[pair_id] += left[-1:]
    verdicts = [
        {"uuid": row["uuid"], **{name: row[name] for name in ("pair_id", "reviewer", "revision", "action")}}
        | {name: row[name] for name in ("reason", "text", "created_at")}
        for rows in standing.values()
        for row in rows
    ]
    if verdicts:
        insert = (
            "INSERT INTO verdicts "
            "(pair_id, reviewer, decision_uuid, revision, action, reason, text, settles, blind, created_at) "
            "VALUES (:pair_id, :reviewer, :uuid, :revision, :action, :reason, :text, false, true, :created_at)"
        )
        connection.execute(sa.text(insert), verdicts)
    derived = [{"id": pair_id, **_outcome(rows)} for pair_id, rows in standing.items()]
    if derived:
        update = "UPDATE pairs SET status = :status, verdicts = :verdicts, text = :text WHERE id = :id"
        connection.execute(sa.text(update), derived)


def _outcome(rows: list[Any]) -> dict[str, Any]:
    """What decisions add up to where one reviewer is enough."""
    verdicts = [row for row in rows if row["action"] != "skip"]
    if len({(row["action"], row["text"]) for row in verdicts}) > 1:
        return {"status": "disputed", "verdicts": len(verdicts), "text": None}
    if verdicts:
        return {"status": STATUS_AFTER[verdicts[0]["action"]], "verdicts": len(verdicts), "text": verdicts[0]["text"]}
    return {"status": "skipped" if rows else "pending", "verdicts": 0, "text": None}


def downgrade() -> None:
    """Back to one line of decisions for each pair."""
    for table in ("audits", "trap_answers", "traps", "project", "reviewers", "leases", "verdicts"):
        op.drop_table(table)
    for name in ("blind", "settles", "lot", "note"):
        op.execute(f"ALTER TABLE decisions DROP COLUMN {name}")
    op.drop_index("ix_pairs_run_id", "pairs")
    for name in COLUMNS:
        op.execute(f"ALTER TABLE pairs DROP COLUMN {name}")
