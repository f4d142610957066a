"""What one receiver does must change nothing for the others."""

from __future__ import annotations

import pytest
from tests.workers.conftest import House

from batchbell.core.model import DEFAULT_PROJECT, DeliveryState
from batchbell.sandbox import Drip, Endless, Garbage, GzipBomb, Hang, Hold, Reset, Respond
from batchbell.storage import deliveries, queue

FLOOD = 4_750
HEALTHY = 250
BULK = 1_000
SLOW_SECONDS = 0.3


async def due(house: House, number: int, path: str) -> None:
    """Deliveries that are due now: watches of a batch that has ended, each made in bulk."""
    for start in range(0, number, BULK):
        ids = house.provider.add_batches(min(BULK, number - start))
        await house.register(*ids, path=path)
        for id in ids:
            house.provider.finish(id, "completed")
    await house.sweep()


async def test_an_endpoint_that_owns_95_percent_of_what_waits_delays_no_other(
    house: House,
) -> None:
    """Pitfall 28: claimed flat by age, the flood would be sent first, eight by eight."""
    house.receiver.behave("/flooded", Respond(delay_seconds=SLOW_SECONDS))
    await due(house, FLOOD, "/flooded")
    for endpoint in range(10):
        await due(house, HEALTHY // 10, f"/healthy/{endpoint}")
    sent_before_the_last = {}

    def note(hook) -> Respond:
        sent_before_the_last[hook.path] = house.receiver.counts["/flooded"]
        return Respond()

    for endpoint in range(10):
        house.receiver.behave(f"/healthy/{endpoint}", note)
    while any(house.receiver.counts[f"/healthy/{n}"] < HEALTHY // 10 for n in range(10)):
        if not await house.dispatcher.step():
            await house.dispatcher.signal.wait(1.0)
    # Eight at a time, 0.3 s each: the flood advances by 27 a second, whatever waits behind it.
    assert max(sent_before_the_last.values()) < FLOOD / 10
    house.receiver.behave("/flooded", Respond())


@pytest.mark.databases("sqlite")
async def test_each_bad_receiver_among_fifty_leaves_the_others_alone(house: House) -> None:
    """Pitfall 1: serial sweeps let one slow receiver delay all behind it."""
    bad = [Hang(), Drip(headers_too=True), Endless(), GzipBomb(8), Reset(), Garbage(), Hold()]
    for number, behaviour in enumerate(bad):
        house.receiver.behave(f"/bad/{number}", behaviour)
        await due(house, 20, f"/bad/{number}")
    for number in range(43):
        await due(house, 4, f"/good/{number}")
    while any(house.receiver.counts[f"/good/{n}"] < 4 for n in range(43)):
        if not await house.dispatcher.step():
            await house.dispatcher.signal.wait(1.0)
    assert house.receiver.counts["/bad/0"] <= 20, "what hangs is not called again meanwhile"
    house.receiver.release()
    await house.dispatcher.close()
    page = await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=1000)
    good = [d for d in page.items if "/good/" in d.url]
    assert len(good) == 172
    assert {d.state for d in good} == {DeliveryState.DELIVERED}


async def test_leases_that_become_too_short_together_are_given_back_together(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the writes of one endpoint that hangs would hold up the others' deliveries."""
    groups, give_back = [], queue.give_back

    def noted(connection, claimed, *, now):
        groups.append(len(claimed))
        give_back(connection, claimed, now=now)

    monkeypatch.setattr(queue, "give_back", noted)
    await due(house, 20, "/hook")
    for _ in range(2):
        await house.dispatcher.claim()
    house.clock.advance(3)
    house.dispatcher.start_calls()
    await house.dispatcher.calls_ended()
    assert sum(groups) == 20
    assert len(groups) < 5, groups
