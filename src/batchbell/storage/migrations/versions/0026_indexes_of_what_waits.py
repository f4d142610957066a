"""What waits is listed and counted by an index: deliveries of a project, and results."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    _some("ix_deliveries_pending_listed", "deliveries", ["project_id", "id"], "state = 'pending'")
    _some("ix_results_next", "results", ["due_at"], "state = 'waiting'")
    _some("ix_results_leased", "results", ["lease_until"], "lease_until IS NOT NULL")


def _some(name: str, table: str, columns: list[str], which: str) -> None:
    where = sa.text(which)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
