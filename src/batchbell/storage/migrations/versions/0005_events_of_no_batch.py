"""Events that are about something else than a batch: an endpoint, an account, a delivery."""

import sqlalchemy as sa
from alembic import op

from batchbell.storage.migrations.rebuilding import rebuilt

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with rebuilt("events", with_it=("deliveries", "attempts")) as batch:
        batch.alter_column("batch_key", existing_type=sa.BigInteger(), nullable=True)
        batch.alter_column("batch_id", existing_type=sa.Text(), nullable=True)
        batch.create_check_constraint(
            op.f("ck_events_batch"), "(batch_key IS NULL) = (batch_id IS NULL)"
        )
    with rebuilt("deliveries", with_it=("attempts",)) as batch:
        batch.alter_column("batch_id", existing_type=sa.Text(), nullable=True)
    op.create_index(
        "ix_events_of_no_batch",
        "events",
        ["recorded_at"],
        unique=False,
        sqlite_where=sa.text("batch_key IS NULL"),
        postgresql_where=sa.text("batch_key IS NULL"),
    )
