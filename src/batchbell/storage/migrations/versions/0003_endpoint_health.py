"""The breaker of an endpoint, and what a delivery needs to be parked and pulled forward."""

import sqlalchemy as sa
from alembic import op

from batchbell.storage.migrations.rebuilding import rebuilt

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # On SQLite each endpoint that is put back is looked for among the deliveries.
    op.create_index("ix_deliveries_rebuilding", "deliveries", ["endpoint_id"])
    with rebuilt("endpoints") as batch:
        for name in ("opened_at", "probe_at", "flush_at"):
            batch.add_column(sa.Column(name, sa.Double(), nullable=True))
        batch.add_column(sa.Column("warnings", sa.Integer(), nullable=False, server_default="0"))
        batch.create_check_constraint(
            op.f("ck_endpoints_probe"), "(opened_at IS NULL) = (probe_at IS NULL)"
        )
        batch.create_check_constraint(
            op.f("ck_endpoints_breaker"), "opened_at IS NULL OR state = 'failing'"
        )
    op.drop_index("ix_deliveries_rebuilding", "deliveries")
    op.add_column("deliveries", sa.Column("resent_at", sa.Double(), nullable=True))
    op.add_column(
        "deliveries", sa.Column("pulled", sa.Integer(), nullable=False, server_default="0")
    )
