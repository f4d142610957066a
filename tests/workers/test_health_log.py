"""What an operator hears while things go wrong: events at an endpoint of theirs, and log lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.storage.scene import snapshot
from tests.workers.conftest import House
from tests.workers.test_endpoints import make

from batchbell.core import signing
from batchbell.core.model import DEFAULT_PROJECT, EventType, Status
from batchbell.sandbox.behaviours import Respond
from batchbell.storage import batches, deliveries
from batchbell.workers.janitor import Janitor

NOTICES = tuple(type_ for type_ in EventType if not type_.of_batch)
HOUR = 3600.0


async def end(house: House, batch_id: str) -> None:
    await house.register(batch_id, path="/broken")
    await house.store.write(
        batches.observe,
        account_id=house.account.id,
        sightings=[snapshot(batch_id, Status.COMPLETED)],
        mint=house.mint,
        now=house.clock(),
    )


async def deliver_until(house: House, end_at: float) -> None:
    """Send what becomes due until a time, the clock going on from one to the next."""
    while True:
        await house.deliver()
        page = await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=100)
        due = [one.due_at for one in page.items if one.due_at is not None]
        if not due or min(due) > end_at:
            break
        house.clock.now = max(min(due), house.clock() + 60)
    house.clock.now = max(house.clock(), end_at)


def told(house: House) -> list[dict[str, Any]]:
    """What came to the operator, in order."""
    return [json.loads(one.body) for one in house.receiver.received if one.path == "/operator"]


def lines(logs: list[Any], event: str) -> list[dict[str, Any]]:
    return [dict(line) for line in logs if line["event"] == event]


@pytest.mark.databases("sqlite")
async def test_an_outage_of_days_is_told_at_an_hour_a_day_and_three(house: House) -> None:
    await make(house, "/operator", event_types=NOTICES)
    house.receiver.behave("/broken", Respond(status=500))
    started = house.clock()
    with capture_logs() as logs:
        for day in range(4):
            await end(house, f"batch_{day}")
            await deliver_until(house, started + (day + 1) * 24 * HOUR)
        house.receiver.behave("/broken", Respond(status=200))
        await end(house, "batch_last")
        await deliver_until(house, house.clock() + HOUR)
    assert [line["hours"] for line in lines(logs, "endpoint.failing")] == [1, 24, 72]
    assert len(lines(logs, "endpoint.recovered")) == 1
    outage = [body for body in told(house) if body["type"].startswith("endpoint.")]
    assert [body["type"] for body in outage] == ["endpoint.failing"] * 4 + ["endpoint.recovered"]
    hours = [body["data"]["failing_seconds"] / HOUR for body in outage]
    assert all(lasted >= hour for lasted, hour in zip(hours, (0, 1, 24, 72, 96), strict=True))


async def test_what_was_given_up_is_told_signed_like_all_else(house: House) -> None:
    await make(house, "/operator", event_types=(EventType.DELIVERY_EXHAUSTED,))
    await make(house, "/broken", schedule=(60.0,))
    house.receiver.behave("/broken", Respond(status=500))
    await end(house, "batch_1")
    await deliver_until(house, house.clock() + 70)
    [body] = told(house)
    assert (body["type"], body["data"]["batch_id"]) == ("delivery.exhausted", "batch_1")
    assert (body["data"]["attempts"], body["data"]["last_status"]) == (2, 500)
    [request] = [one for one in house.receiver.received if one.path == "/operator"]
    now = int(request.headers["webhook-timestamp"])
    secret = signing.make_secret(bytes(24))
    assert signing.verify([secret], headers=request.headers, body=request.body, now=now)
    assert request.headers["webhook-id"] == body["id"]


async def unreachable(house: House, sweeps: int) -> list[int]:
    """After which of these sweeps a line says that the account cannot be reached."""
    said = []
    for number in range(1, sweeps + 1):
        with capture_logs() as logs:
            await house.sweep()
        said += [number] * len(lines(logs, "account.unreachable"))
    return said


async def test_an_account_that_cannot_be_reached_is_told_once_in_a_spell(house: House) -> None:
    await make(house, "/operator", event_types=NOTICES)
    await house.register(*house.provider.add_batches(2))
    await house.sandbox.stop()
    began = house.clock()
    assert await unreachable(house, 6) == [3]
    await house.sandbox.start()
    await house.sweep()
    await house.sandbox.stop()
    assert await unreachable(house, 4) == [3]
    await house.deliver()
    first, second = told(house)
    assert first["type"] == second["type"] == "account.unreachable"
    data = first["data"]
    assert (data["account"], data["provider"]) == ("openai", "openai")
    assert began <= data["since"] < first["created_at"]
    assert second["data"]["since"] > first["created_at"]
    assert data["reason"]


async def test_a_refused_key_is_told_at_once(house: House) -> None:
    await make(house, "/operator", event_types=NOTICES)
    await house.register(*house.provider.add_batches(1))
    house.provider.faults.add("unauthorized", times=None)
    assert await unreachable(house, 3) == [1]
    await house.deliver()
    assert [body["type"] for body in told(house)] == ["account.unreachable"]


async def test_deliveries_that_nobody_sends_are_said_aloud(house: House) -> None:
    await end(house, "batch_1")
    keep = {"retention_days": 30.0, "attempt_retention_days": 30.0}
    janitor = Janitor(house.store, clock=house.clock, **keep)
    for seconds, said in ((59, 0), (60, 1), (30, 0), (31, 1)):
        house.clock.advance(seconds)
        with capture_logs() as logs:
            await janitor.step()
        assert len(lines(logs, "deliveries.late")) == said, seconds
