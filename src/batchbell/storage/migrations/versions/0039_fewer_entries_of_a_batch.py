"""Takes entries of a new batch out of indexes: each was written in the order of the provider's ids.

SQLite has the unique index of an account's ids already, as a constraint. That of PostgreSQL becomes
an index, which is in the order of bytes, so that ids are found in it by how they begin.
"""

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0038"


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        bytewise = {"id": "text_pattern_ops"}
        op.create_index(
            "uq_batches_id", "batches", ["account_id", "id"], unique=True, postgresql_ops=bytewise
        )
        op.drop_constraint("uq_batches_account_id_id", "batches")
    for name in ("ix_batches_id", "ix_batches_input", "ix_batches_open"):
        op.drop_index(name, "batches")
    _make("ix_batches_input", ["account_id", "input_file_id"], where="input_file_id IS NOT NULL")
    _make("ix_batches_open", ["account_id"], where="ended_at IS NULL")


def _make(name: str, columns: list[str], *, where: str) -> None:
    of = sa.text(where)
    op.create_index(name, "batches", columns, sqlite_where=of, postgresql_where=of)
