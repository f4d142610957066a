"""Lets PostgreSQL find batches by how their ids begin, whatever its locale."""

from alembic import op

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    op.drop_index("ix_batches_id", "batches")
    bytewise = {"id": "text_pattern_ops"}
    op.create_index("ix_batches_id", "batches", ["id", "project_id"], postgresql_ops=bytewise)
