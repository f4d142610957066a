"""Events about no batch: written with what caused them, to those who asked, and forgotten."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from batchbell.core.model import (
    DEFAULT_EVENTS,
    DEFAULT_PROJECT,
    DeliveryState,
    Event,
    EventType,
    Outcome,
)
from batchbell.core.notices import Notice
from batchbell.core.replay import ReplayFilter, ReplayStatus
from batchbell.core.samples import sample_body
from batchbell.storage import (
    deliveries,
    endpoints,
    outbox,
    projects,
    queue,
    replays,
    retention,
)
from batchbell.storage.endpoints import EndpointFields
from tests.storage.scene import BROKEN, GONE, OK, Scene

NOTICES = tuple(type_ for type_ in EventType if not type_.of_batch)
OPERATOR = "https://operator.example/hook"
OTHER = "https://other.example/hook"


async def listen(scene: Scene, url: str = OPERATOR, **wishes: Any) -> str:
    wanted = EndpointFields(url=url, name="operator", event_types=NOTICES)
    made = await scene.store.write(
        endpoints.create,
        DEFAULT_PROJECT,
        replace(wanted, **wishes),
        secret="whsec_" + "A" * 32,
        mint=scene.mint,
        now=scene.clock(),
    )
    return made.id


async def happen(scene: Scene, type_: EventType, **data: Any) -> None:
    notice = Notice(type=type_, project_id=DEFAULT_PROJECT, at=scene.clock(), data=data)
    await scene.store.write(outbox.announce, [notice], mint=scene.mint, now=scene.clock())


async def told(scene: Scene) -> list[Event]:
    return [event for event in await scene.events() if not event.type.of_batch]


def data_of(event: Event) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(event.body)["data"]
    return data


async def try_all(scene: Scene, outcome: Outcome) -> None:
    await scene.settle((await scene.claim()).deliveries, outcome)


async def test_an_endpoint_that_is_gone_is_told_to_another(scene: Scene) -> None:
    operator = await listen(scene)
    await scene.due("batch_1")
    await try_all(scene, GONE)
    [event] = await told(scene)
    assert (event.type, event.batch_id) == (EventType.ENDPOINT_DISABLED, None)
    [gone, telling] = await scene.deliveries()
    assert data_of(event)["id"] == gone.endpoint_id
    assert (telling.endpoint_id, telling.event_id) == (operator, event.id)
    assert (telling.batch_id, telling.state) == (None, DeliveryState.PENDING)
    [claimed] = (await scene.claim()).deliveries
    assert claimed.event_body == event.body
    assert await scene.settle([claimed]) == {telling.id}


async def test_what_nobody_asked_for_is_not_written(scene: Scene) -> None:
    await listen(scene, event_types=(*DEFAULT_EVENTS, EventType.PING))
    await scene.due("batch_1", url=OTHER)
    await try_all(scene, GONE)
    assert await told(scene) == []


async def test_an_endpoint_is_not_told_of_itself(scene: Scene) -> None:
    await listen(scene, event_types=tuple(EventType))
    await scene.due("batch_1", url=OTHER)
    await try_all(scene, GONE)
    assert [data_of(event)["url"] for event in await told(scene)] == [OTHER]


async def test_an_outage_is_told_with_the_change_itself(scene: Scene) -> None:
    await listen(scene)
    await scene.due(*(f"batch_{n}" for n in range(6)))
    await scene.settle((await scene.claim(room=4)).deliveries, BROKEN)
    scene.clock.advance(60)
    await scene.settle((await scene.claim(room=1)).deliveries, BROKEN)
    [failing] = await told(scene)
    assert failing.type is EventType.ENDPOINT_FAILING
    said = data_of(failing)
    assert (said["opened_at"], said["next_probe_at"]) == (scene.clock(), scene.clock() + 30)
    assert (said["failures"], said["failing_seconds"]) == (5, 60)
    scene.clock.advance(30)
    await try_all(scene, OK)
    assert [event.type for event in await told(scene)][1:] == [EventType.ENDPOINT_RECOVERED]


async def test_a_delivery_that_was_given_up_is_told_and_the_telling_is_not(scene: Scene) -> None:
    await listen(scene)
    await listen(scene, url=OTHER)
    await scene.due("batch_1")
    [claimed] = (await scene.claim()).deliveries
    last = structs.replace(scene.tried(claimed, BROKEN).settlement, state=DeliveryState.EXHAUSTED)
    tried = structs.replace(
        scene.tried(claimed, BROKEN), settlement=structs.replace(last, due_at=None)
    )
    settle = queue.settle
    await scene.store.write(settle, [tried], mint=scene.mint, now=scene.clock())
    [event] = await told(scene)
    [given_up, *_] = await scene.deliveries()
    sample = sample_body("evt_1", EventType.DELIVERY_EXHAUSTED, project_id="default", now=1.0)
    assert list(data_of(event)) == list(json.loads(sample)["data"])[:-1]
    assert data_of(event) == {
        "id": given_up.id,
        "event_id": given_up.event_id,
        "event_type": "batch.completed",
        "batch_id": "batch_1",
        "account": "openai",
        "endpoint_id": given_up.endpoint_id,
        "url": given_up.url,
        "attempts": 1,
        "last_status": 500,
        "last_error": "HTTP 500",
        "needs_you": None,
    }
    tellings = (await scene.claim()).deliveries
    assert len(tellings) == 2
    give_up = queue.give_up
    await scene.store.write(give_up, tellings, mint=scene.mint, now=scene.clock())
    assert len(await told(scene)) == 1


async def test_what_was_cut_short_for_the_last_time_is_told(scene: Scene) -> None:
    await listen(scene)
    await scene.due("batch_1")
    claimed = (await scene.claim()).deliveries
    give_up = queue.give_up
    await scene.store.write(give_up, claimed, mint=scene.mint, now=scene.clock())
    [event] = await told(scene)
    assert data_of(event)["needs_you"]
    await scene.store.write(give_up, claimed, mint=scene.mint, now=scene.clock())
    assert len(await told(scene)) == 1, "the lease is gone"


@pytest.mark.parametrize(
    ("wishes", "heard"),
    [
        ({}, ["account.unreachable", "endpoint.failing"]),
        ({"accounts": ("openai",)}, ["account.unreachable", "endpoint.failing"]),
        ({"accounts": ("mars",)}, ["endpoint.failing"]),
        ({"metadata": {"team": "night"}}, []),
        ({"event_types": (EventType.ENDPOINT_FAILING,)}, ["endpoint.failing"]),
    ],
)
async def test_filters_keep_what_is_not_theirs(
    scene: Scene, wishes: dict[str, Any], heard: list[str]
) -> None:
    await listen(scene, **wishes)
    await happen(scene, EventType.ACCOUNT_UNREACHABLE, account="openai")
    await happen(scene, EventType.ENDPOINT_FAILING, id="whe_other")
    assert [event.type for event in await told(scene)] == heard


async def test_another_project_is_told_nothing(scene: Scene) -> None:
    await listen(scene)
    await scene.store.write(
        projects.ensure_project, id="other", secret="whsec_x", now=scene.clock()
    )
    theirs = Notice(type=EventType.ENDPOINT_FAILING, project_id="other", at=1.0, data={"id": "x"})
    await scene.store.write(outbox.announce, [theirs], mint=scene.mint, now=scene.clock())
    assert await told(scene) == []


async def test_what_a_disabled_operator_misses_is_held(scene: Scene) -> None:
    id = await listen(scene)
    await happen(scene, EventType.ENDPOINT_FAILING, id="whe_other")
    await try_all(scene, GONE)
    await happen(scene, EventType.ENDPOINT_FAILING, id="whe_other")
    assert [one.state for one in await scene.deliveries()] == [DeliveryState.HELD] * 2
    await scene.store.write(endpoints.enable_again, DEFAULT_PROJECT, id, now=scene.clock())
    assert len(await replayed(scene, ReplayStatus.HELD)) == 2


async def replayed(scene: Scene, status: ReplayStatus) -> list[str]:
    """What a replay makes due at once."""
    await scene.store.write(
        replays.create,
        DEFAULT_PROJECT,
        ReplayFilter(status=status),
        replays.Counted(0, 0),
        mint=scene.mint,
        now=scene.clock(),
    )
    claimed = await scene.store.write(
        replays.claim_due, now=scene.clock(), lease_seconds=60.0, token="mine"
    )
    assert claimed is not None
    await scene.store.write(replays.step, claimed, mint=scene.mint, now=scene.clock())
    scene.clock.advance(1)
    return [one.event_id for one in (await scene.claim()).deliveries]


async def test_a_notice_is_sent_again_and_replayed_like_all_else(scene: Scene) -> None:
    await listen(scene)
    await happen(scene, EventType.ENDPOINT_FAILING, id="whe_other")
    [event] = await told(scene)
    await try_all(scene, OK)
    [again] = await scene.store.write(
        deliveries.resend, DEFAULT_PROJECT, event.id, now=scene.clock()
    )
    assert (again.event_id, again.state) == (event.id, DeliveryState.PENDING)
    await try_all(scene, OK)
    await scene.due("batch_1", url=OTHER)
    await try_all(scene, OK)
    [*_, ended] = await scene.events()
    assert set(await replayed(scene, ReplayStatus.ALL)) == {event.id, ended.id}


async def forget(scene: Scene, *, days: float = 1, limit: int = 10) -> int:
    before = scene.clock() - days * 86_400
    return await scene.store.write(retention.forget_notices, before=before, limit=limit)


async def test_old_notices_are_forgotten_unless_they_wait(scene: Scene) -> None:
    operator = await listen(scene)
    for _ in range(5):
        await happen(scene, EventType.ENDPOINT_FAILING, id="whe_other")
    await scene.due("batch_1")
    claimed = (await scene.claim()).deliveries
    [waits, *_] = [one for one in claimed if one.endpoint_id == operator]
    await scene.settle([one for one in claimed if one is not waits])
    await scene.store.write(queue.give_back, [waits], now=scene.clock())
    assert await forget(scene) == 0
    scene.clock.advance(86_401)
    assert [await forget(scene, limit=3) for _ in range(3)] == [3, 1, 0]
    assert len(await told(scene)) == 1
    assert len(await scene.events(type=EventType.COMPLETED)) == 1, "a batch's go with the batch"
