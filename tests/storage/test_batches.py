"""What a sighting writes: the batch, its event and the deliveries, in one transaction."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text
from sqlalchemy.exc import IntegrityError

from batchbell.core import lifecycle
from batchbell.core.model import (
    DEFAULT_PROJECT,
    BatchProblem,
    Doubtful,
    EventType,
    Missing,
    Snapshot,
    Status,
)
from batchbell.storage import batches, schema
from batchbell.storage.batches import OpenBatch
from batchbell.storage.health import hold_back
from tests.storage.scene import GONE, Scene, snapshot

OTHER_URL = "https://receiver.example/other"
EVERYTHING = tuple(EventType)


def rewrites(connection: Connection) -> Any:
    """Changes whenever a batch's row is written, and by nothing else."""
    if connection.dialect.name == "sqlite":
        return connection.execute(text("SELECT total_changes()")).scalar_one()
    return [
        tuple(row) for row in connection.execute(text("SELECT xmin::text, ctid::text FROM batches"))
    ]


async def test_an_end_is_told_to_all_who_watch(scene: Scene) -> None:
    await scene.register("batch_1")
    await scene.register("batch_1", url=OTHER_URL)
    (change,) = await scene.see(snapshot("batch_1", output_file_id="file_1"))

    assert (change.before, change.batch.status) == (Status.VALIDATING, Status.COMPLETED)
    (event,) = await scene.events()
    body = json.loads(event.body)
    assert (event.type, body["id"], body["data"]["output_file_id"]) == (
        EventType.COMPLETED,
        event.id,
        "file_1",
    )
    told = await scene.deliveries()
    assert {delivery.url for delivery in told} == {"https://receiver.example/hook", OTHER_URL}
    assert {(d.event_id, d.state, d.due_at) for d in told} == {(event.id, "pending", scene.clock())}


async def test_an_end_without_a_watch_is_written_down(scene: Scene) -> None:
    (made,) = await scene.register("batch_1")
    await scene.store.write(
        lambda c: c.execute(schema.watches.delete().where(schema.watches.c.id == made.watch.id))
    )
    await scene.end("batch_1")
    assert len(await scene.events()) == 1
    assert await scene.deliveries() == []


async def test_the_same_sighting_again_writes_nothing(scene: Scene) -> None:
    await scene.register("batch_1", "batch_2")
    await scene.see(snapshot("batch_1", Status.IN_PROGRESS), snapshot("batch_2"))
    before = await scene.store.write(rewrites)
    scene.clock.advance(60)
    changes = await scene.see(snapshot("batch_1", Status.IN_PROGRESS), snapshot("batch_2"))

    assert changes == []
    assert await scene.store.write(rewrites) == before


async def test_pitfall_2_a_late_answer_never_moves_an_end_back(scene: Scene) -> None:
    await scene.due("batch_1")
    for status in (Status.IN_PROGRESS, Status.FAILED, Status.COMPLETED):
        assert await scene.see(snapshot("batch_1", status)) == []
    assert await scene.see(Missing("batch_1")) == []

    batch = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1")
    assert batch.status is Status.COMPLETED
    assert len(await scene.events()) == len(await scene.deliveries()) == 1


async def test_ids_that_nobody_asked_for_are_passed_over(scene: Scene) -> None:
    await scene.register("batch_1")
    (change,) = await scene.see(snapshot("batch_0"), snapshot("batch_1"), Missing("batch_2"))
    assert change.batch.id == "batch_1"


async def test_more_sightings_than_one_list_holds(scene: Scene) -> None:
    ids = [f"batch_{n:04}" for n in range(1200)]
    await scene.register(*ids)
    changes = await scene.see(*(snapshot(id) for id in reversed(ids)))
    assert len(changes) == 1200
    assert len(await scene.deliveries()) == 1200


async def test_pitfall_5_a_lost_batch_is_told_as_failed_unless_lost_was_asked_for(
    scene: Scene,
) -> None:
    await scene.register("batch_1")
    await scene.register("batch_1", url=OTHER_URL, events=EVERYTHING)
    await scene.lose("batch_1")

    told = {delivery.url: delivery.event_type for delivery in await scene.deliveries()}
    assert told == {
        "https://receiver.example/hook": EventType.FAILED,
        OTHER_URL: EventType.LOST,
    }
    for event in await scene.events():
        assert json.loads(event.body)["data"]["error"]["code"] == "batch_not_found"


async def test_a_lone_404_is_not_told(scene: Scene) -> None:
    await scene.register("batch_1")
    await scene.see(Missing("batch_1"))
    assert await scene.events() == []


async def test_what_two_404s_far_apart_said_is_forgotten_by_a_sighting_between(
    scene: Scene,
) -> None:
    """The watcher passes on only what differs: the row that was in doubt must differ."""
    await scene.register("batch_1")
    await scene.see(snapshot("batch_1", Status.IN_PROGRESS))
    (known,) = await _open(scene)
    assert known.fingerprint == snapshot("batch_1", Status.IN_PROGRESS).fingerprint
    await scene.see(Missing("batch_1"))
    scene.clock.advance(lifecycle.LOST_AFTER_SECONDS)
    (known,) = await _open(scene)
    assert known.fingerprint is None

    await scene.see(snapshot("batch_1", Status.IN_PROGRESS))
    await scene.see(Missing("batch_1"))
    batch = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1")
    assert batch.status is Status.IN_PROGRESS


async def test_a_new_life_takes_up_an_unchanged_row(scene: Scene) -> None:
    await scene.register("batch_1")
    await scene.see(snapshot("batch_1", Status.IN_PROGRESS))
    await scene.lose("batch_1")
    await scene.register("batch_1")
    (known,) = await _open(scene)
    assert known.fingerprint is None
    await scene.see(snapshot("batch_1", Status.IN_PROGRESS))
    (known,) = await _open(scene)
    assert known.fingerprint is not None


async def test_a_batch_in_doubt_rests_with_its_reason_and_comes_back(scene: Scene) -> None:
    await scene.register("batch_1", "batch_2")
    for _ in range(lifecycle.DOUBTS_MAX + 1):
        assert len(await _open(scene)) == 2
        await scene.see(Doubtful("batch_1", "no \0 status \ud800"), Doubtful("batch_9", "not ours"))
    assert [batch.id for batch in await _open(scene)] == ["batch_2"]
    known = await scene.store.read(batches.known, scene.account.id, now=scene.clock())
    assert (len(known.open), known.waiting) == (1, 1)
    doubted = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1")
    assert doubted.reason == "no \ufffd status \ufffd"

    scene.clock.advance(-2 * lifecycle.POISON_SECONDS)
    assert len(await _open(scene)) == 2, "no wait is so long: the clock was set back"
    scene.clock.advance(2 * lifecycle.POISON_SECONDS + lifecycle.DOUBT_SECONDS)
    assert len(await _open(scene)) == 2
    await scene.see(snapshot("batch_1", Status.IN_PROGRESS))
    mended = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1")
    assert (mended.look_error, mended.doubts) == (None, 0)


async def test_a_lost_batch_is_asked_for_until_it_comes_back(scene: Scene) -> None:
    await scene.register("batch_1")
    await scene.lose("batch_1")

    async def lost() -> dict[str, bool]:
        known = await scene.store.read(batches.known, scene.account.id, now=scene.clock())
        assert (known.open, known.waiting) == ([], 0)
        return dict(known.lost)

    assert await lost() == {"batch_1": True}
    await scene.see(Missing("batch_1"))
    assert await lost() == {"batch_1": False}
    (change,) = await scene.see(snapshot("batch_1", Status.COMPLETED))
    assert (change.before, change.batch.status) == (Status.LOST, Status.COMPLETED)
    told = [delivery.event_type for delivery in await scene.deliveries()]
    assert told == [EventType.FAILED, EventType.COMPLETED]

    await scene.register("batch_2")
    await scene.lose("batch_2")
    scene.clock.advance(lifecycle.LOST_WATCH_SECONDS + 1)
    assert await lost() == {}


async def test_a_fingerprint_of_another_version_is_written_anew(scene: Scene) -> None:
    await scene.register("batch_1")
    seen = snapshot("batch_1", Status.IN_PROGRESS)
    await scene.see(seen)
    rows = schema.batches.update().values(fingerprint="older")
    await scene.store.write(lambda c: c.execute(rows))
    await scene.see(seen)
    (known,) = await _open(scene)
    assert known.fingerprint == seen.fingerprint


async def test_progress_is_told_only_to_who_asks(scene: Scene) -> None:
    await scene.register("batch_1")
    await scene.see(snapshot("batch_1", Status.IN_PROGRESS))
    assert await scene.events() == []

    await scene.register("batch_2", url=OTHER_URL, events=EVERYTHING)
    await scene.see(snapshot("batch_2", Status.IN_PROGRESS))
    await scene.see(snapshot("batch_2", Status.FINALIZING))
    assert [delivery.event_type for delivery in await scene.deliveries()] == [
        EventType.IN_PROGRESS,
        EventType.FINALIZING,
    ]


async def test_what_is_for_a_disabled_endpoint_is_held(scene: Scene) -> None:
    await scene.register("batch_1", "batch_2")
    await scene.end("batch_1")
    await scene.settle((await scene.claim()).deliveries, GONE)
    await scene.end("batch_2")

    assert [(d.state, d.due_at) for d in await scene.deliveries()] == [("held", None)] * 2
    (first, _) = await scene.deliveries()
    assert await scene.store.write(hold_back, first.endpoint_id, now=scene.clock()) == 0


async def test_an_event_has_no_twin(scene: Scene) -> None:
    await scene.due("batch_1")

    def twin(connection: Connection) -> None:
        row = dict(connection.execute(schema.events.select()).one()._mapping)
        connection.execute(insert(schema.events).values({**row, "id": "evt_twin"}))

    with pytest.raises(IntegrityError):
        await scene.store.write(twin)


async def test_a_failure_in_the_middle_leaves_nothing_behind(scene: Scene) -> None:
    """Pitfall of others: the state is written, the process dies, the webhook never goes out."""
    await scene.register("batch_1")

    def half(connection: Connection) -> None:
        scene.record(connection, snapshot("batch_1"))
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        await scene.store.write(half)
    batch = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1")
    assert batch.status is Status.VALIDATING
    assert await scene.events() == []
    assert await scene.deliveries() == []
    await scene.end("batch_1")
    assert len(await scene.deliveries()) == 1


@pytest.mark.parametrize("words", ["nul \0 inside", "half \ud83d of a pair", "whole 🎈", "\u2028"])
async def test_odd_words_of_a_provider_spoil_nothing(scene: Scene, words: str) -> None:
    odd: Snapshot = snapshot(
        "batch_1",
        problems=(BatchProblem(code="x", message=words, line=3),),
        metadata={words: words},
        usage={"total": 2**70, "words": [words]},
        model=words,
    )
    await scene.register("batch_1", "batch_2")
    await scene.see(odd, snapshot("batch_2"))

    assert len(await scene.deliveries()) == 2
    read = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1")
    assert read.snapshot is not None
    assert read.snapshot.model == words.replace("\ud83d", "\ufffd")


async def _open(scene: Scene) -> list[OpenBatch]:
    return await scene.store.read(batches.open_batches, scene.account.id, now=scene.clock())
