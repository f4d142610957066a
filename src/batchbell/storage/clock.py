"""What time the database thinks it is."""

from __future__ import annotations

from sqlalchemy import Connection, text

from batchbell.storage.engine import dialect_of


def database_time(connection: Connection) -> float | None:
    """Seconds since the epoch by the database server's clock; None for SQLite, which has ours."""
    if dialect_of(connection) != "postgresql":
        return None
    return float(
        connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
    )
