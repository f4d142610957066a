"""Lines of results that travel in webhooks: read when they are sent, and not before."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import update
from tests.workers.conftest import House
from tests.workers.test_dispatcher import only_delivery

from batchbell.core.attachment import ResultsMode, ResultsState
from batchbell.core.errors import StoreUnavailable
from batchbell.core.model import DeliveryState
from batchbell.core.results import INLINE_WAIT_SECONDS
from batchbell.storage.schema import results

LINES = '[{"custom_id":"a"},{"custom_id":"b"}]'
READ = "batchbell.workers.dispatcher.with_lines"


async def merged(house: House, *, mode: ResultsMode = ResultsMode.INLINE) -> None:
    """A batch has ended, its results are merged, and its webhook is due."""
    id = house.provider.add_batch(total=2)
    await house.register(id, results=mode)
    house.provider.finish(id, "completed")
    await house.sweep()
    there = {"state": ResultsState.READY, "due_at": None, "ended_at": 1.0, "lines": 2, "size": 40}
    await house.store.write(
        lambda c: c.execute(update(results).values(inline=LINES, **there)) and None
    )
    house.clock.advance(INLINE_WAIT_SECONDS)


def told(house: House) -> Any:
    [hook] = house.receiver.received
    return json.loads(hook.body)["data"]["results"]


async def test_what_waits_to_be_sent_holds_no_lines(house: House) -> None:
    """2,000 may wait, with 256 KiB each."""
    await merged(house)
    await house.dispatcher.claim()
    [waiting] = house.dispatcher._ring.empty()
    assert waiting.carries_lines
    assert waiting.attachment is not None
    assert waiting.attachment.inline is None


async def test_lines_are_read_when_they_are_sent(house: House) -> None:
    await merged(house)
    await house.deliver()
    assert told(house)["inline"] == json.loads(LINES)
    assert (await only_delivery(house)).state is DeliveryState.DELIVERED


async def test_whoever_wants_a_link_causes_no_further_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await merged(house, mode=ResultsMode.LINK)
    monkeypatch.setattr(READ, None)
    await house.deliver()
    assert "inline" not in told(house)
    assert (await only_delivery(house)).state is DeliveryState.DELIVERED


async def test_results_that_go_meanwhile_do_not_keep_the_webhook(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await merged(house)
    monkeypatch.setattr(READ, lambda *_: None)
    await house.deliver()
    [hook] = house.receiver.received
    assert "results" not in json.loads(hook.body)["data"]


async def test_lines_that_cannot_be_read_now_are_sent_after_the_lease(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await merged(house)

    def away(*_: object) -> None:
        raise StoreUnavailable("no")

    monkeypatch.setattr(READ, away)
    await house.deliver()
    monkeypatch.undo()
    assert not house.receiver.received
    assert house.metrics.registry.get_sample_value("batchbell_deliveries_in_flight") == 0
    house.clock.advance(60)
    await house.deliver()
    assert told(house)["inline"] == json.loads(LINES)


async def test_a_failure_of_our_own_to_read_lines_is_an_attempt(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await merged(house)

    def broken(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(READ, broken)
    await house.deliver()
    delivery = await only_delivery(house)
    assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 1)
    assert delivery.last_error == "Batchbell itself failed to send this: RuntimeError."


async def test_lines_that_take_longer_than_the_lease_allows_go_back_uncounted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await merged(house)

    def slow(*_: object) -> None:
        house.clock.advance(3)
        house.dispatcher.start_calls = lambda: None  # type: ignore[method-assign] # once is enough

    monkeypatch.setattr(READ, slow)
    await house.dispatcher.claim()
    house.dispatcher.start_calls()
    await house.dispatcher.calls_ended()
    assert not house.receiver.received
    delivery = await only_delivery(house)
    assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 0)
