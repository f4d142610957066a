"""Results: who wants those of a batch, and what became of them."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "results",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("batch_key", BIG_KEY, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.Column("lines", sa.Integer(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("tally", sa.Text(), nullable=True),
        sa.Column("inline", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'ready', 'failed')", name=op.f("ck_results_state")
        ),
        sa.CheckConstraint(
            "(state = 'waiting') = (due_at IS NOT NULL)", name=op.f("ck_results_due")
        ),
        sa.CheckConstraint("(state = 'waiting') = (ended_at IS NULL)", name=op.f("ck_results_end")),
        sa.CheckConstraint(
            "(state = 'ready') = (size IS NOT NULL)", name=op.f("ck_results_written")
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_until IS NULL)", name=op.f("ck_results_lease")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_results_project_id")
        ),
        sa.ForeignKeyConstraint(["batch_key"], ["batches.key"], name=op.f("fk_results_batch_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_results")),
        sa.UniqueConstraint(
            "batch_key", "generation", name=op.f("uq_results_batch_key_generation")
        ),
    )
    op.create_index(
        "ix_results_due",
        "results",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index(
        "ix_results_ended",
        "results",
        ["ended_at"],
        unique=False,
        sqlite_where=sa.text("ended_at IS NOT NULL"),
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    )
    for table in ("watches", "deliveries"):
        op.add_column(table, sa.Column("results", sa.Text(), nullable=False, server_default="link"))
    op.add_column("endpoints", sa.Column("results", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("results_id", sa.Text(), nullable=True))
