"""SIGKILL at each failpoint: nothing is lost, and what is told twice has the same id."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.faults.conftest import SERVE_ONLY, WORK, Town, make_town

from batchbell import failpoints

BATCHES = 60
PATHS = 4

DISPATCH = (
    failpoints.AFTER_CLAIM,
    failpoints.BEFORE_SEND,
    failpoints.AFTER_SEND,
    failpoints.BEFORE_SETTLE,
)
SWEEP = (failpoints.BEFORE_WRITE, failpoints.INSIDE_WRITE)


async def ended_while_watched(town: Town) -> list[str]:
    """Watched batches that have all ended at the provider."""
    ids = town.sandbox.provider.add_batches(BATCHES)
    await town.register(ids, paths=PATHS)
    for id in ids:
        town.sandbox.provider.finish(id, "completed")
    return ids


async def killed_at(town: Town, place: str) -> list[str]:
    process = await town.start(SERVE_ONLY)
    ids = await ended_while_watched(town)
    await process.terminate()
    process = await town.start(failpoint=place)
    await process.killed()
    return ids


@pytest.mark.parametrize("place", [*DISPATCH, f"{failpoints.AFTER_SEND}:20"])
async def test_killed_while_delivering(town: Town, place: str) -> None:
    """Pitfall 25: retries must not stop after a restart."""
    ids = await killed_at(town, place)
    sent_and_not_recorded = len(town.receiver.received) - town.recorded()
    town.let_leases_run_out()
    await town.start()
    told = await town.all_arrived(ids)
    assert set(told) == set(ids)
    assert max(told.values()) <= 2
    assert sum(told.values()) - BATCHES <= sent_and_not_recorded
    assert all(len(same) == 1 for same in town.webhook_ids().values())
    assert town.receiver.bad_signatures == 0


@pytest.mark.parametrize("place", SWEEP)
async def test_killed_while_sweeping(town: Town, place: str) -> None:
    ids = await killed_at(town, place)
    assert not town.receiver.received, "nothing was written, so nothing was told"
    town.let_leases_run_out()
    await town.start()
    told = await town.all_arrived(ids)
    assert set(told.values()) == {1}


@pytest.mark.parametrize("place", [failpoints.IN_MIGRATION])
async def test_killed_while_migrating(database_url: str, tmp_path: Path, place: str) -> None:
    async with make_town(database_url, tmp_path) as town:
        process = await town.start(failpoint=place)
        await process.killed()
        await town.start()
        ids = await ended_while_watched(town)
        assert set((await town.all_arrived(ids)).values()) == {1}


async def test_killed_again_and_again_at_any_moment(town: Town) -> None:
    """No failpoint: the process dies wherever it happens to be."""
    ids = town.sandbox.provider.add_batches(BATCHES)
    process = await town.start()
    await town.register(ids, paths=PATHS)
    kills = 4
    for number in range(kills):
        for id in ids[number * 10 : number * 10 + 10]:
            town.sandbox.provider.finish(id, "completed")
        await town.receiver.wait_for(max(1, 10 * number), timeout=60)
        await process.kill()
        unrecorded = len(town.receiver.received) - town.recorded()
        town.let_leases_run_out()
        process = await town.start()
    for id in ids[kills * 10 :]:
        town.sandbox.provider.finish(id, "completed")
    told = await town.all_arrived(ids)
    assert set(told) == set(ids)
    assert sum(told.values()) - BATCHES <= unrecorded
    assert all(len(same) == 1 for same in town.webhook_ids().values())


async def test_two_workers_that_live_never_tell_twice(postgres_url: str, tmp_path) -> None:
    """Pitfall 11: a second instance must not double everything."""
    async with make_town(postgres_url, tmp_path) as town:
        await town.start(SERVE_ONLY)
        await asyncio.gather(town.start(WORK), town.start(WORK))
        ids = town.sandbox.provider.add_batches(400)
        await town.register(ids, paths=10)
        for id in ids:
            town.sandbox.provider.finish(id, "completed")
        told = await town.all_arrived(ids)
        for process in town.running[1:]:
            assert await process.terminate() == 0
        assert len(town.receiver.received) == 400
        assert set(told.values()) == {1}


async def test_a_stop_by_sigterm_gives_back_and_ends_clean(town: Town) -> None:
    process = await town.start()
    ids = await ended_while_watched(town)
    await town.receiver.wait_for(1)
    assert await process.terminate() == 0
    await town.start()
    told = await town.all_arrived(ids)
    assert set(told.values()) == {1}, "a clean stop tells nobody twice"
