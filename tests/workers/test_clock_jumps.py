"""The clock jumps by an hour, either way, with deliveries on their way: no storm, none stuck."""

from __future__ import annotations

import pytest
from tests.workers.conftest import House

from batchbell.core.model import DEFAULT_PROJECT, Delivery, DeliveryState
from batchbell.core.slots import MOST
from batchbell.sandbox import Hold, Respond
from batchbell.storage import deliveries
from batchbell.workers.janitor import Janitor

HOUR = 3600.0
NUMBER = 20
PATH = "/hook"

both_ways = pytest.mark.parametrize("jump", [HOUR, -HOUR])


async def due(house: House, answer: Respond | Hold) -> None:
    """Deliveries for one endpoint, due now; it answers like this."""
    house.receiver.behave(PATH, answer)
    ids = house.provider.add_batches(NUMBER)
    await house.register(*ids, path=PATH)
    for id in ids:
        house.provider.finish(id, "completed")
    await house.sweep()


async def calls_within(house: House, seconds: float) -> int:
    """How many calls come in this time, looked for every five seconds."""
    before, ends = house.receiver.counts[PATH], house.clock() + seconds
    await house.deliver()
    while house.clock() < ends:
        house.clock.advance(5)
        await house.deliver()
    return house.receiver.counts[PATH] - before


async def rows(house: House) -> list[Delivery]:
    page = await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=1000)
    return list(page.items)


async def all_delivered_in_the_end(house: House) -> None:
    house.receiver.behave(PATH, Respond())
    for _ in range(6):
        house.clock.advance(HOUR / 2)
        await house.deliver()
    assert {row.state for row in await rows(house)} == {DeliveryState.DELIVERED}
    told = [hook.headers["webhook-id"] for hook in house.receiver.received]
    assert len(set(told)) == NUMBER


@both_ways
async def test_during_a_schedule(house: House, jump: float) -> None:
    await due(house, Respond(500))
    await house.deliver()
    assert house.receiver.counts[PATH] == NUMBER
    house.clock.advance(jump)
    assert await calls_within(house, 60) <= NUMBER + 1, "each at most once, and a probe"
    await all_delivered_in_the_end(house)


@both_ways
async def test_while_the_breaker_is_open(house: House, jump: float) -> None:
    """Back by an hour, the next probe seems to lie far ahead: it counts as come."""
    await due(house, Respond(500))
    await calls_within(house, 200)
    assert await calls_within(house, 20) <= 1, "the breaker is open"
    house.clock.advance(jump)
    assert await calls_within(house, 60) <= 2, "a probe, and the next one"
    await all_delivered_in_the_end(house)


@both_ways
async def test_while_the_endpoint_is_paused(house: House, jump: float) -> None:
    await due(house, Respond(429, {"retry-after": "120"}))
    await house.deliver()
    before = house.receiver.counts[PATH]
    assert before <= MOST
    house.clock.advance(jump)
    assert await calls_within(house, 60) <= MOST, "the pause is over at most once"
    await all_delivered_in_the_end(house)


@both_ways
async def test_while_calls_are_under_way(house: House, jump: float) -> None:
    """Forward, their leases seem to have run out: at most those are sent once more."""
    await due(house, Hold())
    await house.dispatcher.step()
    await house.receiver.wait_for(MOST)
    house.clock.advance(jump)
    await house.dispatcher.step()
    house.receiver.behave(PATH, Respond())
    house.receiver.release()
    await house.dispatcher.calls_ended()
    await house.deliver()
    await all_delivered_in_the_end(house)
    assert house.receiver.counts[PATH] <= NUMBER + MOST


@both_ways
async def test_what_waits_here_is_not_sent_under_a_lease_that_is_over(
    house: House, jump: float
) -> None:
    """What a worker that died held is due again when its lease is over, whenever that is."""
    await due(house, Respond())
    await house.dispatcher.claim()
    house.clock.advance(jump)
    await house.deliver()
    await house.dispatcher.calls_ended()
    await all_delivered_in_the_end(house)
    assert house.receiver.counts[PATH] == NUMBER


async def test_what_is_due_when_the_clock_is_set_back_goes_out_within_a_minute(
    house: House,
) -> None:
    """Never tried, to be tried again, and paused: the janitor sees that the clock went back."""
    janitor = Janitor(house.store, clock=house.clock, retention_days=30, attempt_retention_days=30)
    await janitor.step()
    await due(house, Respond(500))
    await house.deliver()
    house.clock.advance(-HOUR)
    assert await calls_within(house, 30) == 0
    house.receiver.behave(PATH, Respond())
    await janitor.step()
    assert await calls_within(house, 30) == NUMBER


async def test_a_process_that_starts_after_the_clock_was_set_back_sees_it(house: House) -> None:
    await due(house, Respond())
    house.clock.advance(-HOUR)
    janitor = Janitor(house.store, clock=house.clock, retention_days=30, attempt_retention_days=30)
    await janitor.step()
    assert await calls_within(house, 30) == NUMBER
