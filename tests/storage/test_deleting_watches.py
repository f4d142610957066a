"""A watch that is deleted while its delivery is under way: that attempt is the last."""

from __future__ import annotations

import pytest

from batchbell.core.model import DEFAULT_PROJECT, Claimed, Delivery, DeliveryState, Outcome
from batchbell.storage import attempts, deliveries, queue, watches
from batchbell.storage.queue import Claim
from tests.storage.scene import BROKEN, GONE, OK, Scene

HOUR = 3600.0


async def claimed_and_deleted(scene: Scene) -> Claimed:
    """A delivery in somebody's hands, whose watch was deleted since."""
    (made,) = await scene.register("batch_1")
    await scene.end("batch_1")
    (claimed,) = (await scene.claim()).deliveries
    await scene.store.write(watches.delete_watch, DEFAULT_PROJECT, made.watch.id)
    return claimed


async def only(scene: Scene) -> Delivery:
    (row,) = await scene.deliveries()
    return row


async def claim_later(scene: Scene) -> Claim:
    scene.clock.advance(30 * HOUR)
    return await scene.claim()


@pytest.mark.parametrize("outcome", [BROKEN, GONE, Outcome(status=429, retry_after_seconds=9.0)])
async def test_a_failure_ends_it_without_a_retry(scene: Scene, outcome: Outcome) -> None:
    claimed = await claimed_and_deleted(scene)
    assert await scene.settle([claimed], outcome) == {claimed.id}
    row = await only(scene)
    assert (row.state, row.due_at) == (DeliveryState.EXHAUSTED, None)
    assert row.needs_you == attempts.OF_DELETED_WATCH
    assert row.finished_at is not None
    assert (await claim_later(scene)).deliveries == []
    made = await scene.store.read(deliveries.list_attempts, row)
    assert [one.outcome is not None for one in made] == [True]


async def test_a_success_is_a_success(scene: Scene) -> None:
    claimed = await claimed_and_deleted(scene)
    await scene.settle([claimed], OK)
    assert (await only(scene)).state is DeliveryState.DELIVERED


async def test_what_was_not_sent_is_forgotten(scene: Scene) -> None:
    claimed = await claimed_and_deleted(scene)
    await scene.store.write(queue.give_back, [claimed], now=scene.clock())
    assert await scene.deliveries() == []


async def test_what_a_dead_worker_held_is_claimed_only_to_be_ended(scene: Scene) -> None:
    await claimed_and_deleted(scene)
    (again,) = (await claim_later(scene)).deliveries
    assert again.ends, "a dispatcher sends no such delivery"
    how = {"mint": scene.mint, "now": scene.clock()}
    await scene.store.write(queue.give_up, [again], **how)
    assert (await only(scene)).state is DeliveryState.EXHAUSTED
    assert (await claim_later(scene)).deliveries == []


async def test_it_is_sent_again_when_somebody_asks_for_it(scene: Scene) -> None:
    claimed = await claimed_and_deleted(scene)
    await scene.settle([claimed], BROKEN)
    await scene.store.write(deliveries.resend, DEFAULT_PROJECT, claimed.event_id, now=scene.clock())
    (again,) = (await scene.claim()).deliveries
    assert not again.ends
