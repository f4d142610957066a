"""Old attempts go on their own, in bounded steps; their deliveries stay, and say so."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batchbell.core.backoff import SCHEDULE_SECONDS
from batchbell.core.ids import first_id, new_id
from batchbell.storage import deliveries, retention
from batchbell.storage.retention import START, Aged, Cursor
from tests.storage.scene import BROKEN, OK, Scene

DAY = 86400.0


async def forget(scene: Scene, *, after: Cursor = START, limit: int = 100) -> Aged:
    return await scene.store.write(
        retention.forget_attempts, before=scene.clock() - DAY, after=after, limit=limit
    )


async def try_all(scene: Scene, outcome=OK) -> None:
    made = replace(outcome, started_at=scene.clock())
    await scene.settle((await scene.claim()).deliveries, made)


async def numbers(scene: Scene) -> list[list[int]]:
    """Of each delivery the attempts that are listed, by number."""
    since = scene.clock() - DAY
    return [
        [
            attempt.number
            for attempt in await scene.store.read(deliveries.list_attempts, one, kept_since=since)
        ]
        for one in await scene.deliveries()
    ]


async def test_old_attempts_go_and_their_deliveries_stay(scene: Scene) -> None:
    await scene.due("batch_1")
    await try_all(scene)
    scene.clock.advance(DAY + 1)
    await scene.due("batch_2")
    await try_all(scene)
    assert await forget(scene) == Aged(1, START)
    assert await numbers(scene) == [[], [1]]
    assert await forget(scene) == Aged(0, START)


async def test_a_young_attempt_of_an_old_delivery_is_kept(scene: Scene) -> None:
    await scene.due("batch_1")
    await try_all(scene, BROKEN)
    scene.clock.advance(DAY + 1)
    await try_all(scene, OK)
    assert (await forget(scene)).deleted == 1
    assert await numbers(scene) == [[2]]


async def test_a_crash_after_what_is_kept_stays_an_unknown_outcome(scene: Scene) -> None:
    await scene.due("batch_1")
    await try_all(scene, BROKEN)
    scene.clock.advance(DAY + 1)
    await try_all(scene, BROKEN)
    scene.clock.advance(SCHEDULE_SECONDS[2] * 2)
    await scene.claim()
    scene.clock.advance(61)  # the lease is over
    await try_all(scene)
    await forget(scene)
    assert await numbers(scene) == [[2, 3, 4]]


async def test_a_crash_of_a_young_delivery_is_no_deletion(scene: Scene) -> None:
    await scene.due("batch_1")
    await scene.claim()
    scene.clock.advance(61)
    await try_all(scene)
    assert await numbers(scene) == [[1, 2]]


async def test_no_step_looks_at_more_than_its_limit(scene: Scene) -> None:
    await scene.due(*(f"batch_{n}" for n in range(7)))
    await try_all(scene, BROKEN)
    scene.clock.advance(DAY + 1)
    await try_all(scene)
    after, deleted = START, []
    for _ in range(3):
        aged = await forget(scene, after=after, limit=6)
        after = aged.cursor
        deleted.append(aged.deleted)
    assert (deleted, after) == ([3, 3, 1], START)
    assert await numbers(scene) == [[2]] * 7


@given(st.floats(0, 4e9), st.floats(0, 4e9), st.binary(min_size=10, max_size=10))
def test_ids_sort_around_the_first_one_of_a_time(at: float, made: float, rand: bytes) -> None:
    earlier = int(made * 1000) < int(at * 1000)
    assert (new_id("dlv", now=made, rand=rand) < first_id("dlv", at=at)) is earlier
