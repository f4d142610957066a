"""Lets a batch of a project be found by its id in one index: SQLite took one of the project's."""

from alembic import op

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    op.drop_index("ix_batches_id", "batches")
    op.create_index("ix_batches_id", "batches", ["id", "project_id"])
