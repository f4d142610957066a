"""Accounts that were added by API: their credentials, paused and removed ones."""

import sqlalchemy as sa
from alembic import op

from batchbell.storage.migrations.rebuilding import rebuilt

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    with rebuilt("accounts") as batch:
        batch.add_column(sa.Column("credentials", sa.Text(), nullable=True))
        batch.add_column(sa.Column("removed_at", sa.Double(), nullable=True))
        batch.drop_constraint(op.f("ck_accounts_state"), type_="check")
        batch.create_check_constraint(
            op.f("ck_accounts_state"), "state IN ('active', 'failing', 'paused')"
        )
    op.create_index("uq_projects_name", "projects", ["name"], unique=True)
