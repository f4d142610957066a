"""Claims walk by project, and lists are read by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

PENDING = "state = 'pending'"


def upgrade() -> None:
    _some("ix_deliveries_ring", "deliveries", ["project_id", "endpoint_id"], PENDING)


def _some(name: str, table: str, columns: list[str], which: str) -> None:
    where = sa.text(which)
    op.create_index(name, table, columns, unique=False, sqlite_where=where, postgresql_where=where)
