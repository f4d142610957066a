"""When a sweep of an account last ended well."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("accounts", sa.Column("succeeded_at", sa.Double(), nullable=True))
    op.execute("UPDATE accounts SET succeeded_at = swept_at WHERE state <> 'failing'")
