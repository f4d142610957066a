"""Replays: what is counted is what is then done, once each, at a pace, by one worker at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from batchbell.core.errors import LeaseLost, NotFound
from batchbell.core.model import DEFAULT_PROJECT, DeliveryState, EventType, Outcome, Status
from batchbell.core.replay import (
    PACE,
    Replay,
    ReplayFilter,
    ReplayState,
    ReplayStatus,
    due_times,
    step_size,
)
from batchbell.storage import opening, projects, replay_walk, replays, retention
from batchbell.storage.replays import Counted
from tests.storage.scene import BROKEN, GONE, OK, URL, Scene

OTHER = "https://other.example/hook"
HELD = ReplayFilter(status=ReplayStatus.HELD)
ALL = ReplayFilter(status=ReplayStatus.ALL)
MISSING = ReplayFilter(status=ReplayStatus.MISSING)


async def count(scene: Scene, filter: ReplayFilter, **how: Any) -> Counted:
    return await scene.store.read(replays.count, DEFAULT_PROJECT, filter, now=scene.clock(), **how)


async def create(scene: Scene, filter: ReplayFilter, **how: Any) -> Replay:
    counted = await count(scene, filter, enable=how.get("enable", False))
    return await scene.store.write(
        replays.create, DEFAULT_PROJECT, filter, counted, mint=scene.mint, now=scene.clock(), **how
    )


async def claim(scene: Scene) -> Replay | None:
    return await scene.store.write(
        replays.claim_due, now=scene.clock(), lease_seconds=60.0, token=scene.mint("lease")
    )


async def step(scene: Scene, claimed: Replay) -> Replay:
    return await scene.store.write(replays.step, claimed, mint=scene.mint, now=scene.clock())


async def walk(scene: Scene, replay: Replay) -> Replay:
    """Step to the end, the clock going on as the pace wants it."""
    while replay.state is ReplayState.RUNNING:
        scene.clock.now = max(scene.clock.now, replay.due_at)
        claimed = await claim(scene)
        assert claimed is not None
        replay = await step(scene, claimed)
    return replay


async def replayed(scene: Scene, filter: ReplayFilter, **how: Any) -> Replay:
    return await walk(scene, await create(scene, filter, **how))


async def try_all(scene: Scene, outcome: Outcome) -> None:
    await scene.settle((await scene.claim(limit=1000, room=1000)).deliveries, outcome)


async def exhaust(scene: Scene) -> None:
    """As if every attempt of every delivery had failed."""
    ended = text(
        "UPDATE deliveries SET state = 'exhausted', due_at = NULL, finished_at = 1,"
        " attempts = 12 WHERE state = 'pending'"
    )
    await scene.store.write(lambda c: c.execute(ended))


async def one_of_each(scene: Scene) -> None:
    """Delivered, held with a disabled endpoint, failing, and waiting for the first try."""
    await scene.due("delivered")
    await try_all(scene, OK)
    await scene.due("held", url=OTHER)
    await try_all(scene, GONE)
    await scene.due("failing", url="https://third.example/")
    await try_all(scene, BROKEN)
    await scene.due("fresh", url="https://fourth.example/")


async def waiting(scene: Scene) -> dict[str, float]:
    """When each delivery that waits is due."""
    found = await scene.deliveries(state=DeliveryState.PENDING)
    return {one.batch_id: one.due_at or 0.0 for one in found}


@pytest.mark.parametrize(
    ("filter", "enable", "counted"),
    [
        (ReplayFilter(), False, Counted(1, 0)),
        (HELD, False, Counted(0, 1)),
        (HELD, True, Counted(1, 0)),
        (ALL, False, Counted(2, 1)),
        (ALL, True, Counted(3, 0)),
        (MISSING, False, Counted(0, 0)),
    ],
)
async def test_a_dry_run_counts_what_is_then_done(
    scene: Scene, filter: ReplayFilter, enable: bool, counted: Counted
) -> None:
    await one_of_each(scene)
    before = await scene.deliveries()
    assert await count(scene, filter, enable=enable) == counted
    assert await scene.deliveries() == before, "a dry run writes nothing"
    done = await replayed(scene, filter, enable=enable)
    assert (done.state, done.total) == (ReplayState.DONE, counted.total)
    assert (done.done, done.skipped) == (counted.total, counted.skipped)


async def test_what_is_sent_again_has_the_full_schedule(scene: Scene) -> None:
    await scene.due("batch_1")
    await exhaust(scene)
    scene.clock.advance(30 * 86400)
    await replayed(scene, ReplayFilter())
    (again,) = (await scene.claim()).deliveries
    assert (again.attempt, again.first_attempt_base) == (13, 12)
    await scene.settle([again], BROKEN)
    (found,) = await scene.deliveries()
    assert found.state is DeliveryState.PENDING
    assert found.due_at == scene.clock() + 5.0, "as after a first attempt"


async def test_what_fails_again_meanwhile_is_not_begun_twice(scene: Scene) -> None:
    ids = [f"batch_{n}" for n in range(5)]
    await scene.due(*ids)
    await exhaust(scene)
    replay = await create(scene, ReplayFilter(), pace=1.0)
    while replay.state is ReplayState.RUNNING:
        scene.clock.now = max(scene.clock.now, replay.due_at)
        claimed = await claim(scene)
        assert claimed is not None
        replay = await step(scene, claimed)
        await try_all(scene, BROKEN)
    assert replay.done == 5


async def test_deliveries_become_due_at_the_pace(scene: Scene) -> None:
    ids = [f"batch_{n}" for n in range(25)]
    await scene.due(*ids)
    await exhaust(scene)
    begun = scene.clock()
    replay = await replayed(scene, ReplayFilter(), pace=10.0)
    assert replay.done == 25
    due = sorted(at - begun for at in (await waiting(scene)).values())
    assert due == pytest.approx([n / 10 for n in range(25)], abs=1e-3)


async def test_no_step_begins_before_its_time(scene: Scene) -> None:
    await scene.due(*(f"batch_{n}" for n in range(5)))
    await exhaust(scene)
    await create(scene, ReplayFilter(), pace=1.0)
    claimed = await claim(scene)
    assert claimed is not None
    assert (await step(scene, claimed)).done == 2
    assert await claim(scene) is None
    assert await scene.store.read(replays.next_due) == scene.clock() + 2.0
    scene.clock.advance(2.0)
    assert await claim(scene) is not None


async def test_a_walk_goes_on_where_a_window_held_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_walk, "WINDOW", 3)
    await scene.due(*(f"fine_{n}" for n in range(10)))
    await try_all(scene, OK)
    await scene.due(*(f"bad_{n}" for n in range(4)))
    await try_all(scene, BROKEN)
    assert (await replayed(scene, ReplayFilter())).done == 4


async def test_events_are_chosen_by_time_type_endpoint_and_id(scene: Scene) -> None:
    await scene.due("early")
    scene.clock.advance(1000)
    middle = scene.clock()
    await scene.register("late", url=OTHER)
    await scene.end("late", status=Status.FAILED)
    await try_all(scene, BROKEN)
    early, late = await scene.deliveries()

    async def counted(**how: Any) -> int:
        return (await count(scene, ReplayFilter(**how))).total

    assert await counted() == 2
    assert await counted(since=middle) == 1
    assert await counted(until=middle) == 1
    assert await counted(since=middle, until=middle) == 0
    assert await counted(types=(EventType.FAILED,)) == 1
    assert await counted(types=(EventType.FAILED, EventType.COMPLETED)) == 2
    assert await counted(endpoint_id=late.endpoint_id) == 1
    assert await counted(event_id=early.event_id) == 1
    done = await replayed(scene, ReplayFilter(since=middle))
    assert done.done == 1
    assert (await waiting(scene))["late"] == done.created_at


async def test_what_came_after_a_replay_was_made_is_not_its_own(scene: Scene) -> None:
    await scene.due("before")
    await try_all(scene, BROKEN)
    replay = await create(scene, ReplayFilter())
    scene.clock.advance(1)
    await scene.due("after")
    await try_all(scene, BROKEN)
    assert (await walk(scene, replay)).done == 1


async def test_what_is_being_sent_is_left_alone(scene: Scene) -> None:
    await scene.due("batch_1")
    await try_all(scene, BROKEN)
    scene.clock.advance(10)
    (claimed,) = (await scene.claim()).deliveries
    assert (await replayed(scene, ALL)).done == 0
    assert await scene.settle([claimed]) == {claimed.id}


async def test_a_receiver_may_be_told_as_if_it_were_new(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2")
    await try_all(scene, OK)
    await replayed(scene, ALL, as_new=True)
    scene.clock.advance(1)
    claimed = (await scene.claim()).deliveries
    ids = {one.message_id for one in claimed}
    assert len(ids) == 2
    assert not ids & {None, *(one.event_id for one in claimed)}
    await scene.settle(claimed, BROKEN)
    await replayed(scene, ReplayFilter())
    scene.clock.advance(1)
    again = (await scene.claim()).deliveries
    assert {one.message_id for one in again} == ids, "tries and replays after it keep the id"


async def test_what_a_disabled_endpoint_holds_stays_held_unless_it_is_enabled(
    scene: Scene,
) -> None:
    await scene.due("batch_1")
    await try_all(scene, GONE)
    assert (await replayed(scene, HELD)).skipped == 1
    assert await waiting(scene) == {}
    assert (await replayed(scene, HELD, enable=True)).done == 1
    assert set(await waiting(scene)) == {"batch_1"}


async def test_a_missing_delivery_is_made(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2")
    await scene.register("batch_1", url=OTHER, events=(EventType.IN_PROGRESS,))
    await scene.store.write(
        lambda c: c.execute(text("DELETE FROM deliveries WHERE batch_id = 'batch_1'"))
    )
    assert await count(scene, MISSING) == Counted(1, 0)
    done = await replayed(scene, MISSING)
    assert done.done == 1
    assert set(await waiting(scene)) == {"batch_1", "batch_2"}
    claimed = (await scene.claim()).deliveries
    assert {one.watch_id for one in claimed} == {
        one.watch.id for one in await scene.register("batch_1", "batch_2")
    }
    assert (await replayed(scene, MISSING)).done == 0


async def test_more_missing_of_one_event_than_a_step_takes_are_made_all(scene: Scene) -> None:
    for number in range(7):
        await scene.register("batch_1", url=f"{URL}/{number}")
    await scene.end("batch_1")
    await scene.store.write(lambda c: c.execute(text("DELETE FROM deliveries")))
    assert step_size(1.0) == 2
    done = await replayed(scene, MISSING, pace=1.0)
    assert (done.total, done.done) == (7, 7)
    assert len(await scene.deliveries()) == 7


async def test_what_a_disabled_endpoint_misses_is_made_visible(scene: Scene) -> None:
    await scene.due("batch_1")
    await try_all(scene, GONE)
    await scene.store.write(lambda c: c.execute(text("DELETE FROM deliveries")))
    done = await replayed(scene, MISSING)
    assert (done.done, done.skipped) == (0, 1)
    assert [one.state for one in await scene.deliveries()] == [DeliveryState.HELD]


async def test_who_is_told_of_lost_misses_no_failed(scene: Scene) -> None:
    both = (*(EventType.FAILED, EventType.LOST),)
    await scene.register("batch_1", events=both)
    await scene.register("batch_1", url=OTHER)
    await scene.lose("batch_1")
    assert len(await scene.deliveries()) == 2
    assert await count(scene, MISSING) == Counted(0, 0)


async def test_a_cancelled_replay_goes_no_further(scene: Scene) -> None:
    await scene.due(*(f"batch_{n}" for n in range(5)))
    await exhaust(scene)
    replay = await create(scene, ReplayFilter(), pace=1.0)
    first = await claim(scene)
    assert first is not None
    await step(scene, first)
    scene.clock.advance(2)
    second = await claim(scene)
    assert second is not None
    ended = await scene.store.write(replays.cancel, DEFAULT_PROJECT, replay.id, now=scene.clock())
    assert (ended.state, ended.done) == (ReplayState.CANCELLED, 2)
    with pytest.raises(LeaseLost):
        await step(scene, second)
    scene.clock.advance(100)
    assert await claim(scene) is None
    assert len(await waiting(scene)) == 2, "what was made due stays so"
    again = await scene.store.write(replays.cancel, DEFAULT_PROJECT, replay.id, now=scene.clock())
    assert again == ended


async def test_a_replay_is_stepped_by_one_worker_at_a_time(scene: Scene) -> None:
    await scene.due("batch_1")
    await exhaust(scene)
    await create(scene, ReplayFilter())
    claims = await asyncio.gather(*(claim(scene) for _ in range(4)))
    (held,) = [one for one in claims if one is not None]
    scene.clock.advance(61)
    heir = await claim(scene)
    assert heir is not None
    with pytest.raises(LeaseLost):
        await step(scene, held)
    assert (await step(scene, heir)).done == 1
    with pytest.raises(LeaseLost):
        await step(scene, heir)


async def test_a_restart_on_sqlite_frees_the_replay_of_the_dead(scene: Scene) -> None:
    await scene.due("batch_1")
    await exhaust(scene)
    await create(scene, ReplayFilter())
    assert await claim(scene) is not None
    await scene.store.write(opening.release_all, now=scene.clock())
    assert await claim(scene) is not None


async def test_nothing_of_another_project_is_touched_or_seen(scene: Scene) -> None:
    await scene.due("batch_1")
    await exhaust(scene)
    (given_up,) = await scene.deliveries()
    await scene.store.write(
        projects.ensure_project, id="project_2", secret="whsec_x", now=scene.clock()
    )
    mine = await create(scene, ReplayFilter())
    read, write, now = scene.store.read, scene.store.write, scene.clock()
    assert await read(replays.count, "project_2", ALL, now=now) == Counted(0, 0)
    theirs = await write(replays.create, "project_2", ALL, Counted(0, 0), mint=scene.mint, now=now)
    assert (theirs.total, theirs.project_id) == (0, "project_2")
    for filter in (
        ReplayFilter(endpoint_id=given_up.endpoint_id),
        ReplayFilter(event_id=given_up.event_id),
    ):
        with pytest.raises(NotFound):
            await read(replays.count, "project_2", filter, now=now)
        with pytest.raises(NotFound):
            await write(
                replays.create, "project_2", filter, Counted(0, 0), mint=scene.mint, now=now
            )
    with pytest.raises(NotFound):
        await read(replays.get_replay, "project_2", mine.id)
    with pytest.raises(NotFound):
        await write(replays.cancel, "project_2", mine.id, now=now)
    page = await read(replays.list_replays, DEFAULT_PROJECT, limit=10)
    assert [one.id for one in page.items] == [mine.id]


async def test_what_is_replayed_is_not_forgotten(scene: Scene) -> None:
    await scene.due("batch_1")
    await try_all(scene, OK)
    scene.clock.advance(100)
    await replayed(scene, ALL)
    old = scene.clock() - 1
    assert await scene.store.write(retention.forget_batches, before=old, limit=10) == 0


def test_a_step_is_as_large_as_its_pace_wants() -> None:
    assert [step_size(pace) for pace in (0.1, 1.0, PACE, 1000.0)] == [1, 2, 100, 100]
    assert due_times(3, pace=2.0, now=10.0) == [10.0, 10.5, 11.0]
