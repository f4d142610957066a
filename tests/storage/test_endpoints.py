"""Endpoints of one's own: kept, changed, rotated and gone, on both databases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from batchbell.core import signing
from batchbell.core.errors import InvalidRequest, NotFound
from batchbell.core.model import DEFAULT_PROJECT, EventType
from batchbell.storage import endpoints, health, watches
from batchbell.storage.endpoints import EndpointFields, Known
from batchbell.storage.watches import Registration
from tests.storage.scene import GONE, URL, Scene

WISHES = EndpointFields(
    url=URL,
    name="nightly",
    event_types=(EventType.COMPLETED, EventType.LOST),
    description="of the night",
    accounts=("openai",),
    metadata={"when": "night"},
    headers={"X-Team": "night"},
    timeout_seconds=20.0,
    schedule=(1.0, 60.0),
    rate_limit=2.5,
    ordered=True,
)


def secret(number: int) -> str:
    return signing.make_secret(bytes([number] * 24))


async def make(scene: Scene, fields: EndpointFields = WISHES) -> Known:
    return await scene.store.write(
        endpoints.create,
        DEFAULT_PROJECT,
        fields,
        secret=secret(0),
        mint=scene.mint,
        now=scene.clock(),
    )


async def do(scene: Scene, step: Any, id: str, *args: Any, **more: Any) -> Any:
    return await scene.store.write(step, DEFAULT_PROJECT, id, *args, now=scene.clock(), **more)


async def test_every_wish_is_kept(scene: Scene) -> None:
    made = await make(scene)
    assert made.fields == WISHES
    assert made.endpoint.schedule == (0.0, 1.0, 60.0)
    assert made.endpoint.secrets == (secret(0),)
    assert await do(scene, endpoints.get, made.id) == made


async def test_several_may_have_the_same_url_and_a_watch_makes_one_more(scene: Scene) -> None:
    ids = {(await make(scene)).id, (await make(scene)).id}
    [first], [second] = await scene.register("batch_1"), await scene.register("batch_2")
    assert first.watch.endpoint_id == second.watch.endpoint_id
    assert len(ids | {first.watch.endpoint_id}) == 3


async def test_a_change_touches_what_it_names_and_only_a_change_is_dated(scene: Scene) -> None:
    made = await make(scene)
    scene.clock.advance(10)
    assert await do(scene, endpoints.change, made.id, {"name": "nightly"}) == made
    changed = await do(scene, endpoints.change, made.id, {"description": None, "schedule": ()})
    assert (changed.fields.description, changed.endpoint.schedule) == (None, (0.0,))
    assert changed.fields.headers == WISHES.headers
    assert changed.updated_at == scene.clock()


async def test_each_secret_signs_until_its_own_time(scene: Scene) -> None:
    id = (await make(scene)).id
    await do(scene, endpoints.rotate, id, secret=secret(1), grace_seconds=100.0)
    scene.clock.advance(50)
    rotated = await do(scene, endpoints.rotate, id, secret=secret(2), grace_seconds=100.0)
    assert rotated.endpoint.secrets == (secret(2), secret(1), secret(0))
    scene.clock.advance(50)
    assert (await do(scene, endpoints.get, id)).endpoint.secrets == (secret(2), secret(1))
    scene.clock.advance(50)
    assert (await do(scene, endpoints.get, id)).endpoint.secrets == (secret(2),)


async def test_without_grace_no_older_secret_signs(scene: Scene) -> None:
    id = (await make(scene)).id
    await do(scene, endpoints.rotate, id, secret=secret(1), grace_seconds=100.0)
    rotated = await do(scene, endpoints.rotate, id, secret=secret(2), grace_seconds=0.0)
    assert rotated.endpoint.secrets == (secret(2),)


async def test_the_endpoint_of_a_watched_url_is_not_changed(scene: Scene) -> None:
    [registered] = await scene.register("batch_1")
    id = registered.watch.endpoint_id
    with pytest.raises(InvalidRequest, match="watched"):
        await do(scene, endpoints.change, id, {"name": "mine"})
    with pytest.raises(InvalidRequest, match="watched"):
        await do(scene, endpoints.rotate, id, secret=secret(1), grace_seconds=0.0)


async def test_another_url_begins_anew(scene: Scene) -> None:
    id = (await make(scene)).id
    await scene.register("batch_1", endpoint_id=id)
    await scene.end("batch_1")
    await scene.settle((await scene.claim()).deliveries, GONE)
    assert (await do(scene, endpoints.get, id)).endpoint.state == "disabled"
    moved = await do(scene, endpoints.change, id, {"url": "https://moved.example/", "headers": {}})
    assert (moved.endpoint.state, moved.endpoint.reason) == ("active", None)


async def test_a_url_whose_endpoint_was_deleted_can_be_watched_again(scene: Scene) -> None:
    [first] = await scene.register("batch_1")
    await scene.end("batch_1")
    await do(scene, endpoints.remove, first.watch.endpoint_id)
    assert await scene.deliveries() == []
    with pytest.raises(NotFound):
        await do(scene, endpoints.get, first.watch.endpoint_id)
    [again] = await scene.register("batch_1")
    assert again.created
    assert again.watch.endpoint_id != first.watch.endpoint_id
    assert len(await scene.deliveries()) == 1


async def test_a_deleted_endpoint_goes_in_bounded_steps_and_nobody_sees_the_rest(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "STEP", 2)
    made = await make(scene, replace(WISHES, metadata=None))
    ids = [f"batch_{n}" for n in range(5)]
    wanted = [
        Registration(account_id=scene.account.id, batch_id=id, endpoint_id=made.id) for id in ids
    ]
    await scene.register_all(wanted)
    await scene.end(*ids)
    assert len((await scene.claim(limit=1)).deliveries) == 1
    await do(scene, endpoints.remove, made.id)
    left = await scene.deliveries()
    assert len(left) == 3, "one is under way"
    assert (await scene.store.read(watches.list_watches, DEFAULT_PROJECT, limit=9)).items == []
    await scene.register("batch_5", url="https://other.example/")
    await scene.end("batch_5")
    forget = endpoints.forget_all_deleted
    assert await scene.store.write(forget, now=scene.clock()) == 4
    assert await scene.store.write(forget, now=scene.clock()) == 1
    assert await scene.store.write(forget, now=scene.clock()) == 0
    scene.clock.advance(60)
    assert await scene.store.write(forget, now=scene.clock()) == 1, "whoever sent it is dead"
    (other,) = await scene.deliveries()
    assert other.batch_id == "batch_5"


async def test_what_a_dead_worker_held_of_a_disabled_endpoint_is_set_aside(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2")
    first, _ = (await scene.claim()).deliveries
    await scene.settle([first], GONE)
    hold = health.hold_back_disabled
    assert await scene.store.write(hold, now=scene.clock()) == 0, "it is under way"
    scene.clock.advance(60)
    assert await scene.store.write(hold, now=scene.clock()) == 1
    assert [one.state for one in await scene.deliveries()] == ["held", "held"]


async def test_a_project_has_so_many_endpoints_and_no_more(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "ENDPOINTS_MAX", 2)
    await scene.register("batch_1")
    first, _ = await make(scene), await make(scene)
    with pytest.raises(InvalidRequest, match="may not have more") as refused:
        await make(scene)
    assert refused.value.code == "too_many_endpoints"
    await do(scene, endpoints.remove, first.id)
    assert (await make(scene)).managed


async def test_what_waits_is_counted_up_to_a_bound(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.due("batch_1", "batch_2", "batch_3")
    (one,) = (await scene.claim(limit=1)).deliveries
    counts = await scene.store.read(health.count_waiting, one.endpoint_id)
    assert counts == {"pending": 3, "held": 0}
    monkeypatch.setattr(health, "COUNT_MOST", 2)
    assert (await scene.store.read(health.count_waiting, one.endpoint_id))["pending"] == 2
