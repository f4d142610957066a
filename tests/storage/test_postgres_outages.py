"""Connections to PostgreSQL end in all ways there are: it is said, and outlived."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from batchbell.core.errors import StoreUnavailable
from batchbell.storage import opening, postgresql
from batchbell.storage.engine import DELIVERIES, wake
from batchbell.storage.opening import open_store
from batchbell.storage.postgresql import PostgresStore
from tests.conftest import execute, fetch_rows
from tests.pooler import proxied

ONE = text("SELECT 1")
OTHERS = "pid <> pg_backend_pid() AND datname = current_database()"


def one(connection: Connection) -> int:
    return int(connection.execute(ONE).scalar_one())


def ring(connection: Connection) -> None:
    wake(connection, DELIVERIES)


def sleep(connection: Connection, seconds: float) -> None:
    connection.execute(text(f"SELECT pg_sleep({seconds})"))


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long in these tests."""
    monkeypatch.setattr(postgresql, "PROOF_SECONDS", 2.0)
    monkeypatch.setattr(postgresql, "PROVE_EVERY_SECONDS", 0.1)
    monkeypatch.setattr(postgresql, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(postgresql, "RELISTEN_FIRST_SECONDS", 0.1)


@pytest.fixture
async def store(postgres_url: str, soon: None) -> AsyncIterator[PostgresStore]:
    store = await open_store(postgres_url)
    assert isinstance(store, PostgresStore)
    yield store
    await store.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - another task changes it
            await asyncio.sleep(0.01)


async def works(store: PostgresStore) -> bool:
    """Whether it does; nothing but StoreUnavailable is seen where it does not."""
    try:
        await asyncio.gather(*(store.read(one) for _ in range(12)), store.write(one))
    except StoreUnavailable:
        return False
    return True


async def works_again(store: PostgresStore) -> None:
    """Once each pooled connection was found to be dead."""
    async with asyncio.timeout(60):
        while not await works(store):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_it_listens_for_ever_however_often_its_connection_is_ended(
    store: PostgresStore, postgres_url: str
) -> None:
    for _ in range(3):
        await until(lambda: store.listening)
        kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS}"
        await execute(postgres_url, kill)
        await until(lambda: not store.listening)
        signal = store.signal(DELIVERIES)
        assert await signal.wait(30.0), "whoever waits looks for itself meanwhile"
        await works_again(store)
    await until(lambda: store.listening)


ERRORS = [
    asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
    asyncpg.InternalClientError("got result for unknown protocol state 3"),
    asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    asyncpg.CannotConnectNowError("the database system is starting up"),
    asyncpg.TooManyConnectionsError("sorry, too many clients already"),
    ConnectionResetError("reset"),
    asyncio.CancelledError(),
    TimeoutError(),
    RuntimeError("unforeseen"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_whatever_connecting_raises_it_listens_again(
    postgres_url: str, soon: None, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    connect, failures = asyncpg.connect, [error] * 3

    async def failing(*args: object, **how: object) -> object:
        if failures:
            raise failures.pop()
        return await connect(*args, **how)

    monkeypatch.setattr(asyncpg, "connect", failing)
    store = await open_store_after(postgres_url, failures)
    await until(lambda: store.listening)
    assert failures == []
    await store.close()


async def open_store_after(url: str, failures: list[BaseException]) -> PostgresStore:
    """The store, however many tries it takes; each that fails says that it is unavailable."""
    while True:
        try:
            store = await open_store(url)
        except (StoreUnavailable, RuntimeError):
            continue
        assert isinstance(store, PostgresStore)
        return store


async def sleeping(url: str, number: int) -> None:
    """Return when the server runs so many of these statements."""
    running = f"SELECT pid FROM pg_stat_activity WHERE query ~ 'pg_sleep.20' AND {OTHERS}"
    async with asyncio.timeout(60):
        while len(await fetch_rows(url, running)) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_proxy_that_cuts_and_one_that_falls_silent(
    postgres_url: str, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(postgres_url) as (proxy, url):
        store = await open_store(url)
        assert isinstance(store, PostgresStore)
        await until(lambda: store.listening)
        working = [asyncio.create_task(store.write(sleep, 20.0)) for _ in range(2)]
        await sleeping(postgres_url, 2)
        proxy.cut()
        for task in working:
            with pytest.raises(StoreUnavailable):
                await task
        await works_again(store)
        await until(lambda: store.listening)
        proxy.silent = True
        await until(lambda: not store.listening)
        monkeypatch.setattr(postgresql, "TRANSACTION_SECONDS", 0.2)
        with pytest.raises(StoreUnavailable, match="took too long"):
            await store.write(one)
        proxy.silent = False
        proxy.cut()
        await works_again(store)
        await until(lambda: store.listening)
        await store.close()


async def test_what_takes_too_long_is_stopped_but_for_migrations(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, short in (("statement_timeout", "150"), ("jit", "off")):
        monkeypatch.setitem(postgresql.CONNECTION_SETTINGS, name, short)
    monkeypatch.setattr(postgresql, "COMMAND_TIMEOUT_SECONDS", 0.4)
    monkeypatch.setattr(postgresql, "TRANSACTION_SECONDS", 0.6)
    store = await open_store(postgres_url)
    for ask in (store.read, store.write):
        with pytest.raises(StoreUnavailable):
            await ask(sleep, 5.0)
    await store.migrate(sleep, 1.0)

    def many_short_ones(connection: Connection) -> None:
        for _ in range(100):
            sleep(connection, 0.05)

    with pytest.raises(StoreUnavailable, match="too long"):
        await store.write(many_short_ones)
    assert await store.read(one) == 1
    await store.close()


async def test_a_read_ends_with_whoever_asked(store: PostgresStore, postgres_url: str) -> None:
    reading = asyncio.create_task(store.read(sleep, 25.0))
    running = text(
        f"SELECT count(*) FROM pg_stat_activity WHERE {OTHERS} AND query ~ 'pg_sleep'"
        " AND state = 'active'"
    )
    while not await store.read(lambda c: c.execute(running).scalar()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    reading.cancel()
    async with asyncio.timeout(10):
        while await store.read(lambda c: c.execute(running).scalar()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_value_that_cannot_be_sent_is_no_outage(store: PostgresStore) -> None:
    """Else whoever brings it would be asked to try again, for ever."""
    with pytest.raises(DBAPIError):
        await store.read(lambda c: c.execute(text("SELECT CAST(:n AS int)"), {"n": "no number"}))
    assert await store.read(one) == 1


async def test_a_migration_waits_for_another_and_not_long_for_a_table(
    store: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "MIGRATION_PAUSE_SECONDS", 0.0)
    tries = []

    def rename(connection: Connection) -> None:
        tries.append(1)
        opening.take_turn(connection)
        connection.execute(text("SET LOCAL lock_timeout = '20ms'"))
        connection.execute(text("ALTER TABLE keys ADD COLUMN more int"))

    holder = await asyncpg.connect(postgres_url)
    await holder.execute("BEGIN; SELECT count(*) FROM keys")
    migration = asyncio.create_task(store.migrate(rename))
    await until(lambda: len(tries) >= 2)
    await holder.execute("COMMIT")
    await holder.close()
    await migration
