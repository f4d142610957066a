"""Endpoints that are managed: names, filters, headers, schedules and secrets of their own."""

import sqlalchemy as sa
from alembic import op

from batchbell.storage.migrations.rebuilding import rebuilt

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # On SQLite each endpoint that is put back is looked for among the deliveries.
    op.create_index("ix_deliveries_rebuilding", "deliveries", ["endpoint_id"])
    with rebuilt("endpoints") as batch:
        batch.drop_constraint("uq_endpoints_project_id_url", type_="unique")
        batch.add_column(
            sa.Column("managed", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        for name in TEXTS:
            batch.add_column(sa.Column(name, sa.Text(), nullable=True))
        for name in NUMBERS:
            batch.add_column(sa.Column(name, sa.Double(), nullable=True))
        batch.create_check_constraint(
            op.f("ck_endpoints_managed"),
            "NOT managed OR (name IS NOT NULL AND event_types IS NOT NULL)",
        )
    op.drop_index("ix_deliveries_rebuilding", "deliveries")
    implied = sa.text("NOT managed AND deleted_at IS NULL")
    op.create_index(
        "uq_endpoints_implied",
        "endpoints",
        ["project_id", "url"],
        unique=True,
        sqlite_where=implied,
        postgresql_where=implied,
    )
    managed = sa.text("managed AND deleted_at IS NULL")
    op.create_index(
        "ix_endpoints_managed",
        "endpoints",
        ["project_id", "id"],
        unique=False,
        sqlite_where=managed,
        postgresql_where=managed,
    )


TEXTS = (
    "name",
    "description",
    "event_types",
    "accounts",
    "metadata",
    "headers",
    "schedule",
    "secrets",
)
NUMBERS = ("timeout_seconds", "state_since", "updated_at", "deleted_at")
