"""How fast an endpoint may be called, and whether in the order of events."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("endpoints", sa.Column("rate_limit", sa.Double(), nullable=True))
    op.add_column("endpoints", sa.Column("rate_at", sa.Double(), nullable=True))
    op.add_column(
        "endpoints", sa.Column("ordered", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.create_index(
        "ix_deliveries_order",
        "deliveries",
        ["endpoint_id", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
