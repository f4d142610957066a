"""Makes one index of the ring of endpoints and of the order of what waits for each."""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    pending = sa.text("state = 'pending'")
    op.drop_index("ix_deliveries_order", "deliveries")
    op.drop_index("ix_deliveries_ring", "deliveries")
    op.create_index(
        "ix_deliveries_ring",
        "deliveries",
        ["project_id", "endpoint_id", "id"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
