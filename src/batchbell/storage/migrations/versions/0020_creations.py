"""Calls through the gateway that make a batch, until it is known what came of them."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.create_table(
        "creations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("input_file_id", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=True),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("wishes", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("ask_again_at", sa.Double(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.Column("unlisted", sa.Boolean(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "state IN ('asked', 'doubtful', 'found', 'nothing')", name=op.f("ck_creations_state")
        ),
        sa.CheckConstraint(
            "(state = 'found') = (batch_id IS NOT NULL)", name=op.f("ck_creations_found")
        ),
        sa.CheckConstraint(
            "(state IN ('found', 'nothing')) = (ended_at IS NOT NULL)",
            name=op.f("ck_creations_end"),
        ),
        sa.CheckConstraint(
            "(ended_at IS NULL) = (due_at IS NOT NULL)", name=op.f("ck_creations_due")
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_creations_project_id"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_creations_account_id"),
        sa.PrimaryKeyConstraint("id", name="pk_creations"),
    )
    op.create_index("ix_creations_due_at", "creations", ["due_at"])
    op.create_index("ix_creations_ended_at", "creations", ["ended_at"])
    op.create_index("ix_creations_same", "creations", ["account_id", "fingerprint"])
