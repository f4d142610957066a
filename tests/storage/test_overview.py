"""A project at a glance."""

from __future__ import annotations

from batchbell.core.model import DEFAULT_PROJECT, DeliveryState, EndpointState, Status
from batchbell.storage import deliveries, endpoints, opening, overview
from batchbell.storage.overview import Lag, Waiting, period_until
from tests.storage.scene import BROKEN, GONE, OK, Scene, snapshot

HOUR = 3600.0


async def test_what_runs_is_counted_by_status(scene: Scene) -> None:
    await scene.register("batch_1", "batch_2", "batch_3", "batch_4")
    created = int(scene.clock()) - 86_400
    soon, late = (
        {"created_at": created, "expires_at": int(scene.clock() + seconds)}
        for seconds in (600, -3600)
    )
    await scene.see(
        snapshot("batch_1", Status.IN_PROGRESS, timestamps=soon),
        snapshot("batch_2", Status.IN_PROGRESS, timestamps=late),
        snapshot("batch_3", Status.COMPLETED),
    )
    found = await scene.store.read(
        overview.running, DEFAULT_PROJECT, now=scene.clock(), soon_seconds=7200.0
    )
    assert found.by_status == {Status.VALIDATING: 1, Status.IN_PROGRESS: 2}
    assert (found.total, found.ending_soon, found.stalled) == (3, 1, 1)
    nobody = await scene.store.read(
        overview.running, "prj_other", now=scene.clock(), soon_seconds=7200.0
    )
    assert (nobody.total, nobody.stalled) == (0, 0)


async def waiting(scene: Scene) -> Waiting:
    return await scene.store.read(overview.waiting, DEFAULT_PROJECT, now=scene.clock())


async def test_what_waits_is_counted_by_what_it_waits_for(scene: Scene) -> None:
    await scene.due(*(f"batch_{n}" for n in range(8)))
    assert await waiting(scene) == Waiting(pending=8, due=8, parked=0, held=0)
    await scene.settle((await scene.claim(room=4)).deliveries, BROKEN)
    scene.clock.advance(60)
    await scene.settle((await scene.claim(room=1)).deliveries, BROKEN)
    found = await waiting(scene)
    assert (found.pending, found.due, found.parked) == (8, 7, 7), "the breaker is open"
    [unwell] = await scene.store.read(
        endpoints.list_unwell, DEFAULT_PROJECT, limit=5, now=scene.clock()
    )
    assert unwell.endpoint.state is EndpointState.FAILING
    scene.clock.advance(30)
    await scene.settle((await scene.claim()).deliveries, GONE)
    assert (await waiting(scene)).held == 8


async def test_the_lag_is_from_the_end_to_the_answer(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2")
    began = (await scene.events())[0].created_at
    await scene.settle((await scene.claim()).deliveries, OK)
    found = await scene.store.read(overview.lag, DEFAULT_PROJECT, since=scene.clock() - HOUR)
    seconds = scene.clock() - began
    assert found == Lag(number=2, p50=seconds, p95=seconds)
    none = await scene.store.read(overview.lag, "prj_other", since=0.0)
    assert none == Lag(number=0, p50=None, p95=None)


async def test_charts_count_what_happened_in_each_step(scene: Scene) -> None:
    await scene.due("batch_1")
    await scene.settle((await scene.claim()).deliveries, OK)
    scene.clock.advance(HOUR)
    await scene.due("batch_2")
    await scene.register("batch_3")
    await scene.end("batch_3", status=Status.FAILED)
    within = period_until(scene.clock(), step_seconds=HOUR, steps=3)
    assert within.start <= scene.clock() - 2 * HOUR < scene.clock() < within.end
    ended = await scene.store.read(overview.ended, DEFAULT_PROJECT, within)
    assert ended == [{}, {Status.COMPLETED: 1}, {Status.COMPLETED: 1, Status.FAILED: 1}]
    made = await scene.store.read(overview.made, DEFAULT_PROJECT, within)
    assert [step[DeliveryState.DELIVERED] for step in made] == [0, 1, 0]
    assert [step[DeliveryState.PENDING] for step in made] == [0, 0, 2]
    bad = await scene.store.read(overview.ended_badly, DEFAULT_PROJECT, since=scene.clock() - HOUR)
    assert bad == {Status.FAILED: 1}


async def test_the_database_says_how_large_it_is(scene: Scene) -> None:
    assert await scene.store.read(opening.size) > 10_000


async def test_what_a_delivery_is_made_of_is_read_back(scene: Scene) -> None:
    await scene.register("batch_1", metadata={"note": "x"})
    await scene.end("batch_1")
    [delivery] = await scene.deliveries()
    content = await scene.store.read(deliveries.get_content, delivery)
    assert '"batch.completed"' in content.event_body
    assert content.watch_metadata == '{"note":"x"}'
    assert content.first_due_at == delivery.created_at
    scene.clock.advance(10)
    await scene.settle((await scene.claim()).deliveries, OK)
    again = {"event_id": delivery.event_id, "now": scene.clock()}
    await scene.store.write(deliveries.resend, DEFAULT_PROJECT, **again)
    content = await scene.store.read(deliveries.get_content, delivery)
    assert content.first_due_at == scene.clock()
