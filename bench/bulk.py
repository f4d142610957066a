"""Very many deliveries, written by SQL alone: as many as Python would write in an hour."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import asyncpg

from bench.backlog import Backlog, body
from bench.run import mint, opened

FIRST = 100_000_000
"""Numbers begin here, so that ids have one length and come in the order of an index."""

EVENTS = """
INSERT INTO events (id, project_id, type, generation, created_at, recorded_at, body)
SELECT 'evt_{key}_' || n, 'default', 'batch.completed', 1, {now}, {now},
  '{front}' || n || '{back}' FROM {numbers}
"""
DELIVERIES = """
INSERT INTO deliveries (id, project_id, event_id, event_type, endpoint_id, dialect, watch_id,
  watch_metadata, state, attempts, attempts_before, due_at, finished_at, created_at)
SELECT 'dlv_{key}_' || n, 'default', 'evt_{key}_' || n, 'batch.completed', '{endpoint}', 'watch',
  'wat_{key}_' || n, '{{}}', '{state}', {attempts}, 0, {due_at}, {finished_at}, {now}
FROM {numbers}
"""
SERIES = {
    "sqlite": "(WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s"
    " WHERE n < {last}) SELECT n FROM s)",
    "postgresql": "generate_series({first}, {last}) AS n",
}
PENDING = {"state": "pending", "attempts": 0, "finished_at": "NULL"}
DELIVERED = {"state": "delivered", "attempts": 1, "due_at": "NULL"}


async def fill(backlog: Backlog, number: int, *, finished: bool = False) -> None:
    """Let so many more wait, or be long delivered: these without events and attempts of theirs."""
    async with opened(backlog.database_url) as store:
        await backlog.stage(store)
    dialect, _, path = backlog.database_url.partition(":///")
    dialect = dialect.partition(":")[0]
    each = number // len(backlog.endpoint_ids)
    numbers = SERIES[dialect].format(first=FIRST, last=FIRST + each - 1)
    statements = [
        statement
        for endpoint in backlog.endpoint_ids
        for statement in _of_endpoint(endpoint, numbers, finished=finished)
    ]
    if dialect == "sqlite":
        _write_sqlite(path, statements)
    else:
        await _write_postgresql(backlog.database_url, statements)
    backlog.total += 0 if finished else each * len(backlog.endpoint_ids)


def _of_endpoint(endpoint: str, numbers: str, *, finished: bool) -> list[str]:
    key, now = mint("b")[2:], time.time()
    how = {"key": key, "endpoint": endpoint, "now": now, "numbers": numbers}
    if finished:
        return [DELIVERIES.format(**how, **DELIVERED, finished_at=now)]
    id = f"evt_{key}_{FIRST}"
    front, _, back = body(id, f"batch_{key}").partition(str(FIRST))
    return [
        EVENTS.format(**how, front=front, back=back),
        DELIVERIES.format(**how, **PENDING, due_at=now),
    ]


def _write_sqlite(path: str, statements: list[str]) -> None:
    """Foreign keys are not checked, unless one asks for it.

    All is on the disk when this returns, as what waits in truth is: else the first checkpoint of
    whoever is measured would have to write it.
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-1000000")
        for statement in statements:
            connection.execute(statement)
            connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with Path(path).open("rb") as file:
        os.fsync(file.fileno())


async def _write_postgresql(url: str, statements: list[str]) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SET session_replication_role = replica")  # checks no foreign keys
    await connection.execute("SET synchronous_commit = off")
    for statement in statements:
        await connection.execute(statement)
    await connection.execute("VACUUM ANALYZE deliveries")
    await connection.execute("VACUUM ANALYZE events")
    await connection.execute("CHECKPOINT")
    await connection.close()
