"""Results are claimed by account, asked for again, and say how their batch turned out."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.add_column("batches", sa.Column("outcome", sa.Text(), nullable=True))
    op.add_column("results", sa.Column("asked_at", sa.Double(), nullable=True))
    op.add_column("results", sa.Column("account_id", sa.Text(), nullable=False, server_default=""))
    op.execute(
        "UPDATE results SET account_id ="
        " (SELECT batches.account_id FROM batches WHERE batches.key = results.batch_key)"
    )
    op.drop_index("ix_results_due", table_name="results")
    waiting = sa.text("state = 'waiting'")
    op.create_index(
        "ix_results_due",
        "results",
        ["account_id", "due_at"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
