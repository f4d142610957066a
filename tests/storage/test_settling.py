"""What attempts make of deliveries and endpoints: fenced, whole, and whatever they brought."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batchbell.core import backoff
from batchbell.core.errors import InvalidRequest, NotFound
from batchbell.core.model import (
    DEFAULT_PROJECT,
    Delivery,
    Endpoint,
    EndpointState,
    Fault,
    Outcome,
)
from batchbell.core.outcome import Timings
from batchbell.storage import deliveries, endpoints, queue
from batchbell.storage.engine import storable
from tests.storage.scene import BROKEN, GONE, OK, URL, Scene


async def only(scene: Scene) -> Delivery:
    (delivery,) = await scene.deliveries()
    return delivery


async def endpoint_of(scene: Scene, delivery: Delivery) -> Endpoint:
    found = await scene.store.read(
        endpoints.endpoints_by_id, [delivery.endpoint_id], now=scene.clock()
    )
    return found[delivery.endpoint_id]


async def exhaust(scene: Scene) -> None:
    """Fail until the schedule has run out."""
    for _ in backoff.SCHEDULE_SECONDS:
        scene.clock.advance(backoff.SCHEDULE_SECONDS[-1])
        await scene.settle((await scene.claim()).deliveries, BROKEN)


async def test_a_success_is_delivered_with_its_attempt(scene: Scene) -> None:
    await scene.due("batch_1")
    (claimed,) = (await scene.claim()).deliveries
    answer = Outcome(
        status=204,
        started_at=scene.clock(),
        duration_ms=12.5,
        remote_address="192.0.2.1",
        response_headers={"server": "x"},
        response_body="thanks",
        timings=Timings(dns_ms=1.5, connect_ms=2.5, tls_ms=3.5, first_byte_ms=11.25),
    )
    assert await scene.settle([claimed], answer) == {claimed.id}

    delivery = await only(scene)
    assert (delivery.state, delivery.finished_at) == ("delivered", scene.clock())
    assert (delivery.last_status, delivery.last_error, delivery.due_at) == (204, None, None)
    (attempt,) = await scene.store.read(deliveries.list_attempts, delivery)
    assert (attempt.number, attempt.outcome) == (1, answer)


@pytest.mark.parametrize("late", [0, 1])
async def test_the_headers_of_an_attempt_are_told_as_they_were_sent(
    scene: Scene, late: int
) -> None:
    await scene.due("batch_1")
    (claimed,) = (await scene.claim()).deliveries
    headers = {
        "content-type": "application/json",
        "user-agent": "Batchbell/1",
        "webhook-id": claimed.event_id,
        "webhook-timestamp": str(int(scene.clock())),
        "webhook-signature": "***",
        "webhook-attempt": "1",
        "X-Key": "***",
    }
    sent = replace(OK, started_at=scene.clock() + late, request_headers=headers)
    await scene.settle([claimed], sent)
    (attempt,) = await scene.store.read(deliveries.list_attempts, await only(scene))
    assert attempt.outcome is not None
    assert attempt.outcome.request_headers == headers


async def test_a_failure_waits_for_its_next_attempt(scene: Scene) -> None:
    await scene.due("batch_1")
    await scene.settle((await scene.claim()).deliveries, BROKEN)

    delivery = await only(scene)
    assert (delivery.state, delivery.attempts) == ("pending", 1)
    assert delivery.due_at == scene.clock() + backoff.SCHEDULE_SECONDS[1]
    assert delivery.last_error == "HTTP 500"
    endpoint = await endpoint_of(scene, delivery)
    assert (endpoint.state, endpoint.failures) == ("failing", 1)

    scene.clock.advance(backoff.SCHEDULE_SECONDS[1])
    await scene.settle((await scene.claim()).deliveries, OK)
    endpoint = await endpoint_of(scene, delivery)
    assert (endpoint.state, endpoint.failures, endpoint.failing_since) == ("active", 0, None)


async def test_pitfall_4_a_schedule_that_ran_out_ends_the_delivery(scene: Scene) -> None:
    await scene.due("batch_1")
    await exhaust(scene)
    delivery = await only(scene)
    assert (delivery.state, delivery.attempts) == ("exhausted", len(backoff.SCHEDULE_SECONDS))
    scene.clock.advance(10**7)
    assert (await scene.claim()).deliveries == []


async def test_410_disables_the_endpoint_and_holds_all_that_waits_for_it(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2", "batch_3")
    await scene.due("batch_4", url="https://other.example/")
    claimed = (await scene.claim(room=1)).deliveries
    (gone,) = [one for one in claimed if (await _url(scene, one.id)) == URL]
    await scene.settle([gone], GONE)

    states = {d.batch_id: d.state for d in await scene.deliveries()}
    assert states == {
        "batch_1": "held",
        "batch_2": "held",
        "batch_3": "held",
        "batch_4": "pending",
    }
    endpoint = await endpoint_of(scene, (await scene.deliveries())[0])
    assert (endpoint.state, endpoint.reason) == (EndpointState.DISABLED, "answered 410 Gone")


async def test_a_429_keeps_the_whole_endpoint_from_being_called(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2")
    (first,) = (await scene.claim(room=1)).deliveries
    await scene.settle([first], Outcome(status=429, retry_after_seconds=120.0))
    assert (await scene.claim()).deliveries == []
    scene.clock.advance(120)
    assert len((await scene.claim()).deliveries) == 2


async def test_a_late_settle_is_passed_over_whole(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2")
    late = (await scene.claim()).deliveries
    scene.clock.advance(60)
    (taken_over,) = (await scene.claim(limit=1)).deliveries
    (untouched,) = [one for one in late if one.id != taken_over.id]

    assert await scene.settle(late, BROKEN) == {untouched.id}
    assert await scene.settle([taken_over], OK) == {taken_over.id}
    delivery = await _get(scene, taken_over.id)
    attempts = await scene.store.read(deliveries.list_attempts, delivery)
    assert [(a.number, a.outcome and a.outcome.status) for a in attempts] == [(1, None), (2, 200)]


async def test_a_settle_that_comes_twice_counts_once(scene: Scene) -> None:
    await scene.due("batch_1")
    claimed = (await scene.claim()).deliveries
    assert len(await scene.settle(claimed, BROKEN)) == 1
    assert await scene.settle(claimed, BROKEN) == set()
    delivery = await only(scene)
    assert len(await scene.store.read(deliveries.list_attempts, delivery)) == 1
    assert (await endpoint_of(scene, delivery)).failures == 1


async def test_the_attempt_that_is_being_made_is_not_listed(scene: Scene) -> None:
    await scene.due("batch_1")
    await scene.claim()
    delivery = await only(scene)
    assert delivery.lease_token is not None
    assert await scene.store.read(deliveries.list_attempts, delivery) == []


async def test_nothing_to_settle_is_no_error(scene: Scene) -> None:
    assert await scene.settle([]) == set()


async def test_of_many_that_are_settled_together_each_becomes_what_was_decided(
    scene: Scene,
) -> None:
    await scene.due(*(f"batch_{n:02}" for n in range(28)))
    claimed = (await scene.claim()).deliveries
    tried = []
    for n, one in enumerate(claimed):
        made = scene.tried(one, replace(BROKEN if n % 2 else OK, duration_ms=float(n)))
        if n % 4 == 1:  # two by two
            later = replace(made.settlement, due_at=scene.clock() + n // 8)
            made = replace(made, settlement=later)
        tried.append(made)
    late = replace(tried[8], delivery=replace(tried[8].delivery, lease_token="another"))
    settled = await scene.store.write(
        queue.settle, [*tried[:8], late, *tried[9:]], mint=scene.mint, now=scene.clock()
    )
    assert settled.written == {one.id for one in claimed if one is not claimed[8]}
    for made in tried:
        delivery, decided = await _get(scene, made.delivery.id), made.settlement
        found = await scene.store.read(deliveries.list_attempts, delivery)
        if made is tried[8]:
            assert (delivery.state, found) == ("pending", [])
            continue
        assert (delivery.state, delivery.due_at) == (decided.state, decided.due_at)
        assert delivery.last_status == made.outcome.status
        assert [attempt.outcome for attempt in found] == [made.outcome]


async def test_odd_words_of_a_receiver_spoil_no_neighbour(scene: Scene) -> None:
    ids = [f"batch_{n}" for n in range(6)]
    await scene.due(*ids)
    claimed = (await scene.claim()).deliveries
    words = ["nul \0", "half \ud83d", "other half \udc00", "🎈", "\\u0000", '"}] \\']
    tried = [
        scene.tried(
            one,
            Outcome(
                status=500,
                fault=Fault.PROTOCOL,
                detail=odd,
                location=odd,
                response_headers={odd: odd},
                response_body=odd,
            ),
        )
        for one, odd in zip(claimed, words, strict=True)
    ]
    settled = await scene.store.write(queue.settle, tried, mint=scene.mint, now=scene.clock())
    assert len(settled.written) == 6
    for one, odd in zip(claimed, words, strict=True):
        delivery = await _get(scene, one.id)
        (attempt,) = await scene.store.read(deliveries.list_attempts, delivery)
        assert attempt.outcome is not None
        kept = storable(odd)
        assert attempt.outcome.response_body == attempt.outcome.location == kept
        assert attempt.outcome.response_headers == {kept: kept}
        assert delivery.last_error == kept


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_storable_is_utf_8_without_nul_and_else_the_same(words: str) -> None:
    kept = storable(words)
    assert "\0" not in kept
    assert kept.encode("utf-8").decode("utf-8") == kept
    if "\0" not in words and not any("\ud800" <= letter <= "\udfff" for letter in words):
        assert kept == words


async def test_sending_again_starts_the_whole_schedule_anew(scene: Scene) -> None:
    await scene.due("batch_1")
    await exhaust(scene)
    (event,) = await scene.events()
    (again,) = await scene.store.write(
        deliveries.resend, DEFAULT_PROJECT, event.id, now=scene.clock()
    )
    assert (again.state, again.due_at, again.finished_at) == ("pending", scene.clock(), None)

    (claimed,) = (await scene.claim()).deliveries
    assert claimed.attempt - claimed.first_attempt_base == 1
    await scene.settle([claimed], BROKEN)
    assert (await only(scene)).due_at == scene.clock() + backoff.SCHEDULE_SECONDS[1]


async def test_what_was_delivered_can_be_sent_again_under_the_same_event(scene: Scene) -> None:
    await scene.due("batch_1")
    (first,) = (await scene.claim()).deliveries
    await scene.settle([first])
    await scene.store.write(deliveries.resend, DEFAULT_PROJECT, first.event_id, now=scene.clock())
    (second,) = (await scene.claim()).deliveries
    assert (second.event_id, second.attempt) == (first.event_id, 2)
    await scene.settle([second])
    assert len(await scene.store.read(deliveries.list_attempts, await only(scene))) == 2


async def test_sending_again_what_was_held_calls_the_endpoint_again(scene: Scene) -> None:
    await scene.due("batch_1")
    (claimed,) = (await scene.claim()).deliveries
    await scene.settle([claimed], GONE)
    await scene.store.write(deliveries.resend, DEFAULT_PROJECT, claimed.event_id, now=scene.clock())
    assert len((await scene.claim()).deliveries) == 1


async def test_sending_again_to_one_endpoint_leaves_the_others(scene: Scene) -> None:
    await scene.register("batch_1")
    (other,) = await scene.register("batch_1", url="https://other.example/")
    await scene.end("batch_1")
    await scene.settle((await scene.claim()).deliveries)
    (event,) = await scene.events()
    await scene.store.write(
        deliveries.resend,
        DEFAULT_PROJECT,
        event.id,
        endpoint_id=other.watch.endpoint_id,
        now=scene.clock(),
    )
    (claimed,) = (await scene.claim()).deliveries
    assert claimed.endpoint_id == other.watch.endpoint_id


async def test_sending_again_leaves_what_is_being_sent_to_its_worker(scene: Scene) -> None:
    await scene.due("batch_1")
    (claimed,) = (await scene.claim()).deliveries
    await scene.store.write(deliveries.resend, DEFAULT_PROJECT, claimed.event_id, now=scene.clock())
    assert (await scene.claim()).deliveries == []
    assert await scene.settle([claimed]) == {claimed.id}


async def test_what_cannot_be_sent_again_says_why(scene: Scene) -> None:
    with pytest.raises(NotFound):
        await scene.store.write(deliveries.resend, DEFAULT_PROJECT, "evt_0", now=scene.clock())
    await scene.due("batch_1")
    (event,) = await scene.events()
    with pytest.raises(NotFound):
        await scene.store.write(deliveries.resend, "other", event.id, now=scene.clock())
    with pytest.raises(InvalidRequest):
        await scene.store.write(
            deliveries.resend, DEFAULT_PROJECT, event.id, endpoint_id="whe_0", now=scene.clock()
        )


async def test_events_are_found_by_how_their_delivery_went(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2")
    (first,) = (await scene.claim(limit=1)).deliveries
    await scene.settle([first])
    (told,) = await scene.events(delivery_success=True)
    (untold,) = await scene.events(delivery_success=False)
    assert told.id == first.event_id
    assert untold.id != told.id
    assert [e.id for e in await scene.events(batch_id=told.batch_id)] == [told.id]


async def test_pages_show_every_delivery_once(scene: Scene) -> None:
    ids = [f"batch_{n:02}" for n in range(13)]
    await scene.due(*ids)
    seen: list[str] = []
    more = True
    while more:
        page = await scene.store.read(
            deliveries.list_deliveries,
            DEFAULT_PROJECT,
            limit=4,
            after=seen[-1] if seen else None,
        )
        seen += [delivery.id for delivery in page.items]
        more = page.has_more
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 13


async def _get(scene: Scene, id: str) -> Delivery:
    return await scene.store.read(deliveries.get_delivery, DEFAULT_PROJECT, id)


async def _url(scene: Scene, id: str) -> str:
    return (await _get(scene, id)).url
