"""Accounts whose batches are found in the list, and batches whose own webhook_url is not called."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("accounts", sa.Column("discover_since", sa.Double(), nullable=True))
    op.add_column("batches", sa.Column("webhook_refused", sa.Text(), nullable=True))
