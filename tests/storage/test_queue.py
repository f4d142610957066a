"""Claims: fair between endpoints, bounded, leased, and never dearer than what they bring."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Connection, text, update

from batchbell.core.model import Claimed, EndpointState
from batchbell.storage import endpoints, health, queue, schema
from batchbell.storage.bulk import insert_missing
from tests.storage.scene import GONE, OK, Scene

RECEIVERS = [f"https://receiver.example/{n}" for n in range(20)]


async def fill(scene: Scene, counts: dict[str, int]) -> None:
    """Put many deliveries of one event's kind into the queue, `counts` for each URL."""
    await scene.register("batch_seed", url="https://seed.example/")
    await scene.end("batch_seed")
    (seed,) = (await scene.claim()).deliveries
    await scene.settle([seed])

    def write(connection: Connection) -> None:
        ids = endpoints.ensure_endpoints(
            connection, "default", list(counts), mint=scene.mint, now=scene.clock()
        )
        event = dict(connection.execute(schema.events.select()).one()._mapping)
        delivery = dict(connection.execute(schema.deliveries.select()).one()._mapping)
        fresh = {"state": "pending", "attempts": 0, "due_at": scene.clock(), "finished_at": None}
        events, waiting = [], []
        for url, count in counts.items():
            for _ in range(count):
                events.append({**event, "id": scene.mint("evt"), "generation": len(events) + 2})
                waiting.append(
                    {
                        **delivery,
                        **fresh,
                        "id": scene.mint("dlv"),
                        "event_id": events[-1]["id"],
                        "endpoint_id": ids[url],
                    }
                )
        insert_missing(connection, schema.events, events)
        insert_missing(connection, schema.deliveries, waiting)

    await scene.store.write(write)


def by_endpoint(claimed: list[Claimed]) -> Counter[str]:
    return Counter(one.endpoint_id for one in claimed)


async def test_a_claim_brings_all_that_is_needed_to_send(scene: Scene) -> None:
    (made,) = await scene.register("batch_1", metadata={"team": "a"})
    await scene.end("batch_1")
    claim = await scene.claim(token="lease_1")

    (claimed,) = claim.deliveries
    (event,) = await scene.events()
    assert (claimed.event_id, claimed.event_body) == (event.id, event.body)
    assert (claimed.attempt, claimed.first_attempt_base) == (1, 0)
    assert (claimed.watch_id, claimed.watch_metadata) == (made.watch.id, '{"team":"a"}')
    assert (claimed.lease_token, claimed.lease_until) == ("lease_1", scene.clock() + 60)
    assert claimed.occurred_at == event.created_at
    assert claim.endpoints[claimed.endpoint_id].url == made.watch.url
    assert claim.endpoints[claimed.endpoint_id].secrets


async def test_pitfall_28_who_owns_almost_everything_takes_only_its_room(scene: Scene) -> None:
    hog, *others = RECEIVERS
    await fill(scene, {hog: 4750} | dict.fromkeys(others, 13))
    claim = await scene.claim(limit=2000, room=8)

    taken = by_endpoint(claim.deliveries)
    assert set(taken.values()) == {8}
    assert len(taken) == 20


async def test_the_ring_goes_on_where_the_last_claim_ended(scene: Scene) -> None:
    await fill(scene, dict.fromkeys(RECEIVERS, 5))
    place, visited = queue.START, set()
    for _ in range(5):
        claim = await scene.claim(limit=8, room=2, after=place)
        taken = by_endpoint(claim.deliveries)
        assert set(taken.values()) == {2}
        assert visited.isdisjoint(taken)
        visited |= set(taken)
        place = claim.place
    assert len(visited) == 20
    assert (await scene.claim(limit=100, room=2, after=place)).deliveries == []
    assert len((await scene.claim(limit=100, room=2)).deliveries) == 40


async def test_a_ring_longer_than_one_visit_is_walked_to_its_end(scene: Scene) -> None:
    urls = [f"https://receiver.example/{n}" for n in range(queue.RING_STEP + 20)]
    await fill(scene, dict.fromkeys(urls, 1))
    first = await scene.claim(limit=1000)
    assert len(first.deliveries) == queue.RING_STEP
    assert first.more
    second = await scene.claim(limit=1000, after=first.place)
    assert len(second.deliveries) == 20
    assert not second.more


async def test_room_is_what_each_endpoint_was_given(scene: Scene) -> None:
    await fill(scene, dict.fromkeys(RECEIVERS[:3], 10))
    ids = sorted(by_endpoint((await scene.claim(room=1)).deliveries))
    claim = await scene.claim(room=5, rooms={ids[0]: 0, ids[1]: 2})
    assert by_endpoint(claim.deliveries) == {ids[1]: 2, ids[2]: 5}


async def test_never_more_than_the_limit(scene: Scene) -> None:
    await fill(scene, dict.fromkeys(RECEIVERS, 5))
    claim = await scene.claim(limit=7, room=3)
    assert len(claim.deliveries) == 7
    assert sorted(by_endpoint(claim.deliveries).values()) == [1, 3, 3]


async def test_the_longest_due_of_an_endpoint_go_first(scene: Scene) -> None:
    for n in range(5):
        await scene.due(f"batch_{n}")
        scene.clock.advance(1)
    claim = await scene.claim(room=2)
    oldest = [delivery.id for delivery in await scene.deliveries()][:2]
    assert sorted(one.id for one in claim.deliveries) == oldest


async def test_what_is_not_due_yet_is_left(scene: Scene) -> None:
    await scene.due("batch_1")
    scene.clock.advance(-1)
    assert (await scene.claim()).deliveries == []
    scene.clock.advance(1)
    assert len((await scene.claim()).deliveries) == 1


async def test_paused_and_disabled_endpoints_are_skipped(scene: Scene) -> None:
    await fill(scene, dict.fromkeys(RECEIVERS[:3], 2))
    ids = sorted(by_endpoint((await scene.claim(room=1)).deliveries))

    def change(connection: Connection) -> None:
        one = update(schema.endpoints)
        paused = {"paused_until": scene.clock() + 30}
        disabled = {"state": EndpointState.DISABLED, "reason": "answered 410 Gone"}
        connection.execute(one.where(schema.endpoints.c.id == ids[0]).values(paused))
        connection.execute(one.where(schema.endpoints.c.id == ids[1]).values(disabled))

    await scene.store.write(change)
    assert by_endpoint((await scene.claim()).deliveries) == {ids[2]: 1}
    scene.clock.advance(30)
    assert by_endpoint((await scene.claim()).deliveries) == {ids[0]: 1}


async def test_a_lease_that_ran_out_is_due_again_and_its_attempt_counted(scene: Scene) -> None:
    await scene.due("batch_1")
    (first,) = (await scene.claim()).deliveries
    scene.clock.advance(59)
    assert (await scene.claim()).deliveries == []
    scene.clock.advance(1)
    (second,) = (await scene.claim()).deliveries
    assert (first.attempt, second.attempt) == (1, 2)
    assert second.id == first.id
    assert second.lease_token != first.lease_token


async def test_what_is_given_back_is_due_and_not_counted(scene: Scene) -> None:
    await scene.due("batch_1", "batch_2")
    claimed = (await scene.claim()).deliveries
    scene.clock.advance(1)
    await scene.store.write(queue.give_back, claimed, now=scene.clock())

    again = (await scene.claim()).deliveries
    assert [one.attempt for one in again] == [1, 1]


async def test_what_another_holds_is_not_given_back(scene: Scene) -> None:
    await scene.due("batch_1")
    late = (await scene.claim()).deliveries
    scene.clock.advance(60)
    (held,) = (await scene.claim()).deliveries
    await scene.store.write(queue.give_back, late, now=scene.clock())
    assert (await scene.claim()).deliveries == []
    assert await scene.settle([held]) == {held.id}


async def test_many_claims_at_once_never_share_a_delivery(scene: Scene) -> None:
    await fill(scene, dict.fromkeys(RECEIVERS, 15))

    async def worker() -> list[str]:
        ids: list[str] = []
        while claim := (await scene.claim(limit=20, room=3)).deliveries:
            ids += [one.id for one in claim]
        return ids

    taken = [id for ids in await asyncio.gather(*(worker() for _ in range(6))) for id in ids]
    assert len(taken) == len(set(taken)) == 300


async def test_deliveries_of_a_disabled_endpoint_are_set_aside_in_steps(
    scene: Scene, monkeypatch: Any
) -> None:
    monkeypatch.setattr(endpoints, "STEP", 10)
    await fill(scene, {RECEIVERS[0]: 26})
    (one,) = (await scene.claim(limit=1)).deliveries
    await scene.settle([one], GONE)
    assert await scene.store.read(queue.count_by_state) == {"held": 11, "pending": 15}
    assert await scene.store.write(health.hold_back_disabled, now=scene.clock()) == 10
    assert await scene.store.write(health.hold_back_disabled, now=scene.clock()) == 5
    assert await scene.store.write(health.hold_back_disabled, now=scene.clock()) == 0
    assert await scene.store.read(queue.count_by_state) == {"held": 26}


async def test_what_a_dead_worker_was_sending_to_a_disabled_endpoint_is_set_aside(
    scene: Scene,
) -> None:
    """No claim would ever take it again: it would wait for ever, neither sent nor held."""
    await fill(scene, {RECEIVERS[0]: 2})
    one, sent = (await scene.claim(limit=2)).deliveries
    await scene.settle([one], GONE)
    assert await scene.store.write(health.hold_back_disabled, now=scene.clock()) == 0
    scene.clock.advance(60)
    assert await scene.store.write(health.hold_back_disabled, now=scene.clock()) == 1
    assert await scene.settle([sent], OK) == set()
    assert await scene.store.read(queue.count_by_state) == {"held": 2}


@pytest.mark.databases("postgresql")
async def test_a_claim_writes_to_no_index(scene: Scene) -> None:
    """An entry in each of ten indexes would cost the server more than all else of a claim."""
    await fill(scene, dict.fromkeys(RECEIVERS, 10))

    def written(connection: Connection) -> tuple[int, int]:
        counts = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables"
        row = connection.execute(text(f"{counts} WHERE relname = 'deliveries'")).one()
        return row.n_tup_upd, row.n_tup_hot_upd

    def claim(connection: Connection) -> tuple[int, int]:
        before = written(connection)
        lease = {"now": scene.clock(), "lease_seconds": 60.0, "token": "lease_1"}
        queue.claim_due(connection, rooms={}, room=10, limit=200, **lease)
        after = written(connection)
        return after[0] - before[0], after[1] - before[1]

    rows, beside = await scene.store.write(claim)
    assert rows == 200
    assert beside > 0.9 * rows, "the page of a row has room for what it becomes"


async def test_an_endpoint_that_becomes_ordered_waits_for_the_first_that_is_under_way(
    scene: Scene,
) -> None:
    await fill(scene, {RECEIVERS[0]: 3})
    (first,) = (await scene.claim(limit=1)).deliveries
    ordered = update(schema.endpoints).values(ordered=True)
    await scene.store.write(lambda connection: connection.execute(ordered).rowcount)
    assert (await scene.claim()).deliveries == []
    await scene.settle([first])
    (second,) = (await scene.claim()).deliveries
    assert second.id > first.id


async def test_the_oldest_past_due_counts_neither_leases_nor_pauses(scene: Scene) -> None:
    assert await scene.store.read(queue.oldest_past_due, now=scene.clock()) is None
    since = scene.clock()
    await scene.due("batch_1")
    scene.clock.advance(9)
    await scene.due("batch_2", url=RECEIVERS[0])
    assert await scene.store.read(queue.oldest_past_due, now=scene.clock()) == since
    first = (await scene.claim(limit=2)).deliveries
    assert len(first) == 2
    assert await scene.store.read(queue.oldest_past_due, now=scene.clock()) is None
    await scene.settle(first, OK)
    assert await scene.store.read(queue.oldest_past_due, now=scene.clock() + 99) is None
