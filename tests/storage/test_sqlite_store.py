"""The embedded store: one process, one writer, and nothing lost."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError

from batchbell.core.errors import StoreError, StoreInUse, StoreUnavailable
from batchbell.storage import migrating, projects
from batchbell.storage.opening import open_store
from batchbell.storage.sqlite import SqliteStore, check_version


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batchbell.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """One that does not wait long for others."""
    store = SqliteStore(path, busy_timeout_ms=20)
    await store.write(migrating.upgrade)
    yield store
    await store.close()


def make(connection: Connection, id: str) -> None:
    projects.ensure_project(connection, id=id, secret="x", now=0.0)


def ids(connection: Connection) -> set[str]:
    return set(connection.execute(text("SELECT id FROM projects")).scalars())


def worker(role: str, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.storage.worker", role, url]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def test_the_file_is_kept_in_the_safe_way(store: SqliteStore) -> None:
    def pragmas(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.execute(text(f"PRAGMA {name}")).scalar() for name in names]

    assert await store.write(pragmas) == ["wal", 2, 1]


async def test_a_second_process_is_sent_away(store: SqliteStore, path: Path) -> None:
    with worker("enter", f"sqlite:///{path}") as other:
        out, _ = await asyncio.to_thread(other.communicate)
    assert "DATABASE_URL=postgresql://" in json.loads(out)
    with pytest.raises(StoreInUse):
        SqliteStore(path)


async def test_who_comes_after_may_have_the_file(store: SqliteStore, path: Path) -> None:
    await store.close()
    with worker("enter", f"sqlite:///{path}") as other:
        out, _ = await asyncio.to_thread(other.communicate)
    assert json.loads(out) == "opened"


async def test_writes_that_share_a_commit_fail_alone(store: SqliteStore) -> None:
    def twin(connection: Connection) -> None:
        make(connection, "not_kept")
        row = "SELECT 'twin', name, webhook_secret, created_at FROM projects WHERE id = 'first'"
        connection.execute(text(f"INSERT INTO projects {row}"))
        connection.execute(text(f"INSERT INTO projects {row}"))

    def wrong(connection: Connection) -> None:
        make(connection, "not_kept_either")
        connection.execute(text("SELECT * FROM nowhere"))

    def failing(connection: Connection) -> None:
        make(connection, "nor_this")
        raise ValueError("mine")

    names = [f"project_{n}" for n in range(60)]
    writes = [store.write(make, name) for name in ["first", *names[:20]]]
    writes += [store.write(twin), store.write(wrong), store.write(failing)]
    writes += [store.write(make, name) for name in names[20:]]
    answers = await asyncio.gather(*writes, return_exceptions=True)

    errors = [type(answer) for answer in answers if answer is not None]
    assert errors == [IntegrityError, OperationalError, ValueError]
    assert await store.read(ids) == {"first", *names}


async def test_a_write_that_ends_the_transaction_fails_its_group_and_no_more(
    store: SqliteStore,
) -> None:
    """Else the writes after it would each commit by itself, half done."""
    entered = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: Connection) -> None:
        loop.call_soon_threadsafe(entered.set)
        make(connection, "first")

    def roll_back(connection: Connection) -> None:
        connection.exec_driver_sql("ROLLBACK")
        raise ValueError("the whole transaction is gone")

    first = asyncio.create_task(store.write(slow))
    await entered.wait()
    group = [store.write(make, "a"), store.write(roll_back), store.write(make, "b")]
    answers = await asyncio.gather(*group, return_exceptions=True)
    await first
    kept = await store.read(ids)
    for name, answer in (("a", answers[0]), ("b", answers[2])):
        assert (answer is None) == (name in kept)
    assert isinstance(answers[1], Exception)
    await store.write(make, "after")
    assert "after" in await store.read(ids)


async def test_who_stops_waiting_for_a_write_harms_nobody(store: SqliteStore) -> None:
    leaver = asyncio.create_task(store.write(make, "left"))
    stayer = asyncio.create_task(store.write(make, "stayed"))
    await asyncio.sleep(0)
    leaver.cancel()
    await stayer
    assert "stayed" in await store.read(ids)


async def test_pitfall_3_a_locked_database_is_told_and_outlived(
    store: SqliteStore, path: Path
) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.write(make, "project_1")
    assert await store.read(ids) == set()
    other.execute("ROLLBACK")
    other.close()
    await store.write(make, "project_1")
    assert await store.read(ids) == {"project_1"}


async def test_a_reader_cannot_write(store: SqliteStore) -> None:
    with pytest.raises(StoreUnavailable, match="readonly"):
        await store.read(make, "project_1")
    assert await store.read(ids) == set()


async def test_a_closed_store_says_so(store: SqliteStore) -> None:
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.write(make, "project_1")
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.read(ids)


async def test_what_waits_when_it_closes_is_written_first(store: SqliteStore, path: Path) -> None:
    writes = [asyncio.create_task(store.write(make, f"project_{n}")) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)
    again = SqliteStore(path)
    assert len(await again.read(ids)) == 50
    await again.close()


@pytest.mark.parametrize("name", ["with space.db", "what?mode=ro.db", "50%20#1.db", "ünï.db"])
async def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    store = SqliteStore(tmp_path / name)
    await store.write(migrating.upgrade)
    await store.write(make, "project_1")
    assert await store.read(ids) == {"project_1"}
    await store.close()
    assert (tmp_path / name).exists()


async def test_what_was_committed_outlives_sigkill(path: Path) -> None:
    url = f"sqlite:///{path}"
    with worker("write", url) as writer:
        assert writer.stdout is not None
        told = [json.loads(writer.stdout.readline()) for _ in range(20)]
        writer.kill()
        rest = await asyncio.to_thread(writer.stdout.read)
    told += [json.loads(line) for line in rest.splitlines() if line.endswith("]")]
    store = await open_store(url)
    assert {id for ids in told for id in ids} <= await store.read(ids)
    assert await store.read(lambda c: c.execute(text("PRAGMA integrity_check")).scalar()) == "ok"
    await store.close()


def test_a_library_that_is_too_old_is_refused() -> None:
    check_version((3, 35, 0))
    with pytest.raises(StoreError, match=r"is 3\.34\.1; Batchbell needs 3\.35\.0"):
        check_version((3, 34, 1))
