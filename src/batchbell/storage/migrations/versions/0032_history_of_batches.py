"""Keeps when a batch was first seen in each status, and the provider's own word for it."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    op.add_column("batches", sa.Column("history", sa.Text(), nullable=False, server_default="[]"))
