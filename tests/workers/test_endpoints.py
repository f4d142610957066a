"""Endpoints that hear of a whole project, called as they wish."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from tests.storage.scene import snapshot
from tests.workers.conftest import House

from batchbell.core import signing
from batchbell.core.model import DEFAULT_EVENTS, DEFAULT_PROJECT, EventType, Status
from batchbell.sandbox.behaviours import Respond
from batchbell.storage import batches, deliveries, endpoints, projects
from batchbell.storage.sealing import key_id
from batchbell.workers.dispatcher import IDLE_SECONDS, TOKEN_SECONDS

SECRET = signing.make_secret(bytes(24))


async def make(house: House, path: str, *, project: str = DEFAULT_PROJECT, **more: Any) -> str:
    wishes = endpoints.EndpointFields(
        url=house.receiver.url(path), name=path, event_types=DEFAULT_EVENTS
    )
    made = await house.store.write(
        endpoints.create,
        project,
        replace(wishes, **more),
        secret=SECRET,
        mint=house.mint,
        now=house.clock(),
    )
    return made.id


async def end(house: House, batch_id: str, **told: Any) -> None:
    """A batch that is watched at /watched ends."""
    await house.register(batch_id, path="/watched")
    await house.store.write(
        batches.observe,
        account_id=house.account.id,
        sightings=[snapshot(batch_id, Status.COMPLETED, **told)],
        mint=house.mint,
        now=house.clock(),
    )


async def test_it_is_called_beside_the_watch_signed_with_its_own_secret(house: House) -> None:
    await make(house, "/all", headers={"X-Team": "night"})
    await end(house, "batch_1")
    await house.deliver()
    assert house.receiver.counts == {"/watched": 1, "/all": 1}
    [request] = [one for one in house.receiver.received if one.path == "/all"]
    now = int(request.headers["webhook-timestamp"])
    assert signing.verify([SECRET], headers=request.headers, body=request.body, now=now)
    assert request.headers["x-team"] == "night"
    [other] = [one for one in house.receiver.received if one.path == "/watched"]
    assert "x-team" not in other.headers
    assert not signing.verify([SECRET], headers=other.headers, body=other.body, now=now)


async def test_what_does_not_pass_its_filters_is_not_told(house: House) -> None:
    await make(house, "/failed", event_types=(EventType.FAILED,))
    await make(house, "/elsewhere", accounts=("mars",))
    await make(house, "/nights", metadata={"when": "night"})
    await end(house, "batch_1", metadata={"when": "day"})
    await end(house, "batch_2", metadata={"when": "night", "more": "yes"})
    await house.deliver()
    assert house.receiver.counts == {"/watched": 2, "/nights": 1}


async def test_another_projects_endpoint_hears_nothing(house: House) -> None:
    await house.store.write(projects.ensure_project, id="other", secret=SECRET, now=house.clock())
    await make(house, "/theirs", project="other")
    await end(house, "batch_1")
    await house.deliver()
    assert house.receiver.counts == {"/watched": 1}


async def test_its_own_schedule_is_kept(house: House) -> None:
    id = await make(house, "/all", schedule=(60.0,))
    house.receiver.behave("/all", Respond(status=500))
    await end(house, "batch_1")
    started = house.clock()
    await house.deliver()
    page = await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=10)
    [waiting] = [one for one in page.items if one.endpoint_id == id]
    assert waiting.due_at is not None
    assert 60 <= waiting.due_at - started <= 66
    house.clock.now = waiting.due_at
    await house.deliver()
    done = await house.read(deliveries.get_delivery, DEFAULT_PROJECT, waiting.id)
    assert (done.state, done.attempts) == ("exhausted", 2)


async def test_a_longer_timeout_has_a_longer_lease(house: House) -> None:
    """Nothing is sent under a lease that the call might outlive, and no attempt is lost by it."""
    id = await make(house, "/slow", timeout_seconds=30.0)
    await end(house, "batch_1")
    await house.deliver()
    page = await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=10)
    [done] = [one for one in page.items if one.endpoint_id == id]
    assert (done.state, done.attempts) == ("delivered", 1)


async def test_a_deleted_endpoint_is_called_no_more(house: House) -> None:
    id = await make(house, "/all")
    await end(house, "batch_1")
    await house.store.write(endpoints.remove, DEFAULT_PROJECT, id, now=house.clock())
    await end(house, "batch_2")
    await house.deliver()
    assert house.receiver.counts == {"/watched": 2}


async def test_an_ordered_endpoint_hears_one_by_one_and_waits_for_a_retry(house: House) -> None:
    await make(house, "/all", ordered=True)
    house.receiver.behave("/all", Respond(status=500), Respond(status=200))
    for n in range(4):
        await end(house, f"batch_{n}")
    await house.deliver()
    assert house.receiver.counts == {"/watched": 4, "/all": 1}
    house.clock.advance(6)
    await house.deliver()
    told = [one for one in house.receiver.received if one.path == "/all"]
    ids = [json.loads(one.body)["data"]["id"] for one in told]
    assert ids == ["batch_0", "batch_0", "batch_1", "batch_2", "batch_3"]


async def test_what_follows_an_ordered_delivery_is_asked_for_at_once(house: House) -> None:
    """Nobody waits for the idle step: who has settled one looks for the next."""
    await make(house, "/all", ordered=True)
    await end(house, "batch_1")
    await end(house, "batch_2")
    await house.dispatcher.step()
    await house.dispatcher.calls_ended()
    assert await house.dispatcher.signal.wait(0.0)


async def test_a_rate_is_kept_and_the_dispatcher_comes_back_for_the_next_call(
    house: House,
) -> None:
    id = await make(house, "/all", rate_limit=2.0)
    for n in range(4):
        await end(house, f"batch_{n}")
    await house.deliver()
    assert house.receiver.counts == {"/watched": 4, "/all": 2}
    assert await house.dispatcher.idle_seconds() == pytest.approx(0.5)
    house.clock.advance(0.5)
    await house.deliver()
    assert house.receiver.counts["/all"] == 3
    house.clock.advance(0.5)
    await house.deliver()
    page = await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=10)
    assert [one.attempts for one in page.items if one.endpoint_id == id] == [1, 1, 1, 1]
    assert await house.dispatcher.idle_seconds() == IDLE_SECONDS


@pytest.mark.databases("sqlite")
async def test_a_high_rate_is_not_looked_after_oftener_than_need_be(house: House) -> None:
    await make(house, "/all", rate_limit=50.0)
    for n in range(55):
        await end(house, f"batch_{n}")
    await house.deliver()
    assert house.receiver.counts["/all"] == 50
    assert await house.dispatcher.idle_seconds() == TOKEN_SECONDS


BROKEN = "sealed1.00000000.AAAA"


async def damage(house: House, column: str, id: str) -> None:
    """As a bad disk or a careless hand would: sealed under a key that is here, and changed."""
    key = key_id(house.store.keys.keys[0])
    broken = BROKEN.replace("00000000", key)
    update = text(f"UPDATE endpoints SET {column} = :broken WHERE id = :id")
    await house.store.write(lambda c: c.execute(update, {"broken": broken, "id": id}))


@pytest.mark.parametrize("column", ["secrets", "headers"])
async def test_one_whose_secrets_are_damaged_fails_alone_and_says_what_to_do(
    house: House, column: str
) -> None:
    broken = await make(house, "/broken", headers={"X-Team": "night"})
    await damage(house, column, broken)
    await end(house, "batch_1")
    await house.deliver()

    assert house.receiver.counts == {"/watched": 1}
    page = await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=10)
    [failed] = [one for one in page.items if one.endpoint_id == broken]
    assert (failed.state, failed.attempts) == ("pending", 1)
    assert failed.needs_you is not None
    assert f"endpoints.{column} does not open" in failed.needs_you

    rotated = {"secret": SECRET, "grace_seconds": 60.0, "now": house.clock()}
    await house.store.write(endpoints.rotate, DEFAULT_PROJECT, broken, **rotated)
    headers = {"headers": {"X-Team": "day"}}
    await house.store.write(endpoints.change, DEFAULT_PROJECT, broken, headers, now=house.clock())
    house.clock.advance(10)
    await house.deliver()
    assert house.receiver.counts == {"/watched": 1, "/broken": 1}
