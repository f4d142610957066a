"""Keys that make a submission known again."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    for name in ("idempotency_key", "fingerprint"):
        op.add_column("submissions", sa.Column(name, sa.Text(), nullable=True))
    op.create_index(
        "uq_submissions_idempotency_key",
        "submissions",
        ["project_id", "idempotency_key"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
