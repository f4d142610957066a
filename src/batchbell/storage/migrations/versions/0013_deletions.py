"""Deleting files at the provider: what is due, and which batches use an input."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "deletions",
        sa.Column("results_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("files", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "state IN ('due', 'deleted', 'kept', 'failed')", name=op.f("ck_deletions_state")
        ),
        sa.CheckConstraint("(state = 'due') = (due_at IS NOT NULL)", name=op.f("ck_deletions_due")),
        sa.CheckConstraint("(state = 'due') = (ended_at IS NULL)", name=op.f("ck_deletions_end")),
        sa.CheckConstraint(
            "state NOT IN ('kept', 'failed') OR reason IS NOT NULL",
            name=op.f("ck_deletions_reason"),
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_until IS NULL)", name=op.f("ck_deletions_lease")
        ),
        sa.CheckConstraint(
            "lease_token IS NULL OR state = 'due'", name=op.f("ck_deletions_leased")
        ),
        sa.ForeignKeyConstraint(
            ["results_id"],
            ["results.id"],
            name=op.f("fk_deletions_results_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_deletions_account_id")
        ),
        sa.PrimaryKeyConstraint("results_id", name=op.f("pk_deletions")),
    )
    op.create_index(
        "ix_deletions_due",
        "deletions",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("state = 'due'"),
        postgresql_where=sa.text("state = 'due'"),
    )
    op.add_column("parts", sa.Column("uploaded_at", sa.Double(), nullable=True))
    op.add_column("batches", sa.Column("input_file_id", sa.Text(), nullable=True))
    op.execute(_fill())
    op.create_index("ix_batches_input", "batches", ["account_id", "input_file_id"])


def _fill() -> str:
    """PostgreSQL reads no JSON that has an escaped NUL anywhere."""
    if op.get_bind().dialect.name == "sqlite":
        return "UPDATE batches SET input_file_id = json_extract(snapshot, '$.input_file_id')"
    return (
        "UPDATE batches SET input_file_id = CAST(snapshot AS json) ->> 'input_file_id'"
        r" WHERE strpos(snapshot, '\u0000') = 0"
    )
