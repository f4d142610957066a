"""Changing a constraint of a table that others point to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations


@contextmanager
def rebuilt(table: str) -> Iterator[BatchOperations]:
    """Alembic's batch operations on `table`, whose rows keep those who point to them.

    SQLite makes the table anew for a constraint. Its rows wait elsewhere meanwhile: who points
    to them is only asked at the commit, but a table that is dropped while it has rows that are
    pointed to is never forgiven. New columns need a default on the server.
    """
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        with op.batch_alter_table(table) as batch:
            yield batch
        return
    names = ", ".join(column["name"] for column in sa.inspect(connection).get_columns(table))
    op.execute("PRAGMA defer_foreign_keys = ON")
    op.execute(f"CREATE TABLE rows_kept AS SELECT * FROM {table}")  # noqa: S608
    op.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
    with op.batch_alter_table(table, recreate="always") as batch:
        yield batch
    op.execute(f"INSERT INTO {table} ({names}) SELECT * FROM rows_kept")  # noqa: S608
    op.execute("DROP TABLE rows_kept")
