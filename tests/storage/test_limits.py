"""Claims for endpoints whose owners limit how fast and in which order they are called."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import update

from batchbell.core.model import DEFAULT_PROJECT, Claimed
from batchbell.core.slots import MOST
from batchbell.storage import deliveries, health, queue
from batchbell.storage.queue import START
from batchbell.storage.schema import endpoints
from tests.storage.scene import BROKEN, GONE, OK, URL, Scene


async def limit(scene: Scene, url: str = URL, **wishes: Any) -> None:
    """Give the endpoint of a watched URL wishes, as managed ones have them."""
    change = update(endpoints).where(endpoints.c.url == url).values(wishes)
    await scene.store.write(lambda connection: connection.execute(change).rowcount)


async def take(scene: Scene, **how: Any) -> list[Claimed]:
    return (await scene.claim(**how)).deliveries


async def in_order(scene: Scene) -> list[str]:
    return [one.id for one in await scene.deliveries()]


async def test_no_more_are_claimed_than_the_rate_allows(scene: Scene) -> None:
    await scene.due(*(f"batch_{n}" for n in range(20)))
    await limit(scene, rate_limit=4.0)
    assert len(await take(scene)) == 4
    assert await take(scene) == []
    scene.clock.advance(0.5)
    assert len(await take(scene)) == 2
    scene.clock.advance(60)
    assert len(await take(scene, room=1)) == 1
    assert len(await take(scene)) == 3


async def test_what_waits_for_its_rate_costs_no_attempt_and_says_when_it_may_go(
    scene: Scene,
) -> None:
    await scene.due("batch_1", "batch_2")
    await limit(scene, rate_limit=0.5)
    (first,) = await take(scene)
    await scene.settle([first])
    claim = await scene.claim()
    assert (claim.deliveries, claim.token_at) == ([], pytest.approx(scene.clock() + 2))
    scene.clock.now = claim.token_at or 0.0
    claim = await scene.claim()
    assert [one.attempt for one in claim.deliveries] == [1]
    assert claim.token_at is None


async def test_one_that_is_not_known_here_gets_no_more_than_can_be_sent_at_once(
    scene: Scene,
) -> None:
    await scene.due(*(f"batch_{n}" for n in range(20)))
    await limit(scene, rate_limit=1000.0)
    assert len(await take(scene, room=100)) == MOST


async def test_a_limit_on_one_endpoint_changes_nothing_for_another(scene: Scene) -> None:
    other = "https://other.example/"
    await scene.due("batch_1", "batch_2")
    await scene.due("batch_3", "batch_4", url=other)
    await limit(scene, rate_limit=1.0)
    assert len(await take(scene)) == 3


async def test_a_limit_that_was_lifted_holds_nothing_back(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2")
    await limit(scene, rate_limit=0.01)
    assert len(await take(scene)) == 1
    await limit(scene, rate_limit=None)
    assert len(await take(scene)) == 1


async def test_a_clock_that_went_back_stops_no_limited_endpoint(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2", "batch_3")
    await limit(scene, rate_limit=1.0)
    assert len(await take(scene)) == 1
    change = update(endpoints).values(rate_at=scene.clock() + 3600)
    await scene.store.write(lambda connection: connection.execute(change).rowcount)
    assert len(await take(scene)) == 1
    assert await take(scene) == [], "and its pace is kept from there"


async def test_many_claims_at_once_keep_to_the_rate(scene: Scene) -> None:
    await scene.due(*(f"batch_{n}" for n in range(30)))
    await limit(scene, rate_limit=5.0)
    claims = await asyncio.gather(*(take(scene, room=3) for _ in range(6)))
    assert 3 <= sum(map(len, claims)) <= 5


async def test_a_probe_needs_a_token_too_and_is_not_wasted_without(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2")
    now = scene.clock()
    await limit(
        scene,
        rate_limit=0.1,
        rate_at=now + 10,
        state="failing",
        failures=5,
        failing_since=now - 99,
        opened_at=now,
        probe_at=now,
    )
    assert await take(scene) == []
    scene.clock.advance(10)
    assert len(await take(scene)) == 1
    scene.clock.advance(10)
    assert await take(scene) == [], "a probe is under way"


async def test_of_an_ordered_endpoint_the_first_goes_alone(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2", "batch_3")
    await limit(scene, ordered=True)
    ids = await in_order(scene)
    for id in ids:
        (one,) = await take(scene)
        assert one.id == id
        assert await take(scene) == []
        await scene.settle([one])
    assert await take(scene) == []


async def test_what_follows_waits_for_the_retry_of_the_first(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2")
    await limit(scene, ordered=True)
    first, second = await in_order(scene)
    (one,) = await take(scene)
    await scene.settle([one], BROKEN)
    assert await take(scene) == []
    scene.clock.advance(6)
    (again,) = await take(scene)
    assert (again.id, again.attempt) == (first, 2)
    await scene.settle([again])
    assert [one.id for one in await take(scene)] == [second]


@pytest.mark.parametrize("end", ["exhausted", "deleted", "lease"])
async def test_nothing_waits_for_ever(scene: Scene, end: str) -> None:
    await scene.due("batch_1", "batch_2")
    await limit(scene, ordered=True)
    first, second = await in_order(scene)
    (one,) = await take(scene)
    if end == "lease":
        scene.clock.advance(60)
        assert [one.id for one in await take(scene)] == [first], "it died with its worker"
        return
    if end == "exhausted":
        await scene.store.write(queue.give_up, [one], mint=scene.mint, now=scene.clock())
    else:
        await scene.settle([one], GONE)
        await limit(scene, state="active", reason=None)
        await scene.store.write(
            deliveries.resend, DEFAULT_PROJECT, (await scene.events())[1].id, now=scene.clock()
        )
    assert [one.id for one in await take(scene)] == [second]


async def test_one_sent_again_waits_for_what_is_under_way_and_then_goes_first(
    scene: Scene,
) -> None:
    await scene.due("batch_1", "batch_2", "batch_3")
    await limit(scene, ordered=True)
    first, second, third = await in_order(scene)
    await scene.settle(await take(scene))
    (under_way,) = await take(scene)
    assert under_way.id == second
    await scene.store.write(
        deliveries.resend, DEFAULT_PROJECT, (await scene.events())[0].id, now=scene.clock()
    )
    assert await take(scene) == [], "never two at once"
    await scene.settle([under_way], OK)
    for id in (first, third):
        (one,) = await take(scene)
        assert one.id == id
        await scene.settle([one])


async def test_a_probe_is_the_first_or_none(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2")
    first, _ = await in_order(scene)
    now = scene.clock()
    await limit(scene, ordered=True)
    (one,) = await take(scene)
    await scene.settle([one], BROKEN)
    await limit(scene, failures=5, failing_since=now - 99, opened_at=now, probe_at=now)
    assert await take(scene) == [], "the second is due, but not first"
    scene.clock.advance(6)
    assert [one.id for one in await take(scene)] == [first], "and the probe was not spent"


async def test_after_an_outage_the_first_is_pulled_forward(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2")
    await limit(scene, ordered=True)
    first, _ = await in_order(scene)
    (one,) = await take(scene)
    await scene.settle([one], BROKEN)
    (endpoint_id,) = {one.endpoint_id for one in await scene.deliveries()}
    await scene.store.write(health.pull_forward, endpoint_id, now=scene.clock())
    assert [one.id for one in await take(scene)] == [first]


async def test_many_claims_at_once_take_the_first_once(scene: Scene) -> None:
    await scene.due(*(f"batch_{n}" for n in range(6)))
    await limit(scene, ordered=True)

    async def worker() -> Sequence[str]:
        gone = []
        for _ in range(10):
            for one in await take(scene):
                under_way.append(one.id)
                assert len(under_way) == 1
                gone.append(one.id)
                await asyncio.sleep(0)
                under_way.remove(one.id)
                await scene.settle([one])
        return gone

    under_way: list[str] = []
    await asyncio.gather(*(worker() for _ in range(4)))
    done = [one for one in await scene.deliveries() if one.state == "delivered"]
    assert sorted(one.id for one in done) == (await in_order(scene))[: len(done)]
    assert all(one.attempts == 1 for one in done)
    assert len(done) >= 1


async def test_a_claim_that_is_full_goes_on_behind_what_it_took(scene: Scene) -> None:
    """Whoever has order is served first, and is no reason to pass over those who come next."""
    urls = [f"https://receiver.example/{n}" for n in range(6)]
    for n, url in enumerate(urls):
        await scene.due(f"batch_{n}a", f"batch_{n}b", url=url)
    await limit(scene, urls[5], ordered=True)
    ids = sorted({one.endpoint_id for one in await scene.deliveries()})
    place, visited = START, set()
    for _ in range(12):
        claim = await scene.claim(limit=3, room=2, after=place)
        visited |= {one.endpoint_id for one in claim.deliveries}
        place = claim.place
    assert sorted(visited) == ids


async def test_what_waits_for_its_rate_or_its_turn_is_not_late(scene: Scene) -> None:
    since = scene.clock()
    await scene.due("batch_1", "batch_2")
    await limit(scene, rate_limit=1.0)
    assert len(await take(scene)) == 1
    scene.clock.advance(5)
    late = {"now": scene.clock()}
    assert await scene.store.read(queue.oldest_past_due, **late) is None
    await limit(scene, rate_at=scene.clock() - 99)
    assert await scene.store.read(queue.oldest_past_due, **late) == since, "nobody serves it"
    await limit(scene, rate_limit=None, ordered=True)
    assert await scene.store.read(queue.oldest_past_due, **late) is None, "one is under way"
