"""SIGKILL inside a step of a replay: nothing is lost, and nothing begun twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.faults.conftest import SERVE_ONLY, WORK, Town, make_town

from batchbell import failpoints

BATCHES = 30
PACE = 5
"""Ten deliveries a step, so that a kill finds some of the work done."""


async def delivered(town: Town) -> list[str]:
    """Batches that have been told of, every one, and written down as delivered."""
    ids = town.sandbox.provider.add_batches(BATCHES)
    await town.register(ids)
    for id in ids:
        town.sandbox.provider.finish(id, "completed")
    await town.all_arrived(ids)
    await town.until(lambda: town.recorded() == BATCHES)
    return ids


async def ended(town: Town, replay_id: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            replay = await town.ask("GET", f"/v1/replays/{replay_id}")
            if replay["state"] != "running":
                return replay
            await asyncio.sleep(0.05)


async def told_again(town: Town) -> None:
    """Wait until every batch was told of a second time; a kill may have told some a third time."""
    async with asyncio.timeout(60):
        while len(told := town.told()) < BATCHES or min(told.values()) < 2:
            await town.receiver.wait_for(len(town.receiver.received) + 1, timeout=60)


@pytest.mark.parametrize("place", [f"{failpoints.INSIDE_REPLAY}:2"])
async def test_killed_inside_a_step(town: Town, place: str) -> None:
    process = await town.start()
    ids = await delivered(town)
    await process.terminate()
    process = await town.start(SERVE_ONLY)
    replay = await town.ask("POST", "/v1/replays", status="all", pace=PACE, as_new=True)
    assert replay["total"] == BATCHES
    await process.terminate()

    process = await town.start(failpoint=place)
    await process.killed()
    in_flight = len(town.receiver.received) - BATCHES
    steps_before = int(place[-1]) - 1
    assert in_flight <= steps_before * 10, "a step that was killed began nothing"
    town.let_leases_run_out()
    await town.start()
    done = await ended(town, replay["id"])
    assert (done["state"], done["done"]) == ("done", BATCHES)
    await told_again(town)
    told = town.told()
    assert set(told) == set(ids)
    assert min(told.values()) == 2
    assert all(len(two) == 2 for two in town.webhook_ids().values()), "one new id for each"
    assert town.receiver.bad_signatures == 0


async def test_two_workers_share_a_replay_and_tell_nobody_twice(
    postgres_url: str, tmp_path: Any
) -> None:
    async with make_town(postgres_url, tmp_path) as town:
        await town.start(SERVE_ONLY)
        workers = await asyncio.gather(town.start(WORK), town.start(WORK))
        await delivered(town)
        replay = await town.ask("POST", "/v1/replays", status="all", pace=100)
        assert (await ended(town, replay["id"]))["done"] == BATCHES
        await told_again(town)
        for worker in workers:
            assert await worker.terminate() == 0
        assert set(town.told().values()) == {2}
        assert len(town.receiver.received) == 2 * BATCHES
