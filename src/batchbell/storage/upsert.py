"""Insert what is missing: the one statement whose name differs between the databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from batchbell.storage.engine import dialect_of

ROWS_PER_STATEMENT = 500
"""Keeps a statement below the databases' limits on parameters."""


def insert_missing(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert the rows whose unique keys are not there yet; leave the others as they are.

    Give the rows in one order everywhere: two transactions that insert the same keys in
    different orders would wait for each other.
    """
    insert = sqlite.insert if dialect_of(connection) == "sqlite" else postgresql.insert
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        part = rows[start : start + ROWS_PER_STATEMENT]
        connection.execute(insert(table).on_conflict_do_nothing(), part)
