"""What an attempt sent and where its time went; and batches whose payloads were expunged."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for name in ("dns_ms", "connect_ms", "tls_ms", "first_byte_ms"):
        op.add_column("attempts", sa.Column(name, sa.Double(), nullable=True))
    op.add_column("attempts", sa.Column("request_headers", sa.Text(), nullable=True))
    op.add_column("batches", sa.Column("expunged_at", sa.Double(), nullable=True))
