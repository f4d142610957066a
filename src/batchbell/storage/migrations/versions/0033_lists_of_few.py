"""Lets the lists of submissions, and of endpoints that are unwell, pass over nothing else."""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"

LISTED = (
    *("project_id", "status", "registered_at", "key"),
    *("kind", "account_id", "yielded", "model", "ended_at", "marks", "id"),
)


def upgrade() -> None:
    _partial("ix_batches_joined", "batches", LISTED, "kind = 'joined'")
    _partial("ix_endpoints_listed", "endpoints", ("project_id", "id"), "deleted_at IS NULL")
    unwell = "state <> 'active' AND deleted_at IS NULL"
    _partial("ix_endpoints_unwell", "endpoints", ("project_id", "state_since"), unwell)


def _partial(name: str, table: str, columns: tuple[str, ...], where: str) -> None:
    rows = sa.text(where)
    op.create_index(name, table, list(columns), sqlite_where=rows, postgresql_where=rows)
