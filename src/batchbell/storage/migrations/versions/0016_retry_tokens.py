"""How much of a submission may be handed in again, in tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("submissions", sa.Column("retry_max_tokens", sa.BigInteger(), nullable=True))
