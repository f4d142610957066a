"""When open batches are looked at for alarms, and which have rung; an event may come again."""

import sqlalchemy as sa
from alembic import op

from batchbell.storage.migrations.rebuilding import rebuilt

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Every open batch is looked at once, soon: then it is known when to look again."""
    op.add_column("batches", sa.Column("expires_at", sa.Double(), nullable=True))
    op.add_column("batches", sa.Column("unknown_status", sa.Text(), nullable=True))
    for name in ("progress_at", "alarm_at"):
        op.add_column("batches", sa.Column(name, sa.Double(), nullable=False, server_default="0"))
    op.add_column("batches", sa.Column("alarms", sa.Text(), nullable=False, server_default=""))
    still_open = sa.text("ended_at IS NULL")
    op.create_index(
        "ix_batches_alarm",
        "batches",
        ["alarm_at"],
        sqlite_where=still_open,
        postgresql_where=still_open,
    )
    with rebuilt("events", with_it=("deliveries", "attempts")) as batch:
        batch.add_column(sa.Column("occurrence", sa.Integer(), nullable=False, server_default="1"))
        batch.drop_constraint("uq_events_batch_key_type_generation", type_="unique")
        batch.create_unique_constraint(
            "uq_events_batch_key_type_generation_occurrence",
            ["batch_key", "type", "generation", "occurrence"],
        )
