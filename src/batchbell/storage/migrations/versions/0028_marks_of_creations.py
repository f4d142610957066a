"""By what a batch is recognized whose requests came with the call that made it."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    op.add_column("creations", sa.Column("lines", sa.Integer()))
    op.add_column("creations", sa.Column("tag", sa.Text()))
