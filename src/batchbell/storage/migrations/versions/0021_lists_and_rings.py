"""Claims walk by project, lists are read by an index, and a deleted watch ends its delivery."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"

PENDING = "state = 'pending'"


def upgrade() -> None:
    ends = sa.Column("ends", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("deliveries", ends)
    _some("ix_deliveries_ring", ["project_id", "endpoint_id"], PENDING)
    _some("ix_deliveries_exhausted_listed", ["project_id", "id"], "state = 'exhausted'")
    _some("ix_deliveries_held_listed", ["project_id", "id"], "state = 'held'")
    _some("ix_deliveries_undelivered", ["project_id", "event_id"], "state <> 'delivered'")
    op.create_index("ix_batches_by_status", "batches", ["project_id", "status", "key"])


def _some(name: str, columns: list[str], which: str) -> None:
    where = sa.text(which)
    op.create_index(name, "deliveries", columns, sqlite_where=where, postgresql_where=where)
