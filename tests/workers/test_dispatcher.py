"""What receivers get, and what becomes of a delivery after each answer."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise

import pytest
from openai import OpenAI
from sqlalchemy import update
from tests.conftest import SECRET
from tests.workers.conftest import House

from batchbell.core.backoff import SCHEDULE_SECONDS
from batchbell.core.model import DEFAULT_EVENTS, DEFAULT_PROJECT, Delivery, DeliveryState, EventType
from batchbell.net.client import WebhookSender
from batchbell.net.guard import AddressRules
from batchbell.sandbox import Drip, Endless, GzipBomb, Hang, Hold, Reset, Respond, Stall, redirect
from batchbell.storage import deliveries, events, queue
from batchbell.storage.endpoints import endpoints_by_id
from batchbell.storage.schema import endpoints
from batchbell.workers.dispatcher import RUSH, RUSH_SECONDS, Dispatcher


async def ended_batch(house: House, path: str = "/hook", **wishes: object) -> str:
    id = house.provider.add_batch(total=3)
    await house.register(id, path=path, **wishes)
    house.provider.finish(id, "completed", failed=1)
    await house.sweep()
    return id


async def only_delivery(house: House) -> Delivery:
    page = await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=9)
    (delivery,) = page.items
    return delivery


async def go_on(house: House) -> None:
    """Let time pass until the delivery is due again and may be sent, and send it."""
    delivery = await only_delivery(house)
    assert delivery.due_at is not None
    known = await house.read(endpoints_by_id, [delivery.endpoint_id], now=house.clock())
    probe_at = known[delivery.endpoint_id].probe_at or 0.0
    house.clock.now = max(house.clock.now, delivery.due_at, probe_at)
    await house.deliver()


async def test_the_webhook_is_signed_and_unwraps_in_openais_sdk(house: House) -> None:
    """Pitfall 8 and pitfall 26: signed, with an id and a time, and the id in the body too."""
    house.clock.now = time.time()
    id = await ended_batch(house)
    await house.deliver()
    (hook,) = await house.receiver.wait_for(1)
    event = OpenAI(api_key="x").webhooks.unwrap(hook.body, hook.headers, secret=SECRET)
    assert (event.type, event.data.id) == ("batch.completed", id)
    body = json.loads(hook.body)
    assert (body["batchId"], body["status"]) == (id, "completed")
    assert body["id"] == hook.headers["webhook-id"]
    assert hook.headers["webhook-attempt"] == "1"
    assert (await only_delivery(house)).state is DeliveryState.DELIVERED


async def test_the_same_pair_twice_is_one_watch_and_one_webhook(house: House) -> None:
    """Pitfall 6: the same id registered twice."""
    id = house.provider.add_batch(total=3)
    (first,) = await house.register(id)
    (again,) = await house.register(id)
    assert (first.watch.id, again.created) == (again.watch.id, False)
    house.provider.finish(id, "completed")
    await house.sweep()
    await house.deliver()
    (late,) = await house.register(id)
    assert late.watch.id == first.watch.id
    await house.deliver()
    assert len(house.receiver.received) == 1


async def test_a_second_url_is_a_second_watch_and_a_late_one_is_told_at_once(house: House) -> None:
    id = await ended_batch(house)
    await house.deliver()
    await house.register(id, path="/other")
    await house.deliver()
    assert [hook.path for hook in house.receiver.received] == ["/hook", "/other"]


async def test_retries_follow_the_schedule_with_one_id_and_fresh_timestamps(house: House) -> None:
    """Pitfall 4 and pitfall 29: backoff with an end; the id constant, the timestamp fresh."""
    house.receiver.behave("/hook", Respond(500))
    await ended_batch(house)
    await house.deliver()
    while (await only_delivery(house)).state is DeliveryState.PENDING:
        await go_on(house)
    hooks = house.receiver.received
    assert len(hooks) == len(SCHEDULE_SECONDS) == 12
    assert len({hook.headers["webhook-id"] for hook in hooks}) == 1
    assert len({hook.body for hook in hooks}) == 1
    stamps = [int(hook.headers["webhook-timestamp"]) for hook in hooks]
    waits = [b - a for a, b in pairwise(stamps)]
    for wait, planned in zip(waits, SCHEDULE_SECONDS[1:], strict=True):
        assert planned <= wait <= planned * 1.1 + 1
    assert (await only_delivery(house)).state is DeliveryState.EXHAUSTED
    await house.deliver()
    assert len(house.receiver.received) == 12


async def test_what_was_exhausted_can_be_sent_again_with_the_full_schedule(house: House) -> None:
    house.receiver.behave("/hook", *[Respond(500)] * 13, Respond(200))
    await ended_batch(house)
    await house.deliver()
    while (await only_delivery(house)).state is DeliveryState.PENDING:
        await go_on(house)
    event_id = (await only_delivery(house)).event_id
    await house.store.write(deliveries.resend, DEFAULT_PROJECT, event_id, now=house.clock())
    await house.deliver()
    assert (await only_delivery(house)).state is DeliveryState.PENDING
    await go_on(house)
    delivery = await only_delivery(house)
    assert (delivery.state, delivery.attempts) == (DeliveryState.DELIVERED, 14)
    attempts = await house.read(deliveries.list_attempts, delivery)
    assert [a.outcome.status for a in attempts if a.outcome] == [500] * 13 + [200]


async def test_a_redirect_is_not_followed_and_explained(house: House) -> None:
    """Pitfall 7 and pitfall 27: a 307 is never followed; the reader is told what to set."""
    house.receiver.behave("/hook", redirect(house.receiver.url("/elsewhere"), status=307))
    await ended_batch(house)
    await house.deliver()
    assert [hook.path for hook in house.receiver.received] == ["/hook"]
    delivery = await only_delivery(house)
    assert delivery.state is DeliveryState.PENDING
    assert delivery.needs_you
    assert house.receiver.url("/elsewhere") in delivery.needs_you


async def test_gone_disables_the_endpoint_and_holds_what_waits(house: House) -> None:
    """Pitfall 25: events must not vanish while an endpoint is disabled."""
    house.receiver.behave("/hook", Respond(410))
    await ended_batch(house)
    await house.deliver()
    await ended_batch_elsewhere(house)
    page = await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=9)
    assert {d.state for d in page.items} == {DeliveryState.HELD}
    house.receiver.behave("/hook", Respond(200))
    for delivery in page.items:
        await house.store.write(
            deliveries.resend, DEFAULT_PROJECT, delivery.event_id, now=house.clock()
        )
    await house.deliver()
    page = await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=9)
    assert {d.state for d in page.items} == {DeliveryState.DELIVERED}


async def ended_batch_elsewhere(house: House) -> None:
    """A second batch for the same URL, whose watch was made before the endpoint was disabled."""
    id = house.provider.add_batch(total=1)
    (made,) = await house.register(id, path="/hook")
    await house.store.write(disable, made.watch.endpoint_id)
    house.provider.finish(id, "completed")
    await house.sweep()


def disable(connection, endpoint_id: str) -> None:
    connection.execute(
        update(endpoints)
        .where(endpoints.c.id == endpoint_id)
        .values(state="disabled", reason="answered 410 Gone")
    )


async def test_a_busy_endpoint_is_left_alone_for_as_long_as_it_asks(house: House) -> None:
    house.receiver.behave("/hook", Respond(503, {"retry-after": "120"}), Respond(200))
    first = await ended_batch(house)
    await house.deliver()
    await ended_batch(house)
    house.clock.advance(60)
    await house.deliver()
    assert len(house.receiver.received) == 1, first
    house.clock.advance(80)
    await house.deliver()
    page = await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=9)
    assert {d.state for d in page.items} == {DeliveryState.DELIVERED}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("behaviour", "state", "fault"),
    [
        (Hang(), DeliveryState.PENDING, "timeout"),
        (Drip(headers_too=True), DeliveryState.PENDING, "timeout"),
        (Drip(), DeliveryState.DELIVERED, None),
        (Reset(), DeliveryState.PENDING, "connection_reset"),
        (Endless(), DeliveryState.DELIVERED, None),
        (GzipBomb(), DeliveryState.DELIVERED, None),
        (Stall(), DeliveryState.DELIVERED, None),
    ],
)
async def test_hostile_receivers_cost_their_own_time_only(
    house: House, behaviour, state: DeliveryState, fault: str | None
) -> None:
    """Pitfall 1 and pitfall 28: one slow receiver delays no webhook behind it, nor is called twice.

    The status decides: 2xx headers with an endless or stalled body are a success.
    """
    house.receiver.behave("/bad", behaviour)
    await ended_batch(house, path="/bad")
    for _ in range(3):
        await ended_batch(house, path="/good")
    await house.deliver()
    page = await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=9)
    bad = [d for d in page.items if d.url.endswith("/bad")]
    assert [d.state for d in bad] == [state]
    (attempt,) = await house.read(deliveries.list_attempts, bad[0])
    assert attempt.outcome is not None
    assert attempt.outcome.fault == fault
    assert {d.state for d in page.items if d not in bad} == {DeliveryState.DELIVERED}
    assert [h.path for h in house.receiver.received].count("/bad") == 1


async def test_an_endpoint_that_hangs_holds_eight_calls_and_the_others_go_through(
    house: House,
) -> None:
    """Pitfall 28: one slow customer must not back up everyone."""
    house.receiver.behave("/slow", Hold())
    slow = house.provider.add_batches(100)
    quick = house.provider.add_batches(20)
    await house.register(*slow, path="/slow")
    await house.register(*quick, path="/quick")
    for id in slow + quick:
        house.provider.finish(id, "completed")
    await house.sweep()
    while await house.dispatcher.step():
        pass
    await house.receiver.wait_for(20, path="/quick")
    assert len([h for h in house.receiver.received if h.path == "/slow"]) == 8
    house.receiver.behave("/slow", Respond())
    house.receiver.release()
    await house.dispatcher.calls_ended()
    await house.deliver()
    assert len({h.headers["webhook-id"] for h in house.receiver.received}) == 120


async def test_an_address_that_is_refused_is_explained_and_tried_on(house: House) -> None:
    """Pitfall 27: blocked addresses with an explanation."""
    await ended_batch(house)
    rules = AddressRules(allow_http=True)
    async with WebhookSender(lambda: rules) as sender:
        strict = Dispatcher(
            house.store,
            sender,
            clock=house.clock,
            mint=house.mint,
            rand=lambda: 0.5,
            metrics=house.metrics,
        )
        await strict.step()
        await strict.calls_ended()
    delivery = await only_delivery(house)
    assert delivery.state is DeliveryState.PENDING
    assert delivery.needs_you
    assert "BATCHBELL_ALLOW_CIDRS" in delivery.needs_you
    assert not house.receiver.received


async def test_a_crash_after_the_claim_is_an_attempt_whose_outcome_is_unknown(
    house: House,
) -> None:
    """Pitfall 25: retries must not stop after a restart."""
    await ended_batch(house)
    claim = await house.store.write(
        queue.claim_due,
        rooms={},
        room=8,
        limit=8,
        now=house.clock(),
        lease_seconds=90,
        token="died",
    )
    assert len(claim.deliveries) == 1
    await house.deliver()
    assert not house.receiver.received
    house.clock.advance(91)
    await house.deliver()
    delivery = await only_delivery(house)
    assert (delivery.state, delivery.attempts) == (DeliveryState.DELIVERED, 2)
    first, second = await house.read(deliveries.list_attempts, delivery)
    assert first.outcome is None
    assert second.outcome is not None


async def test_a_lease_that_would_run_out_during_the_call_is_given_back_uncounted(
    house: House,
) -> None:
    await ended_batch(house)
    await house.dispatcher.claim()
    house.clock.advance(3)
    house.dispatcher.start_calls()
    await house.dispatcher.calls_ended()
    assert not house.receiver.received
    delivery = await only_delivery(house)
    assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 0)


async def test_closing_gives_back_what_waits_and_ends_what_is_under_way(house: House) -> None:
    house.receiver.behave("/hook", Hold())
    ids = house.provider.add_batches(20)
    await house.register(*ids)
    for id in ids:
        house.provider.finish(id, "completed")
    await house.sweep()
    await house.dispatcher.step()
    await house.receiver.wait_for(8)
    closing = asyncio.create_task(house.dispatcher.close())
    await asyncio.sleep(0)
    house.receiver.behave("/hook", Respond())
    house.receiver.release()
    await closing
    page = await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=99)
    done = [d for d in page.items if d.state is DeliveryState.DELIVERED]
    back = [d for d in page.items if d.state is DeliveryState.PENDING]
    assert (len(done), len(back)) == (8, 12)
    assert {(d.attempts, d.lease_token) for d in back} == {(0, None)}


async def test_what_a_claim_brings_for_an_endpoint_that_shut_meanwhile_is_not_sent(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim saw the endpoint as it was before it answered 410."""
    house.receiver.behave("/hook", Hold(Respond(410)))
    ids = house.provider.add_batches(20)
    await house.register(*ids)
    for id in ids:
        house.provider.finish(id, "completed")
    await house.sweep()
    await house.dispatcher.step()
    await house.receiver.wait_for(8)
    write, claimed, told = house.store.write, asyncio.Event(), asyncio.Event()

    async def tell_late(query: object, *args: object, **kwargs: object) -> object:
        result = await write(query, *args, **kwargs)  # type: ignore[arg-type]
        if query is queue.claim_due:
            claimed.set()
            await told.wait()
        return result

    monkeypatch.setattr(house.store, "write", tell_late)
    claiming = asyncio.create_task(house.dispatcher.step())
    await claimed.wait()
    house.receiver.release()
    await house.dispatcher.calls_ended()
    told.set()
    await claiming
    await house.dispatcher.calls_ended()
    assert len(house.receiver.received) == 8
    page = await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=99)
    assert {d.state for d in page.items} == {DeliveryState.HELD}
    assert sum(d.attempts for d in page.items) == 8


async def test_the_ends_of_a_page_are_a_rush_for_a_moment_and_a_few_webhooks_are_none(
    house: House,
) -> None:
    few, many = house.provider.add_batches(10), house.provider.add_batches(RUSH)
    await house.register(*few, *many)
    for ids, rushed in ((few, False), (many, True)):
        for id in ids:
            house.provider.finish(id)
        await house.sweep()
        await house.deliver()
        assert house.dispatcher.rushed() is rushed
    house.clock.advance(RUSH_SECONDS)
    assert not house.dispatcher.rushed()


async def test_only_those_who_ask_hear_of_progress(house: House) -> None:
    id = house.provider.add_batch(total=3)
    await house.register(id, path="/default")
    await house.register(id, path="/all", events=(EventType.IN_PROGRESS, *DEFAULT_EVENTS))
    await house.sweep()
    house.provider.finish(id, "completed")
    await house.sweep()
    await house.deliver()
    heard = sorted((h.path, json.loads(h.body)["type"]) for h in house.receiver.received)
    assert heard == [
        ("/all", "batch.completed"),
        ("/all", "batch.in_progress"),
        ("/default", "batch.completed"),
    ]
    page = await house.read(events.list_events, DEFAULT_PROJECT, limit=9, delivery_success=True)
    assert len(page.items) == 2


async def test_metadata_of_a_watch_comes_back_beside_the_batchs_own(house: House) -> None:
    await ended_batch(house, metadata={"job": "42"})
    await house.deliver()
    (hook,) = house.receiver.received
    assert json.loads(hook.body)["watch"]["metadata"] == {"job": "42"}


async def test_a_failure_of_our_own_is_an_attempt_that_is_seen_and_retried(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what we cannot send would be claimed for ever, and nobody would know why."""
    await ended_batch(house)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("whsec_not-for-others")

    monkeypatch.setattr(house.sender, "begin", broken)
    await house.deliver()
    delivery = await only_delivery(house)
    assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 1)
    assert delivery.last_error == "Batchbell itself failed to send this: RuntimeError."
    monkeypatch.undo()
    await go_on(house)
    assert (await only_delivery(house)).state is DeliveryState.DELIVERED


async def test_what_cannot_be_written_is_reported_and_runs_out_with_its_lease(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it, nor does its slot stay taken."""
    await ended_batch(house)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("batchbell.workers.dispatcher.queue.settle", broken)
    await house.deliver()
    monkeypatch.undo()
    failures = {"worker": "dispatcher"}
    sample = "batchbell_worker_failures_total"
    assert house.metrics.registry.get_sample_value(sample, failures) == 1
    assert house.metrics.registry.get_sample_value("batchbell_deliveries_in_flight") == 0
    assert (await only_delivery(house)).state is DeliveryState.PENDING
    house.clock.advance(60)
    await house.deliver()
    delivery = await only_delivery(house)
    assert (delivery.state, delivery.attempts) == (DeliveryState.DELIVERED, 2)
