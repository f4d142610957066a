"""Changing a constraint of a table that others point to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations


@contextmanager
def rebuilt(table: str, *, with_it: Sequence[str] = ()) -> Iterator[BatchOperations]:
    """Alembic's batch operations on `table`, whose rows keep those who point to them.

    SQLite makes the table anew for a constraint. Its rows wait elsewhere meanwhile: who points
    to them is only asked at the commit, but a table that is dropped while it has rows that are
    pointed to is never forgiven. New columns need a default on the server. `with_it` names the
    tables whose rows would be deleted with those of `table`, parents first: they wait too.
    """
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        with op.batch_alter_table(table) as batch:
            yield batch
        return
    waiting = {name: _columns(connection, name) for name in (table, *with_it)}
    op.execute("PRAGMA defer_foreign_keys = ON")
    for name in waiting:
        op.execute(f"CREATE TABLE {name}_kept AS SELECT * FROM {name}")  # noqa: S608
    for name in reversed(waiting):
        op.execute(f"DELETE FROM {name}")  # noqa: S608 - our own names
    with op.batch_alter_table(table, recreate="always") as batch:
        yield batch
    for name, columns in waiting.items():
        op.execute(f"INSERT INTO {name} ({columns}) SELECT * FROM {name}_kept")  # noqa: S608
        op.execute(f"DROP TABLE {name}_kept")


def _columns(connection: sa.Connection, table: str) -> str:
    return ", ".join(column["name"] for column in sa.inspect(connection).get_columns(table))
