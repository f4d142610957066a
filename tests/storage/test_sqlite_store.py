"""The embedded store: one process, one writer, and nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError

from batchbell.core.errors import (
    StoreError,
    StoreFull,
    StoreInUse,
    StoreMoved,
    StoreUnavailable,
)
from batchbell.storage import opening, projects, sqlite
from batchbell.storage.opening import open_store
from batchbell.storage.sqlite import QUICK_READERS, SLOW_READERS, SqliteStore, check_version


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batchbell.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """One that does not wait long for others."""
    store = SqliteStore(path, busy_timeout_ms=20)
    await store.write(opening.upgrade)
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


async def test_only_a_migration_puts_pages_aside_in_files(store: SqliteStore) -> None:
    def aside(connection: Connection) -> object:
        return connection.execute(text("PRAGMA temp_store")).scalar()

    in_file, in_memory = 1, 2
    assert await store.write(aside) == in_memory
    assert await store.migrate(aside) == in_file
    assert await store.write(aside) == in_memory


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
    await store.write(opening.upgrade)
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


ENDLESS = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :most)"
    " SELECT count(*) FROM n"
)


def count(connection: Connection, *, most: int = 10**12) -> int:
    return int(connection.execute(ENDLESS, {"most": most}).scalar_one())


async def no_longer_read(store: SqliteStore) -> None:
    """Return when no thread reads: each of them takes a new read at once."""
    lanes = [(store._quick, QUICK_READERS), (store._slow, SLOW_READERS)]
    loop = asyncio.get_running_loop()
    barriers = [(lane, threading.Barrier(threads), threads) for lane, threads in lanes]
    async with asyncio.timeout(20):
        await asyncio.gather(
            *(
                loop.run_in_executor(lane, barrier.wait)
                for lane, barrier, threads in barriers
                for _ in range(threads)
            )
        )


async def test_slow_reads_hold_up_no_short_ones(store: SqliteStore) -> None:
    await store.write(make, "project_1")
    slow = [asyncio.create_task(store.read(count)) for _ in range(8)]
    for n in range(5):
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            assert "project_1" in await store.read(ids)
            await store.write(make, f"other_{n}")
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    await no_longer_read(store)


async def test_a_read_ends_with_whoever_asked(store: SqliteStore) -> None:
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await store.read(count)
    await no_longer_read(store)


async def test_a_read_that_takes_too_long_is_stopped_and_a_slow_one_is_answered(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "QUICK_CPU_SECONDS", 0.01)
    assert await store.read(count, most=1_000_000) == 1_000_000
    monkeypatch.setattr(sqlite, "READ_SECONDS", 0.2)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"longer than 0\.2 s"):
            await store.read(count)
    monkeypatch.setattr(sqlite, "READ_SECONDS", 30.0)
    assert await store.read(ids) == set()


async def test_closing_waits_for_no_read(path: Path) -> None:
    store = SqliteStore(path)
    reading = [asyncio.create_task(store.read(count)) for _ in range(4)]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(20):
        await store.close()
    for task in reading:
        with pytest.raises(StoreUnavailable):
            await task


async def test_a_full_disk_is_said_and_outlived(store: SqliteStore) -> None:
    """A file that may not grow fails as a full disk does."""

    def bound(connection: Connection, pages: int) -> int:
        pages = pages or int(connection.execute(text("PRAGMA page_count")).scalar_one())
        return int(connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar_one())

    def big(connection: Connection, id: str) -> None:
        projects.ensure_project(connection, id=id, secret="x" * 500_000, now=0.0)

    await store.write(bound, 0)
    for _ in range(3):
        asked = [store.write(big, "big"), *(store.write(make, f"small_{n}") for n in range(3))]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(answers[0], StoreUnavailable)
        assert all(one is None or isinstance(one, StoreUnavailable) for one in answers)
        with pytest.raises(StoreUnavailable, match="full"):
            await store.write(big, "big")
    assert "big" not in await store.read(ids)
    await store.write(bound, 1_000_000)
    await store.write(big, "big")
    assert "big" in await store.read(ids)


async def test_a_full_disk_is_said_to_be_full_until_there_is_room(store: SqliteStore) -> None:
    def fill(connection: Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    def grow(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS big (x)")
        connection.exec_driver_sql("INSERT INTO big VALUES (zeroblob(1000000))")

    await store.write(fill)
    with pytest.raises(StoreFull, match="Make room"):
        await store.write(grow)
    assert store.is_full
    await store.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count=1000000") and None)
    await store.write(grow)
    assert not store.is_full


def take_away(path: Path, away: Path, how: str) -> None:
    if how == "deleted":
        path.unlink()
        return
    path.rename(away)
    if how == "replaced":
        path.write_bytes(b"")


@pytest.mark.parametrize("how", ["deleted", "replaced", "moved"])
async def test_a_file_that_is_taken_away_is_noticed(
    store: SqliteStore, path: Path, how: str
) -> None:
    """SQLite would go on writing to a file that nobody finds again."""
    await store.write(make, "before")
    away = path.with_name("away")
    take_away(path, away, how)
    for ask in (store.write(make, "lost"), store.read(ids)):
        with pytest.raises(StoreMoved, match="deleted, moved or replaced"):
            await ask
    if how == "moved":
        take_away(away, path, how)
        assert await store.read(ids) == {"before"}


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
async def test_the_files_are_their_owners_alone(store: SqliteStore, path: Path) -> None:
    await store.write(make, "p")
    modes = {one.name: one.stat().st_mode & 0o777 for one in path.parent.glob("batchbell.db*")}
    assert set(modes) >= {"batchbell.db", "batchbell.db-wal", "batchbell.db-shm"}
    assert set(modes.values()) == {0o600}


async def test_a_database_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot be made"):
        SqliteStore(tmp_path / "file" / "batchbell.db")
