"""Batches that we come to know by their own looks."""

from __future__ import annotations

from typing import Any

import pytest

from batchbell.core.errors import InvalidRequest
from batchbell.core.model import DEFAULT_PROJECT, EventType, Status
from batchbell.storage import accounts, batches, endpoints, sweeps
from batchbell.storage.sweeps import Adopted, Find
from batchbell.storage.watches import Registration
from tests.storage.scene import URL, Scene, snapshot


async def adopt(scene: Scene, *finds: Find) -> Adopted:
    return await scene.store.write(
        sweeps.adopt,
        DEFAULT_PROJECT,
        scene.account.id,
        finds,
        mint=scene.mint,
        now=scene.clock(),
    )


def find(scene: Scene, id: str, status: Status, *urls: str, **more: Any) -> Find:
    registrations = [
        Registration(account_id=scene.account.id, batch_id=id, url=url) for url in urls
    ]
    return Find(snapshot=snapshot(id, status), registrations=registrations, **more)


async def test_a_running_batch_is_known_as_it_was_seen(scene: Scene) -> None:
    adopted = await adopt(scene, find(scene, "b", Status.IN_PROGRESS, URL))
    [registered] = adopted.watches
    assert (registered.watch.url, registered.created) == (URL, True)
    kept = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "b")
    assert (kept.status, kept.snapshot) == (
        Status.IN_PROGRESS,
        snapshot("b", Status.IN_PROGRESS),
    )
    assert await scene.deliveries() == []
    await scene.end("b")
    [delivery] = await scene.deliveries()
    assert (delivery.batch_id, delivery.url) == ("b", URL)


async def test_one_that_has_ended_is_told_of_at_once_and_once(scene: Scene) -> None:
    for _ in range(2):
        await adopt(scene, find(scene, "b", Status.FAILED, URL))
    [delivery] = await scene.deliveries()
    assert delivery.event_type is EventType.FAILED


async def test_whoever_hears_of_the_whole_project_hears_of_it(scene: Scene) -> None:
    await scene.store.write(
        endpoints.create,
        DEFAULT_PROJECT,
        endpoints.EndpointFields(name="all", url=URL, event_types=(EventType.COMPLETED,)),
        secret="whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
        mint=scene.mint,
        now=scene.clock(),
    )
    await adopt(scene, find(scene, "b", Status.COMPLETED))
    [delivery] = await scene.deliveries()
    assert (delivery.url, delivery.watch_id) == (URL, None)


async def test_one_that_is_known_only_gains(scene: Scene) -> None:
    await scene.register("b")
    await scene.end("b", status=Status.EXPIRED)
    await adopt(scene, find(scene, "b", Status.IN_PROGRESS, "https://other.example/"))
    kept = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "b")
    assert kept.status is Status.EXPIRED
    assert [one.url for one in await scene.deliveries()] == [URL, "https://other.example/"]


async def test_why_its_own_webhook_is_not_called_stays_with_it(scene: Scene) -> None:
    await adopt(scene, find(scene, "b", Status.IN_PROGRESS, refused="no\0pe"))
    await scene.end("b")
    kept = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "b")
    assert kept.webhook_refused == "no\ufffdpe"


async def test_many_are_adopted_at_once(scene: Scene) -> None:
    ids = [f"b{n:03}" for n in range(120)]
    finds = [find(scene, id, Status.IN_PROGRESS, URL) for id in reversed(ids)]
    assert len((await adopt(scene, *finds)).watches) == 120
    known = await scene.store.read(batches.known_ids, scene.account.id, [*ids, "other"])
    assert known == set(ids)


async def test_nothing_is_adopted_for_an_account_that_was_removed(scene: Scene) -> None:
    added = await scene.store.write(
        accounts.add,
        DEFAULT_PROJECT,
        name="gone",
        provider="openai",
        base_url="https://a.example",
        credentials="sk-gone",
        mint=scene.mint,
        now=scene.clock(),
    )
    await scene.store.write(
        accounts.remove, DEFAULT_PROJECT, "gone", force=False, now=scene.clock()
    )
    found = Find(snapshot=snapshot("b"))
    with pytest.raises(InvalidRequest, match="gone"):
        await scene.store.write(
            sweeps.adopt, DEFAULT_PROJECT, added.id, [found], mint=scene.mint, now=1.0
        )
    assert await scene.store.read(batches.known_ids, added.id, ["b"]) == set()


async def test_an_account_discovers_from_the_moment_that_it_is_told_to(scene: Scene) -> None:
    async def ensured(*, discover: bool) -> float | None:
        account = await scene.store.write(
            accounts.ensure_account,
            project_id=DEFAULT_PROJECT,
            name="openai",
            provider="openai",
            base_url="https://a.example",
            discover=discover,
            mint=scene.mint,
            now=scene.clock(),
        )
        return account.discover_since

    started = scene.clock()
    assert await ensured(discover=False) is None
    assert await ensured(discover=True) == started
    scene.clock.advance(60)
    assert await ensured(discover=True) == started
    assert await ensured(discover=False) is None
    assert await ensured(discover=True) == started + 60


async def test_an_account_that_was_added_is_switched(scene: Scene) -> None:
    async def changed(**changes: Any) -> float | None:
        account = await scene.store.write(
            accounts.change, DEFAULT_PROJECT, "mine", **changes, now=scene.clock()
        )
        return account.discover_since

    started = scene.clock()
    added = await scene.store.write(
        accounts.add,
        DEFAULT_PROJECT,
        name="mine",
        provider="openai",
        base_url="https://a.example",
        credentials="sk-mine",
        discover=True,
        mint=scene.mint,
        now=started,
    )
    assert added.discover_since == started
    scene.clock.advance(60)
    assert await changed(discover=True) == started
    assert await changed(base_url="https://b.example", credentials="sk-mine") == started
    assert await changed(discover=False) is None
    assert await changed(discover=True) == started + 60
