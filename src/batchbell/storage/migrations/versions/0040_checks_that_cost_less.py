"""Says the same of batches and deliveries at less cost, and no more that projects are there.

SQLite makes a table for each statement that writes, of every list that a check compares with. It
changes neither a check nor a foreign key by itself: what it keeps of a table is its text, which is
changed as https://sqlite.org/lang_altertable.html says for what makes no row another one. Some
builds of SQLite, as that of macOS, allow nobody to write there: then all stays as it is, which is
as right, and slower.
"""

import contextlib
import re

import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import DatabaseError

revision = "0040"
down_revision = "0039"

OF_A_PROJECT = ("batches", "watches", "events", "deliveries")
FOREIGN_KEY = r",\s*CONSTRAINT fk_{table}_project_id FOREIGN KEY\(project_id\)[^,]*\(id\)"
AMONG = re.compile(r"\((status|state) IN \(([^()]*)\)\)")


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        for table in OF_A_PROJECT:
            op.drop_constraint(f"fk_{table}_project_id", table)
        return
    connection = op.get_bind()
    version = connection.execute(sa.text("PRAGMA schema_version")).scalar_one()
    op.execute("PRAGMA writable_schema = ON")
    with contextlib.suppress(DatabaseError):
        for table in OF_A_PROJECT:
            _rewrite(connection, table)
        op.execute(f"PRAGMA schema_version = {version + 1}")
    op.execute("PRAGMA writable_schema = OFF")


def _rewrite(connection: sa.Connection, table: str) -> None:
    this = "FROM sqlite_master WHERE type = 'table' AND name = :table"
    made = connection.execute(sa.text(f"SELECT sql {this}"), {"table": table}).scalar_one()
    less = AMONG.sub(_spelled, re.sub(FOREIGN_KEY.format(table=table), "", made))
    change = "UPDATE sqlite_master SET sql = :sql WHERE type = 'table' AND name = :table"
    connection.execute(sa.text(change), {"sql": less, "table": table})


def _spelled(found: re.Match[str]) -> str:
    column, words = found.groups()
    return f"({' OR '.join(f'{column} = {word.strip()}' for word in words.split(','))})"
