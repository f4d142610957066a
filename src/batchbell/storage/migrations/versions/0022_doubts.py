"""What sweeps met: doubtful answers about a batch, and verbs of an account that fail."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.add_column("accounts", sa.Column("list_error", sa.Text(), nullable=True))
    op.add_column("accounts", sa.Column("retrieve_error", sa.Text(), nullable=True))
    op.add_column(
        "accounts",
        sa.Column("list_stale", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column("batches", sa.Column("doubts", sa.Integer(), nullable=False, server_default="0"))
    op.create_index(
        "ix_batches_lost",
        "batches",
        ["account_id", "ended_at"],
        unique=False,
        sqlite_where=sa.text("status = 'lost'"),
        postgresql_where=sa.text("status = 'lost'"),
    )
