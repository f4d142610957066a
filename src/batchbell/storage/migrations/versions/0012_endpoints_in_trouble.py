"""Endpoints that need the janitor are found without a look at all others."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

FOUND = {
    "ix_endpoints_disabled": "state = 'disabled'",
    "ix_endpoints_open": "opened_at IS NOT NULL",
    "ix_endpoints_flushed": "flush_at IS NOT NULL",
}


def upgrade() -> None:
    for name, which in FOUND.items():
        op.create_index(
            name,
            "endpoints",
            ["id"],
            unique=False,
            sqlite_where=sa.text(which),
            postgresql_where=sa.text(which),
        )
