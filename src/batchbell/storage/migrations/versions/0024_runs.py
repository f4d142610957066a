"""Parts know which lines of the user's file they have."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    op.add_column("parts", sa.Column("runs", sa.Text(), nullable=False, server_default="[]"))
