"""The database is locked or gone for half a minute: the process lives, and catches up."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import httpx2
import pytest
from tests.conftest import Server
from tests.faults.conftest import Town, make_town

OUTAGE_SECONDS = 30.0


async def readiness(town: Town) -> int:
    async with httpx2.AsyncClient(timeout=40) as client:
        return (await client.get(f"{town.url}/readyz")).status_code


async def registers(town: Town, id: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=40) as client:
        return await client.post(
            f"{town.url}/batch-awaiter", json={"id": id, "webhookUrl": town.receiver.url("/late")}
        )


@pytest.mark.long
async def test_sqlite_locked_for_half_a_minute(sqlite_url: str, tmp_path: Path) -> None:
    """Pitfall 3: the process must not die of a locked database."""
    async with make_town(sqlite_url, tmp_path) as town:
        process = await town.start()
        *ids, late = town.sandbox.provider.add_batches(20)
        await town.register(ids)
        with contextlib.closing(sqlite3.connect(sqlite_url[10:], timeout=10)) as other:
            other.execute("BEGIN IMMEDIATE")
            for id in ids:
                town.sandbox.provider.finish(id, "completed")
            refused = asyncio.create_task(registers(town, late))
            await asyncio.sleep(OUTAGE_SECONDS)  # the length of the outage is what is tested
            assert not town.receiver.received
            other.execute("ROLLBACK")
        answer = await refused
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["error"]["code"]
        told = await town.all_arrived(ids)
        assert set(told.values()) == {1}
        assert (await registers(town, late)).status_code == 201
        assert process.process.returncode is None
        assert await readiness(town) == 200


@pytest.mark.long
async def test_postgresql_gone_for_half_a_minute(tmp_path: Path, own_postgres: Server) -> None:
    """Pitfall 3: nor of one that is not there."""
    async with make_town(own_postgres.url, tmp_path) as town:
        process = await town.start()
        ids = town.sandbox.provider.add_batches(20)
        await town.register(ids)
        own_postgres.stop()
        assert await readiness(town) == 503
        for id in ids:
            town.sandbox.provider.finish(id, "completed")
        await asyncio.sleep(OUTAGE_SECONDS)  # the length of the outage is what is tested
        assert not town.receiver.received
        own_postgres.start()
        told = await town.all_arrived(ids)
        assert set(told.values()) == {1}
        assert process.process.returncode is None
        assert await readiness(town) == 200
