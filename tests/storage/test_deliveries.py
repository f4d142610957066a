"""Forgetting what is old, in bounded steps, and never what still waits."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, text

from batchbell.core.errors import NotFound
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.storage import batch_lists, batches, deliveries, retention
from batchbell.storage.schema import results
from tests.storage.scene import BROKEN, Scene

DAY = 86400.0


async def forget(scene: Scene, *, limit: int = 100) -> int:
    return await scene.store.write(
        retention.forget_batches, before=scene.clock() - DAY, limit=limit
    )


async def known(scene: Scene) -> list[str]:
    page = await scene.store.read(batch_lists.list_batches, DEFAULT_PROJECT, limit=100)
    return [batch.id for batch in page.items]


async def deliver_all(scene: Scene) -> None:
    """Told, and the results were kept for their time."""
    await scene.settle((await scene.claim()).deliveries)
    await scene.store.write(lambda c: c.execute(delete(results)))


async def test_what_ended_long_ago_goes_with_all_that_hangs_on_it(scene: Scene) -> None:
    await scene.due("batch_1")
    await deliver_all(scene)
    scene.clock.advance(DAY + 1)
    assert await forget(scene) == 1
    for table in ("batches", "watches", "events", "deliveries", "attempts"):
        count = text(f"SELECT count(*) FROM {table}")
        assert await scene.store.read(lambda c, q=count: c.execute(q).scalar_one()) == 0
    with pytest.raises(NotFound):
        await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1")


async def test_what_runs_ended_lately_or_still_waits_is_kept(scene: Scene) -> None:
    await scene.register("runs")
    await scene.due("waits")
    await scene.settle((await scene.claim()).deliveries, BROKEN)
    scene.clock.advance(DAY + 1)
    await scene.due("ended_lately", url="https://other.example/")
    assert await forget(scene) == 0
    assert set(await known(scene)) == {"runs", "waits", "ended_lately"}


async def test_a_batch_is_kept_as_long_as_its_results(scene: Scene) -> None:
    await scene.due("batch_1")
    await scene.settle((await scene.claim()).deliveries)
    scene.clock.advance(DAY + 1)
    assert await forget(scene) == 0


async def test_no_step_forgets_more_than_its_limit(scene: Scene) -> None:
    await scene.due(*(f"batch_{n}" for n in range(7)))
    await deliver_all(scene)
    scene.clock.advance(DAY + 1)
    assert [await forget(scene, limit=3) for _ in range(4)] == [3, 3, 1, 0]


async def test_what_is_sent_again_is_not_forgotten(scene: Scene) -> None:
    await scene.due("batch_1")
    await deliver_all(scene)
    scene.clock.advance(DAY + 1)
    (event,) = await scene.events()
    await scene.store.write(deliveries.resend, DEFAULT_PROJECT, event.id, now=scene.clock())
    assert await forget(scene) == 0


async def test_a_forgotten_batch_that_is_registered_again_is_watched_anew(scene: Scene) -> None:
    await scene.due("batch_1")
    await deliver_all(scene)
    scene.clock.advance(DAY + 1)
    await forget(scene)
    (again,) = await scene.register("batch_1")
    assert again.created
    await scene.end("batch_1")
    assert len((await scene.claim()).deliveries) == 1


async def test_a_batch_of_which_very_many_were_told_is_forgotten_in_steps(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "DELIVERIES_STEP", 2)
    for n in range(5):
        await scene.register("many", url=f"https://receiver.example/{n}")
    await scene.register("few")
    await scene.end("many")
    scene.clock.advance(1)
    await scene.end("few")
    await deliver_all(scene)
    scene.clock.advance(DAY + 1)
    left = []
    while await forget(scene):
        left.append(len(await scene.deliveries()))
    assert left == [4, 2, 0]
    assert await known(scene) == []
