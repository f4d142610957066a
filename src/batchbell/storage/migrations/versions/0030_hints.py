"""What providers say themselves of batches that have ended, and how reliably it comes."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    op.add_column("accounts", sa.Column("hook_secrets", sa.Text()))
    op.add_column("accounts", sa.Column("hook_audience", sa.Text()))
    op.add_column("accounts", sa.Column("hook_at", sa.Double()))
    op.add_column(
        "accounts", sa.Column("hooks_in_a_row", sa.Integer(), nullable=False, server_default="0")
    )
    op.add_column("accounts", sa.Column("hook_missed_at", sa.Double()))
    op.create_table(
        "hints",
        sa.Column(
            "key",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("account_id", sa.Text(), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("due_at", sa.Double()),
        sa.Column("looks", sa.Integer(), nullable=False, server_default="0"),
        sa.UniqueConstraint("account_id", "id"),
    )
    op.create_index("ix_hints_received_at", "hints", ["received_at"])
    op.create_index("ix_hints_batch", "hints", ["account_id", "batch_id"])
    waiting = sa.text("due_at IS NOT NULL")
    op.create_index(
        "ix_hints_due",
        "hints",
        ["account_id", "due_at"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
