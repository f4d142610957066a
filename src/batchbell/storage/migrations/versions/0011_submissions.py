"""Submissions: requests that we hand in as batches ourselves, in parts."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("batches", sa.Column("kind", sa.Text(), nullable=False, server_default="single"))
    _make_submissions()
    _make_parts()
    op.create_table(
        "capacities",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("bytes", sa.Double(), nullable=False),
        sa.Column("tokens", sa.Double(), nullable=False),
        sa.Column("cap", sa.BigInteger(), nullable=True),
        sa.Column("cap_at", sa.Double(), nullable=False),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_capacities_account_id")
        ),
        sa.PrimaryKeyConstraint("account_id", "model", name=op.f("pk_capacities")),
    )


def _make_submissions() -> None:
    op.create_table(
        "submissions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("batch_key", BIG_KEY, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("retry_missing", sa.Integer(), nullable=False),
        sa.Column("cancelled_at", sa.Double(), nullable=True),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_until IS NULL)", name=op.f("ck_submissions_lease")
        ),
        sa.CheckConstraint("retry_missing >= 0", name=op.f("ck_submissions_retry_missing")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_submissions_project_id")
        ),
        sa.ForeignKeyConstraint(
            ["batch_key"],
            ["batches.key"],
            name=op.f("fk_submissions_batch_key"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_submissions")),
        sa.UniqueConstraint("batch_key", name=op.f("uq_submissions_batch_key")),
    )
    op.create_index("ix_submissions_listed", "submissions", ["project_id", "id"])
    op.create_index(
        "ix_submissions_due",
        "submissions",
        ["due_at"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )


def _make_parts() -> None:
    op.create_table(
        "parts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("submission_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("intent_at", sa.Double(), nullable=True),
        sa.Column("file_id", sa.Text(), nullable=True),
        sa.Column("batch_key", BIG_KEY, nullable=True),
        sa.Column("looked_through", sa.Boolean(), nullable=False),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'submitting', 'running', 'ended')", name=op.f("ck_parts_state")
        ),
        sa.CheckConstraint(
            "state <> 'submitting' OR intent_at IS NOT NULL", name=op.f("ck_parts_intent")
        ),
        sa.ForeignKeyConstraint(
            ["submission_id"],
            ["submissions.id"],
            name=op.f("fk_parts_submission_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["batch_key"], ["batches.key"], name=op.f("fk_parts_batch_key"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_parts")),
    )
    op.create_index("ix_parts_ordered", "parts", ["submission_id", "position", "round"])
    op.create_index("ix_parts_batch_key", "parts", ["batch_key"])
