"""Who registers what, once, twice, late and again."""

from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy import text

from batchbell.core.errors import NotFound
from batchbell.core.model import (
    DEFAULT_PROJECT,
    Dialect,
    EventType,
    Missing,
    Status,
)
from batchbell.storage import accounts, batch_lists, batches, watches
from batchbell.storage.engine import ACCOUNTS
from batchbell.storage.projects import ensure_project
from tests.storage.scene import GONE, Scene, snapshot

OTHER_URL = "https://receiver.example/other"


async def test_a_registration_makes_a_batch_that_waits_and_a_watch(scene: Scene) -> None:
    (made,) = await scene.register("batch_1", dialect=Dialect.AWAITER, metadata={"team": "ünï"})

    assert made.created
    read = await scene.store.read(watches.get_watch, DEFAULT_PROJECT, made.watch.id)
    assert read == made.watch
    assert read.metadata == {"team": "ünï"}
    batch = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1")
    assert (batch.status, batch.account, batch.provider) == (
        Status.VALIDATING,
        "openai",
        "openai",
    )


async def test_pitfall_6_the_same_pair_twice_is_one_watch_and_one_webhook(scene: Scene) -> None:
    (first,) = await scene.register("batch_1")
    (second,) = await scene.register("batch_1")
    await scene.end("batch_1")
    (third,) = await scene.register("batch_1")

    assert (first.created, second.created, third.created) == (True, False, False)
    assert first.watch == second.watch == third.watch
    assert len(await scene.deliveries()) == 1


async def test_another_url_is_another_watch_of_the_same_batch(scene: Scene) -> None:
    await scene.register("batch_1")
    await scene.register("batch_1", url=OTHER_URL)
    await scene.end("batch_1")

    assert len(await scene.events()) == 1
    assert len(await scene.deliveries()) == 2


async def test_a_thousand_with_twins_among_them_are_answered_in_their_order(scene: Scene) -> None:
    ids = [f"batch_{n % 900:04}" for n in range(1000)]
    answers = await scene.register(*ids)

    assert [answer.watch.batch_id for answer in answers] == ids
    assert [answer.created for answer in answers] == [True] * 900 + [False] * 100
    page = await scene.store.read(watches.list_watches, DEFAULT_PROJECT, limit=2000)
    assert len(page.items) == 900


async def test_an_ended_batch_is_told_of_at_once_and_once(scene: Scene) -> None:
    await scene.due("batch_1")
    await scene.register("batch_1", url=OTHER_URL)
    await scene.register("batch_1", url=OTHER_URL)

    told = await scene.deliveries()
    assert [delivery.url for delivery in told] == ["https://receiver.example/hook", OTHER_URL]
    assert len({delivery.event_id for delivery in told}) == 1


async def test_who_asks_late_for_other_events_only_is_told_nothing(scene: Scene) -> None:
    await scene.due("batch_1")
    await scene.register("batch_1", url=OTHER_URL, events=(EventType.IN_PROGRESS,))

    assert len(await scene.deliveries()) == 1


async def test_an_ended_batch_does_not_make_its_account_due(scene: Scene) -> None:
    await scene.due("batch_1")
    claimed = await _claim_account(scene)
    await scene.store.write(
        accounts.finish,
        account_id=scene.account.id,
        token=claimed,
        next_at=scene.clock() + 15,
        now=scene.clock(),
    )
    await scene.register("batch_1", url=OTHER_URL)
    assert await scene.store.read(accounts.next_due, [scene.account.id]) == scene.clock() + 15

    await scene.register("batch_2")
    assert await scene.store.read(accounts.next_due, [scene.account.id]) == scene.clock()


async def test_a_new_watch_wakes_whoever_sweeps_its_account(scene: Scene) -> None:
    claimed = await _claim_account(scene)
    await scene.store.write(
        accounts.finish,
        account_id=scene.account.id,
        token=claimed,
        next_at=scene.clock() + 15,
        now=scene.clock(),
    )
    signal = scene.store.signal(ACCOUNTS)
    while await signal.wait(0.0):
        pass  # a new listener is woken once, whatever there is
    await scene.register("batch_1")
    assert await signal.wait(10.0)


async def test_a_lost_batch_that_is_registered_again_begins_a_new_life(scene: Scene) -> None:
    await scene.register("batch_1")
    await scene.lose("batch_1")
    (again,) = await scene.register("batch_1")
    batch = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1")
    assert not again.created
    assert (batch.status, batch.generation) == (Status.VALIDATING, 2)

    await scene.end("batch_1", status=Status.FAILED)
    told = await scene.deliveries()
    assert [delivery.event_type for delivery in told] == [EventType.FAILED, EventType.FAILED]


async def test_naming_a_disabled_url_anew_calls_it_again(scene: Scene) -> None:
    await scene.due("batch_1")
    claim = await scene.claim()
    await scene.settle(claim.deliveries, GONE)
    await scene.register("batch_2")
    await scene.end("batch_2")

    assert len((await scene.claim()).deliveries) == 1
    pending = [d for d in await scene.deliveries() if d.state == "pending"]
    assert [delivery.batch_id for delivery in pending] == ["batch_2"]


async def test_a_deleted_watch_is_told_nothing_more(scene: Scene) -> None:
    await scene.register("batch_1", "batch_2")
    (kept,) = await scene.register("batch_1", url=OTHER_URL)
    await scene.end("batch_1")
    page = await scene.store.read(watches.list_watches, DEFAULT_PROJECT, limit=10)
    for watch in page.items:
        if watch.id != kept.watch.id:
            await scene.store.write(watches.delete_watch, DEFAULT_PROJECT, watch.id)
    await scene.end("batch_2")

    assert [delivery.url for delivery in await scene.deliveries()] == [OTHER_URL]
    with pytest.raises(NotFound):
        await scene.store.write(watches.delete_watch, DEFAULT_PROJECT, page.items[-1].id)


async def test_what_a_deleted_watch_was_told_stays_in_the_log(scene: Scene) -> None:
    (made,) = await scene.register("batch_1")
    await scene.end("batch_1")
    await scene.settle((await scene.claim()).deliveries)
    await scene.store.write(watches.delete_watch, DEFAULT_PROJECT, made.watch.id)

    assert [delivery.state for delivery in await scene.deliveries()] == ["delivered"]


async def test_another_project_sees_nothing_of_it(scene: Scene) -> None:
    (made,) = await scene.register("batch_1")
    await scene.store.write(ensure_project, id="other", secret="whsec_x", now=scene.clock())

    with pytest.raises(NotFound):
        await scene.store.read(watches.get_watch, "other", made.watch.id)
    with pytest.raises(NotFound):
        await scene.store.read(batches.get_batch, "other", "batch_1")
    with pytest.raises(NotFound):
        await scene.store.write(watches.delete_watch, "other", made.watch.id)
    assert not (await scene.store.read(watches.list_watches, "other", limit=5)).items
    assert not (await scene.store.read(batch_lists.list_batches, "other", limit=5)).items


async def test_pages_show_every_watch_once_and_the_newest_first(scene: Scene) -> None:
    answers = await scene.register(*(f"batch_{n:02}" for n in range(23)))
    made = sorted((answer.watch.id for answer in answers), reverse=True)
    seen: list[str] = []
    more = True
    while more:
        page = await scene.store.read(
            watches.list_watches,
            DEFAULT_PROJECT,
            limit=5,
            after=seen[-1] if seen else None,
        )
        seen += [watch.id for watch in page.items]
        more = page.has_more
    assert seen == made
    with pytest.raises(NotFound):
        await scene.store.read(watches.list_watches, DEFAULT_PROJECT, limit=5, after="wat_unknown")


async def test_pages_show_every_batch_once_and_the_last_registered_first(scene: Scene) -> None:
    ids = [f"batch_{n:02}" for n in range(23)]
    for id in ids:
        await scene.register(id)
    await scene.end(*ids[:4])
    seen: list[str] = []
    more = True
    while more:
        page = await scene.store.read(
            batch_lists.list_batches,
            DEFAULT_PROJECT,
            limit=5,
            after=seen[-1] if seen else None,
        )
        seen += [batch.id for batch in page.items]
        more = page.has_more
    assert seen == ids[::-1]
    ended = await scene.store.read(
        batch_lists.list_batches,
        DEFAULT_PROJECT,
        limit=10,
        filter=batch_lists.BatchFilter(status=Status.COMPLETED),
    )
    assert {batch.id for batch in ended.items} == set(ids[:4])


async def test_many_at_once_register_the_same_and_share_one_watch(scene: Scene) -> None:
    answers = await asyncio.gather(*(scene.register("batch_1", "batch_2") for _ in range(12)))

    made = [answer for pair in answers for answer in pair]
    assert len({answer.watch.id for answer in made}) == 2
    assert sum(answer.created for answer in made) == 2
    await scene.end("batch_1", "batch_2")
    assert len(await scene.deliveries()) == 2


async def test_overlapping_lists_in_any_order_do_not_block_each_other(scene: Scene) -> None:
    ids = [f"batch_{n:03}" for n in range(120)]
    await scene.register(*ids[::2])
    lists = [ids, ids[::-1], ids[60:] + ids[:60], ids[30:90]]
    await asyncio.gather(*(scene.register(*some) for some in lists * 2))

    count = await scene.store.read(lambda c: c.execute(text("SELECT count(*) FROM watches")))
    assert count.scalar_one() == 120


async def test_metadata_and_events_are_kept_as_they_were_given(scene: Scene) -> None:
    metadata = {"a": "\0", "b": "\ud800", "c": "🎈"}
    (made,) = await scene.register(
        "batch_1", metadata=metadata, events=(EventType.LOST, EventType.COMPLETED)
    )
    read = await scene.store.read(watches.get_watch, DEFAULT_PROJECT, made.watch.id)
    assert read.metadata == metadata
    assert read.events == (EventType.LOST, EventType.COMPLETED)
    await scene.end("batch_1")
    (claimed,) = (await scene.claim()).deliveries
    assert claimed.watch_metadata is not None
    assert json.loads(claimed.watch_metadata) == metadata


async def test_a_registration_during_a_lone_404_keeps_its_second_look(scene: Scene) -> None:
    await scene.register("batch_1")
    await scene.see(Missing("batch_1"))
    await scene.register("batch_1")
    await scene.see(snapshot("batch_1", Status.IN_PROGRESS))
    batch = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1")
    assert (batch.status, batch.missing_since) == (Status.IN_PROGRESS, None)


async def _claim_account(scene: Scene) -> str:
    account = await scene.store.write(
        accounts.claim_due,
        ids=[scene.account.id],
        now=scene.clock(),
        lease_seconds=60.0,
        token="lease_sweep",
    )
    assert account is not None
    assert account.lease_token is not None
    return account.lease_token
