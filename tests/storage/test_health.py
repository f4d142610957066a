"""The breaker, the probes and the flush, as the database keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from batchbell.core.errors import NotFound
from batchbell.core.model import DEFAULT_PROJECT, DeliveryState, Endpoint, EndpointState
from batchbell.storage import deliveries, health, opening, queue
from batchbell.storage.endpoints import endpoints_by_id
from tests.storage.scene import BROKEN, OK, Scene


async def endpoint_of(scene: Scene) -> Endpoint:
    id = (await scene.deliveries())[0].endpoint_id
    found = await scene.store.read(endpoints_by_id, [id], now=scene.clock())
    return found[id]


async def parked(scene: Scene, number: int = 8) -> None:
    """An endpoint whose breaker has just opened, with deliveries that are due and retries."""
    await scene.due(*(f"batch_{n}" for n in range(number)))
    await scene.settle((await scene.claim(room=4)).deliveries, BROKEN)
    scene.clock.advance(60)
    await scene.settle((await scene.claim(room=1)).deliveries, BROKEN)
    assert (await endpoint_of(scene)).opened_at == scene.clock()


async def test_while_the_breaker_is_open_one_probe_at_a_time_is_claimed(scene: Scene) -> None:
    await parked(scene)
    spent = sum(delivery.attempts for delivery in await scene.deliveries())
    assert (await scene.claim()).deliveries == []
    assert await scene.store.read(queue.oldest_past_due, now=scene.clock()) is None
    assert await scene.store.read(health.count_parked, now=scene.clock()) == 7
    assert await scene.store.read(health.count_endpoints) == {"open": 1}
    scene.clock.advance(30)
    probe = (await scene.claim()).deliveries
    assert len(probe) == 1
    assert (await scene.claim()).deliveries == [], "nobody else probes meanwhile"
    await scene.settle(probe, BROKEN)
    assert (await endpoint_of(scene)).probe_at == scene.clock() + 60
    assert sum(delivery.attempts for delivery in await scene.deliveries()) == spent + 1


async def test_a_probe_that_was_never_settled_is_made_again(scene: Scene) -> None:
    await parked(scene)
    scene.clock.advance(30)
    assert len((await scene.claim()).deliveries) == 1
    scene.clock.advance(60)
    assert len((await scene.claim()).deliveries) == 1


async def test_a_probe_of_a_process_that_died_is_made_again_at_once(scene: Scene) -> None:
    """Where nobody else can be at it, its lease ends as those of all deliveries do."""
    await parked(scene)
    await scene.store.write(opening.release_all, now=scene.clock())
    assert (await scene.claim()).deliveries == [], "none was under way, so none was cut short"
    scene.clock.advance(30)
    assert len((await scene.claim()).deliveries) == 1
    await scene.store.write(opening.release_all, now=scene.clock())
    assert len((await scene.claim()).deliveries) == 1


async def test_a_clock_that_went_back_an_hour_holds_up_no_probe(scene: Scene) -> None:
    await parked(scene)
    scene.clock.advance(-3600)
    await scene.due("batch_new")
    assert len((await scene.claim()).deliveries) == 1


async def test_a_success_closes_the_breaker_and_pulls_the_retries_forward(scene: Scene) -> None:
    await parked(scene)
    scene.clock.advance(30)
    await scene.settle((await scene.claim()).deliveries, OK)
    endpoint = await endpoint_of(scene)
    assert (endpoint.state, endpoint.opened_at, endpoint.failures) == ("active", None, 0)
    assert len((await scene.claim()).deliveries) == 7


async def test_very_many_retries_are_pulled_forward_in_steps(
    scene: Scene, monkeypatch: Any
) -> None:
    monkeypatch.setattr(health, "STEP", 3)
    await scene.due(*(f"batch_{n}" for n in range(9)))
    first, *others = (await scene.claim()).deliveries
    await scene.settle(others, BROKEN)
    scene.clock.advance(4)
    await scene.store.write(queue.give_back, [first], now=scene.clock())
    scene.clock.advance(57)
    await scene.settle((await scene.claim()).deliveries, BROKEN)
    assert (await endpoint_of(scene)).opened_at is not None
    scene.clock.advance(30)
    await scene.settle((await scene.claim()).deliveries, OK)
    steps = []
    while not steps or steps[-1]:
        pull = health.pull_forward_recovered
        steps.append(await scene.store.write(pull, now=scene.clock()))
    assert sum(steps) + 3 <= 8
    assert len((await scene.claim()).deliveries) == 8


async def test_one_that_is_always_refused_is_not_pulled_forward_for_ever(scene: Scene) -> None:
    await scene.due("batch_1")
    (endpoint_id,) = {delivery.endpoint_id for delivery in await scene.deliveries()}
    pulls = 0
    for _ in range(health.PULLS_MOST + 2):
        await scene.settle((await scene.claim()).deliveries, BROKEN)
        pulls += await scene.store.write(health.pull_forward, endpoint_id, now=scene.clock())
    assert pulls == health.PULLS_MOST


async def test_a_resend_has_the_endpoint_probed_at_once(scene: Scene) -> None:
    await parked(scene)
    (event, *_) = await scene.events()
    await scene.store.write(deliveries.resend, DEFAULT_PROJECT, event.id, now=scene.clock())
    assert len((await scene.claim()).deliveries) == 1


async def test_what_was_cut_short_twelve_times_is_given_up(scene: Scene) -> None:
    await scene.due("batch_1")
    claimed = (await scene.claim()).deliveries
    await scene.store.write(queue.give_up, claimed, mint=scene.mint, now=scene.clock())
    (delivery,) = await scene.deliveries()
    assert (delivery.state, delivery.attempts) == ("exhausted", 0)
    assert delivery.needs_you


async def test_an_endpoint_that_is_disabled_on_request_holds_what_waits(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2")
    [sent] = (await scene.claim(limit=1)).deliveries
    id = (await scene.deliveries())[0].endpoint_id
    for _ in range(2):  # once more is no error
        await scene.store.write(health.disable, DEFAULT_PROJECT, id, now=scene.clock())
    endpoint = await endpoint_of(scene)
    assert (endpoint.state, endpoint.reason) == (EndpointState.DISABLED, "disabled on request")
    assert endpoint.state_since == scene.clock()
    await scene.settle([sent], OK)
    states = sorted(delivery.state for delivery in await scene.deliveries())
    assert states == [DeliveryState.DELIVERED, DeliveryState.HELD], "what was under way is sent"
    assert (await endpoint_of(scene)).state is EndpointState.DISABLED
    with pytest.raises(NotFound):
        await scene.store.write(health.disable, "prj_other", id, now=scene.clock())
