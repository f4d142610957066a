"""Finds batches that name several input files, so that none is deleted under another."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    several = sa.text("input_file_id LIKE '%,%'")
    op.create_index(
        "ix_batches_inputs",
        "batches",
        ["account_id"],
        sqlite_where=several,
        postgresql_where=several,
    )
