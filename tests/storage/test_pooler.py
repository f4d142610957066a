"""PgBouncer between us and PostgreSQL: noticed by itself, and all works in either mode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from batchbell.core.model import DEFAULT_PROJECT, Mint
from batchbell.storage import opening, postgresql, projects
from batchbell.storage.accounts import ensure_account
from batchbell.storage.engine import DELIVERIES, Store
from batchbell.storage.opening import open_store
from batchbell.storage.postgresql import PostgresStore
from tests.conftest import SECRET, Clock
from tests.pooler import SESSION, TRANSACTION, pooled
from tests.storage.scene import Scene

TEN = range(10)


async def scene_on(store: Store, mint: Mint, clock: Clock) -> Scene:
    await store.write(projects.ensure_project, id=DEFAULT_PROJECT, secret=SECRET, now=clock())
    how = {"name": "openai", "provider": "openai", "base_url": "x", "mint": mint, "now": clock()}
    account = await store.write(ensure_account, project_id=DEFAULT_PROJECT, **how)
    return Scene(store, account, mint, clock)


@pytest.fixture
async def stores() -> AsyncIterator[list[Store]]:
    opened: list[Store] = []
    yield opened
    for store in opened:
        await store.close()


def settings_of(connection: Connection) -> list[str]:
    names = ("jit", "statement_timeout")
    return [str(connection.execute(text(f"SHOW {name}")).scalar()) for name in names]


@pytest.mark.parametrize(
    "ignored", ["", "jit,plan_cache_mode,statement_timeout,idle_in_transaction_session_timeout"]
)
@pytest.mark.parametrize("mode", [SESSION, TRANSACTION])
async def test_all_works_through_it(
    mode: str,
    ignored: str,
    postgres_url: str,
    tmp_path: Path,
    stores: list[Store],
    mint: Mint,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pooler refuses settings that it does not know, or is set up to drop them unsaid."""
    monkeypatch.setattr(postgresql, "PROOF_SECONDS", 1.0)
    with pooled(postgres_url, tmp_path, mode=mode, ignored=ignored) as url:
        for _ in range(2):
            stores.append(await open_store(url))
        scene = await scene_on(stores[0], mint, clock)
        elsewhere = Scene(stores[1], scene.account, mint, clock)
        wakes = stores[1].signal(DELIVERIES)
        assert await stores[0].read(settings_of) == ["off", "30s"]
        await asyncio.gather(*(s.due(f"batch_{n}") for n in TEN for s in (scene, elsewhere)))
        assert await wakes.wait(30.0), "by NOTIFY, or by looking from time to time"
        claims = await asyncio.gather(*(s.claim(limit=3) for n in TEN for s in (scene, elsewhere)))
        claimed = [one for claim in claims for one in claim.deliveries]
        assert len({one.id for one in claimed}) == len(claimed) == len(TEN)
        assert len(await elsewhere.settle(claimed)) == len(TEN)
        for store in stores:
            assert isinstance(store, PostgresStore)
            assert store.pooled
            assert await store.migrate(opening.upgrade) == opening.head()
            assert mode == SESSION or not store.listening
        if mode == SESSION:
            await heard_by(stores)


async def heard_by(stores: list[Store]) -> None:
    async with asyncio.timeout(60):
        while not all(isinstance(s, PostgresStore) and s.listening for s in stores):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_no_pooler_is_seen_where_there_is_none(
    postgres_url: str, stores: list[Store]
) -> None:
    stores.append(await open_store(postgres_url))
    await heard_by(stores)
    assert isinstance(stores[0], PostgresStore)
    assert not stores[0].pooled
