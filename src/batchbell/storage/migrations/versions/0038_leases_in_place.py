"""Lets a claim leave on PostgreSQL what stands in an index, and have room beside the row."""

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("lease_until", sa.Double()))
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE deliveries SET (fillfactor = 50)")
