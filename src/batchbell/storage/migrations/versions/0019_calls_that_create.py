"""What is known of a call to make a batch whose answer was lost."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.add_column("parts", sa.Column("asked_at", sa.Double(), nullable=True))
    op.add_column(
        "parts", sa.Column("ask_again_at", sa.Double(), nullable=False, server_default="0")
    )
    op.add_column("parts", sa.Column("looks", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("parts", sa.Column("note", sa.Text(), nullable=True))
    # Batches of these may have been asked for by the version before.
    op.execute(
        "UPDATE parts SET asked_at = intent_at WHERE state = 'submitting' AND file_id IS NOT NULL"
    )
