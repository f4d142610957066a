"""The migrations make the schema, whole or not at all, and know what is not theirs."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, Connection, event, inspect, select, text
from sqlalchemy.exc import IntegrityError

from batchbell.core.errors import StoreOutdated
from batchbell.storage import opening
from batchbell.storage.batches import joined_batches, save, to_batch
from batchbell.storage.engine import Store
from batchbell.storage.opening import open_store, parse_url
from batchbell.storage.postgresql import PostgresStore
from batchbell.storage.schema import batches, metadata
from batchbell.storage.sqlite import SqliteStore


def bare(url: str) -> Store:
    """A store whose schema nobody has looked at."""
    parsed = parse_url(url)
    if parsed.drivername == "postgresql":
        return PostgresStore(parsed)
    from pathlib import Path

    return SqliteStore(Path(str(parsed.database)))


async def test_the_migrations_make_the_schema(store: Store) -> None:
    def differences(connection: Connection) -> list[Any]:
        dialect = connection.dialect.name

        def is_for_it(item: Any, *_: Any) -> bool:
            """Alembic does not know that something may be for another database alone."""
            only = getattr(item, "_ddl_if", None)
            return only is None or only.dialect == dialect

        how = {"include_object": is_for_it}
        return compare_metadata(MigrationContext.configure(connection, opts=how), metadata)

    assert await store.read(differences) == []


async def test_the_migrations_make_every_check_and_every_partial_index(store: Store) -> None:
    """Alembic compares neither."""

    def found(connection: Connection) -> tuple[Any, Any]:
        inspector = inspect(connection)
        checks = {
            table: {check["name"] for check in inspector.get_check_constraints(table)}
            for table in metadata.tables
        }
        where = f"{connection.dialect.name}_where"
        partial = {
            index["name"]
            for table in metadata.tables
            for index in inspector.get_indexes(table)
            if index.get("dialect_options", {}).get(where) is not None
        }
        return checks, partial

    checks, partial = await store.read(found)
    assert checks == {
        table.name: {
            str(constraint.name)
            for constraint in table.constraints
            if isinstance(constraint, CheckConstraint)
        }
        for table in metadata.tables.values()
    }
    assert partial == {
        index.name
        for table in metadata.tables.values()
        for index in table.indexes
        if index.dialect_options["sqlite"].get("where") is not None
    }


@pytest.mark.databases("sqlite")
async def test_sqlite_checks_what_the_schema_says(store: Store) -> None:
    """Texts of tables were changed in place. PostgreSQL spells checks in a way of its own."""

    def bare(words: object) -> str:
        return re.sub(r"[\s()]", "", str(words))

    def found(connection: Connection) -> dict[str, dict[str, str]]:
        look = inspect(connection).get_check_constraints
        return {
            table: {str(check["name"]): bare(check["sqltext"]) for check in look(table)}
            for table in metadata.tables
        }

    said = {
        table.name: {
            str(check.name): bare(check.sqltext)
            for check in table.constraints
            if isinstance(check, CheckConstraint)
        }
        for table in metadata.tables.values()
    }
    assert await store.read(found) == said
    whole = await store.read(lambda c: c.execute(text("PRAGMA integrity_check")).scalars().all())
    assert whole == ["ok"]


@pytest.mark.databases("sqlite")
async def test_a_library_that_lets_nobody_change_a_table_in_its_text_is_served(
    database_url: str,
) -> None:
    """As a SQLite that is built to be defensive. The checks stay as they were made, and hold."""

    def deny(action: int, table: str | None, *_: object) -> int:
        kept = action == sqlite3.SQLITE_UPDATE and table == "sqlite_master"
        return sqlite3.SQLITE_DENY if kept and writable else sqlite3.SQLITE_OK

    def note(_: Any, __: Any, statement: str, *rest: Any) -> None:
        nonlocal writable
        if statement.startswith("PRAGMA writable_schema"):
            writable = statement.endswith("ON")

    def upgrade(connection: Connection) -> str:
        driver: Any = connection.connection.driver_connection
        driver.set_authorizer(deny)
        event.listen(connection, "before_cursor_execute", note)
        try:
            return opening.upgrade(connection)
        finally:
            driver.set_authorizer(None)

    writable = False
    store = bare(database_url)
    try:
        assert await store.write(upgrade) == opening.head()
        checks = await store.read(lambda c: inspect(c).get_check_constraints("deliveries"))
        assert any(" IN (" in check["sqltext"] for check in checks)
        assert (
            await store.read(lambda c: c.execute(text("PRAGMA integrity_check")).scalar()) == "ok"
        )
    finally:
        await store.close()


async def test_to_upgrade_again_changes_nothing(store: Store) -> None:
    revision = await store.write(opening.upgrade)
    assert revision == opening.head() == await store.read(opening.check)


async def test_a_database_of_a_newer_version_is_left_alone(store: Store, database_url: str) -> None:
    await store.write(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(StoreOutdated, match="newer Batchbell"):
        await store.write(opening.upgrade)
    with pytest.raises(StoreOutdated, match="newer Batchbell"):
        await store.read(opening.check)
    await store.close()
    with pytest.raises(StoreOutdated):
        await open_store(database_url)


async def test_an_empty_database_is_not_served_without_migrating(database_url: str) -> None:
    with pytest.raises(StoreOutdated, match="batchbell migrate"):
        await open_store(database_url, migrate=False)
    await (await open_store(database_url)).close()
    await (await open_store(database_url, migrate=False)).close()


@contextmanager
def failing_at(connection: Connection, words: str) -> Iterator[None]:
    def fail(_: Any, __: Any, statement: str, *rest: Any) -> None:
        if words in statement:
            raise RuntimeError("the power went out")

    event.listen(connection, "before_cursor_execute", fail)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", fail)


@pytest.mark.parametrize("words", ["CREATE TABLE deliveries", "INSERT INTO alembic_version"])
async def test_an_upgrade_that_fails_in_the_middle_leaves_nothing(
    database_url: str, words: str
) -> None:
    store = bare(database_url)

    def half(connection: Connection) -> None:
        with failing_at(connection, words):
            opening.upgrade(connection)

    try:
        with pytest.raises(RuntimeError, match="power"):
            await store.write(half)
        assert await store.read(lambda c: inspect(c).get_table_names()) == []
        assert await store.write(opening.upgrade) == opening.head()
    finally:
        await store.close()


async def test_processes_that_start_together_take_turns_to_upgrade(postgres_url: str) -> None:
    stores = [bare(postgres_url) for _ in range(4)]
    try:
        revisions = await asyncio.gather(*(store.write(opening.upgrade) for store in stores))
        assert revisions == [opening.head()] * 4
    finally:
        for store in stores:
            await store.close()


async def test_a_database_of_the_release_before_keeps_its_rows(database_url: str) -> None:
    store = bare(database_url)

    def first(connection: Connection) -> None:
        opening.upgrade(connection, FIRST_RELEASE)
        for statement in ONE_OF_EACH:
            connection.execute(text(statement))

    try:
        await store.write(first)
        assert await store.write(opening.upgrade) == opening.head()
        for table in metadata.tables:
            count = text(f"SELECT count(*) FROM {table}")
            rows = 0 if table in MADE_SINCE else 1
            assert await store.read(lambda c, q=count: c.execute(q).scalar()) == rows, table
        with pytest.raises(IntegrityError):
            await store.write(lambda c: c.execute(text("DELETE FROM endpoints")))
    finally:
        await store.close()


SEEN = (
    "INSERT INTO batches (key, project_id, account_id, id, status, generation, registered_at,"
    " updated_at, check_at, ended_at, kind, outcome, fingerprint, snapshot)"
    " VALUES (:key, 'default', 'a', :id, :status, 1, 1, 1, 0, :ended_at, :kind, :outcome,"
    " :fingerprint, :snapshot)"
)
COUNTED = {"total": 3, "completed": 3, "failed": 0, "whole": True}
FILLED: list[tuple[dict[str, Any], tuple[str | None, str | None, int]]] = [
    ({"status": "completed", "counts": COUNTED, "model": "m" * 101}, ("succeeded", "m" * 100, 0)),
    ({"status": "completed", "counts": COUNTED, "outcome": "partial"}, ("partial", None, 0)),
    ({"status": "completed", "counts": {**COUNTED, "completed": 2}}, (None, None, 0)),
    ({"status": "completed", "counts": {**COUNTED, "whole": False}}, (None, None, 0)),
    ({"status": "expired", "counts": {**COUNTED, "completed": 2}}, ("partial", None, 0)),
    ({"status": "expired", "counts": {**COUNTED, "completed": 0}}, ("none", None, 0)),
    ({"status": "failed", "counts": None, "metadata": {"job": "a"}}, ("none", None, 1)),
    ({"status": "lost"}, ("none", None, 0)),
    (
        {"status": "in_progress", "counts": COUNTED, "metadata": {"a": "b", "c": "é"}},
        (None, None, 2),
    ),
]


async def test_what_lists_choose_by_is_filled_in_as_it_would_be_written(database_url: str) -> None:
    """What the migration has written is what a save of the same batch writes."""
    store = bare(database_url)

    def first(connection: Connection) -> None:
        opening.upgrade(connection, FIRST_RELEASE)
        for statement in ONE_OF_EACH[:3]:
            connection.execute(text(statement))
        for key, (seen, _) in enumerate(FILLED, 1):
            connection.execute(text(SEEN), _row(key, seen))

    def saved(connection: Connection) -> list[Any]:
        read = connection.execute(
            select(batches.c.outcome, batches.c.model, batches.c.marks).order_by(batches.c.key)
        )
        return [tuple(row) for row in read]

    try:
        await store.write(first)
        await store.write(opening.upgrade)
        filled = await store.read(saved)
        assert [(one[0], one[1], len(one[2].split())) for one in filled] == [
            expected for _, expected in FILLED
        ]
        every = await store.read(lambda c: [to_batch(row) for row in c.execute(joined_batches())])
        await store.write(save, every)
        assert await store.read(saved) == filled
    finally:
        await store.close()


def _row(key: int, seen: dict[str, Any]) -> dict[str, Any]:
    status = seen["status"]
    shown = {"id": f"batch_{key}", "provider_status": status, **seen}
    is_seen = status != "lost"
    return {
        "key": key,
        "id": f"batch_{key}",
        "status": status,
        "ended_at": None if status == "in_progress" else 1.0,
        "kind": "single",
        "outcome": seen.get("outcome"),
        "fingerprint": "f" if is_seen else None,
        "snapshot": json.dumps(shown) if is_seen else None,
    }


async def test_a_database_of_before_the_first_release_is_left_alone(
    store: Store, database_url: str
) -> None:
    await store.write(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '0012'")))
    with pytest.raises(StoreOutdated, match=r"before the first release \(schema 0012\)"):
        await store.write(opening.upgrade)
    with pytest.raises(StoreOutdated, match="before the first release"):
        await store.read(opening.check)
    await store.close()
    with pytest.raises(StoreOutdated):
        await open_store(database_url)


FIRST_RELEASE = "0027"
MADE_SINCE = {"hints"}
ONE_OF_EACH = [
    "INSERT INTO projects VALUES ('default', 'default', 'whsec_x', 1)",
    "INSERT INTO keys (id, project_id, name, hash, hint, created_at)"
    " VALUES ('key_1', 'default', 'a', 'h', '…', 1)",
    "INSERT INTO accounts (id, project_id, name, provider, base_url, state, failures, due_at,"
    " not_before, created_at, trouble)"
    " VALUES ('a', 'default', 'a', 'openai', 'u', 'failing', 1, 1, 1, 1, 'It answered 401.')",
    "INSERT INTO batches (key, project_id, account_id, id, status, generation, registered_at,"
    " updated_at, check_at, trouble)"
    " VALUES (1, 'default', 'a', 'batch_1', 'validating', 1, 1, 1, 0, 'not found')",
    "INSERT INTO endpoints (id, project_id, url, state, failures, created_at)"
    " VALUES ('whe_1', 'default', 'https://a.example', 'active', 0, 1)",
    "INSERT INTO events (id, project_id, batch_key, batch_id, type, generation, created_at,"
    " recorded_at, body) VALUES ('evt_1', 'default', 1, 'batch_1', 'batch.completed', 1, 1, 1, '')",
    "INSERT INTO deliveries (id, project_id, event_id, event_type, batch_id, endpoint_id, dialect,"
    " state, attempts, attempts_before, due_at, created_at) VALUES ('dlv_1', 'default', 'evt_1',"
    " 'batch.completed', 'batch_1', 'whe_1', 'watch', 'pending', 0, 0, 1, 1)",
    "INSERT INTO attempts (delivery_id, number, started_at, duration_ms) VALUES ('dlv_1', 1, 1, 1)",
    "INSERT INTO watches (id, project_id, batch_key, endpoint_id, dialect, events, metadata,"
    " created_at) VALUES ('wch_1', 'default', 1, 'whe_1', 'watch', '[]', '{}', 1)",
    "INSERT INTO submissions (id, project_id, batch_key, model, retry_missing, failures,"
    " created_at) VALUES ('sub_1', 'default', 1, 'm', 0, 0, 1)",
    "INSERT INTO parts (id, submission_id, position, round, state, lines, size, tokens, tries,"
    " due_at, looked_through) VALUES ('prt_1', 'sub_1', 1, 1, 'waiting', 1, 1, 1, 0, 1, false)",
    "INSERT INTO capacities (account_id, model, bytes, tokens, cap_at, told)"
    " VALUES ('a', 'm', 0, 0, 0, false)",
    "INSERT INTO creations (id, project_id, account_id, fingerprint, input_file_id, metadata,"
    " wishes, state, asked_at, ask_again_at, due_at, looks, unlisted)"
    " VALUES ('cre_1', 'default', 'a', 'f', 'file-1', '{}', '[]', 'asked', 1, 1, 1, 0, false)",
    "INSERT INTO results (id, project_id, batch_key, generation, state, secret, tries, due_at,"
    " created_at) VALUES ('res_1', 'default', 1, 1, 'waiting', 's', 0, 1, 1)",
    "INSERT INTO deletions (results_id, account_id, state, files, tries, due_at)"
    " VALUES ('res_1', 'a', 'due', '[]', 0, 1)",
    "INSERT INTO files (key, project_id, id, account_id, created_at)"
    " VALUES (1, 'default', 'file-1', 'a', 1)",
    "INSERT INTO replays (id, project_id, status, types, as_new, pace, state, total, done, skipped,"
    " cursor, due_at, created_at, updated_at)"
    " VALUES ('rpl_1', 'default', 'all', '[]', false, 1, 'running', 0, 0, 0, '', 1, 1, 1)",
    "INSERT INTO results_places (marker, name, host, seen_at) VALUES ('m', '/data', 'h', 1)",
]
"""A row of each table, as the first release keeps them."""
