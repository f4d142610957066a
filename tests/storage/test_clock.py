"""The clock is set back by an hour: nothing waits for what was written before."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from batchbell.core.model import DEFAULT_PROJECT, Claimed, Outcome
from batchbell.core.replay import ReplayFilter, ReplayStatus
from batchbell.storage import batches, clock, deletions, merges, parts, replays
from batchbell.storage.schema import batches as batches_table
from batchbell.storage.schema import deletions as deletions_table
from batchbell.storage.schema import deliveries, submissions
from batchbell.storage.schema import results as results_table
from tests.storage.scene import BROKEN, Scene

HOUR = 3600.0


async def bring_back(scene: Scene, *, set_back: bool = True) -> int:
    """All steps of it."""
    how = {"set_back": set_back, "now": scene.clock()}
    changed, place = await scene.store.write(clock.bring_back, **how), clock.START
    while True:
        step = await scene.store.write(clock.bring_deliveries_back, after=place, **how)
        changed, place = changed + step.changed, step.place
        if place == clock.START:
            return changed


async def claim(scene: Scene) -> list[Claimed]:
    return (await scene.claim()).deliveries


async def test_deliveries_that_were_never_tried_that_wait_for_a_retry_or_are_held_by_the_dead(
    scene: Scene,
) -> None:
    await scene.due("retry")
    await scene.settle(await claim(scene), BROKEN)
    await scene.due("leased", url="https://receiver.example/leased")
    assert len(await claim(scene)) == 1
    await scene.due("fresh", url="https://receiver.example/fresh")
    scene.clock.advance(-HOUR)
    assert await scene.store.read(clock.is_set_back, now=scene.clock())
    assert await claim(scene) == []
    assert await bring_back(scene) >= 3
    assert len(await claim(scene)) == 3


async def test_what_waits_as_long_as_it_should_goes_on_waiting(scene: Scene) -> None:
    """An hour ago by a clock that is right, and ten hours from now by the schedule."""
    await scene.due("late")
    late = {"attempts": 8, "due_at": scene.clock() + 10 * HOUR}
    change = update(deliveries).values(late)
    await scene.store.write(lambda c: c.execute(change).rowcount)
    paused = "https://receiver.example/paused"
    await scene.due("paused", url=paused)
    asks = Outcome(status=429, retry_after_seconds=12 * HOUR)
    await scene.settle(await claim(scene), asks)
    await scene.claim()
    assert not await scene.store.read(clock.is_set_back, now=scene.clock())
    await bring_back(scene, set_back=False)
    assert await claim(scene) == []
    scene.clock.advance(-30 * HOUR)
    await bring_back(scene, set_back=False)
    assert len(await claim(scene)) == 2, "what lies ahead of all that we schedule has come"


async def test_a_pause_that_an_endpoint_asked_for_is_over(scene: Scene) -> None:
    await scene.due("paused")
    await scene.settle(await claim(scene), Outcome(status=503, retry_after_seconds=120.0))
    scene.clock.advance(-HOUR)
    await bring_back(scene)
    assert len(await claim(scene)) == 1


def add_jobs(connection: Connection, now: float) -> None:
    """A deletion and a submission that are due now."""
    result = connection.execute(select(results_table)).first()
    batch = connection.execute(select(batches_table)).first()
    assert result is not None
    assert batch is not None
    deletion = {
        "results_id": result.id,
        "account_id": batch.account_id,
        "state": "due",
        "files": "[]",
        "tries": 0,
        "due_at": now,
    }
    connection.execute(deletions_table.insert().values(deletion))
    submission = {
        "id": "sub_1",
        "project_id": DEFAULT_PROJECT,
        "batch_key": batch.key,
        "account_id": batch.account_id,
        "model": json.dumps("m"),
        "retry_missing": 0,
        "failures": 0,
        "due_at": now,
        "created_at": now,
    }
    connection.execute(submissions.insert().values(submission))


@pytest.mark.parametrize("held", [False, True], ids=["due", "held by the dead"])
async def test_replays_results_deletions_and_submissions(scene: Scene, *, held: bool) -> None:
    await scene.due("batch_1")
    write, now = scene.store.write, scene.clock()
    filter = ReplayFilter(status=ReplayStatus.ALL)
    counted = await scene.store.read(replays.count, DEFAULT_PROJECT, filter, now=now)
    made = {"mint": scene.mint, "now": now}
    await write(replays.create, DEFAULT_PROJECT, filter, counted, **made)
    await write(add_jobs, now)
    claims = (
        replays.claim_due,
        merges.claim_due,
        deletions.claim_due,
        partial(parts.claim_due, account_id=scene.account.id),
    )

    async def taken() -> list[bool]:
        how: dict[str, Any] = {"now": scene.clock(), "lease_seconds": 60.0, "token": "t"}
        return [await write(claim, **how) is not None for claim in claims]

    if held:
        assert await taken() == [True] * 4
    scene.clock.advance(-HOUR)
    assert await taken() == [False] * 4
    await bring_back(scene)
    scene.clock.advance(0.001)
    assert await taken() == [True] * 4


async def test_a_batch_that_was_put_off_is_looked_at(scene: Scene) -> None:
    await scene.register("batch_1")
    put_off = update(batches_table).values(check_at=scene.clock() + 60)
    await scene.store.write(lambda c: c.execute(put_off).rowcount)
    scene.clock.advance(-HOUR)
    await bring_back(scene)
    look = {"now": scene.clock()}
    assert await scene.store.read(batches.open_batches, scene.account.id, **look)
