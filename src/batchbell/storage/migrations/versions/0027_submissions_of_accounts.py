"""The accounts with submissions to go on with are found by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    op.add_column(
        "submissions", sa.Column("account_id", sa.Text(), nullable=False, server_default="")
    )
    op.execute(
        "UPDATE submissions SET account_id ="
        " (SELECT b.account_id FROM batches b WHERE b.key = submissions.batch_key)"
    )
    _some("ix_submissions_account", ["account_id", "due_at"], "due_at IS NOT NULL")
    _some("ix_submissions_leased", ["lease_until"], "lease_until IS NOT NULL")


def _some(name: str, columns: list[str], which: str) -> None:
    where = sa.text(which)
    op.create_index(name, "submissions", columns, sqlite_where=where, postgresql_where=where)
