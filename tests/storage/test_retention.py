"""Expunging one batch: nothing of its payloads stays, and all that it still tells is true."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from msgspec import structs
from sqlalchemy import text

from batchbell.core import payload
from batchbell.core.errors import InvalidRequest, NotFound
from batchbell.core.model import DEFAULT_PROJECT, BatchProblem, Dialect, Outcome, Status
from batchbell.storage import batches, deliveries, retention
from batchbell.storage.accounts import ensure_account
from tests.storage.scene import Scene, snapshot

WORD = "confidential"
ANSWER = Outcome(
    status=302,
    detail=WORD,
    location=WORD,
    request_headers={WORD: "***"},
    response_headers={"x": WORD},
    response_body=WORD,
    started_at=1.0,
)
OK = structs.replace(ANSWER, status=200)
TABLES = ("batches", "watches", "events", "deliveries", "attempts")


async def expunge(scene: Scene, batch_id: str = "batch_1", project: str = DEFAULT_PROJECT):
    return await scene.store.write(retention.expunge, project, batch_id, now=scene.clock())


async def told(scene: Scene, batch_id: str = "batch_1", outcome: Outcome = OK) -> None:
    """A batch full of words, that ended and whose receiver answered."""
    await scene.register(batch_id, metadata={"our": WORD})
    problem = BatchProblem(code="x", message=WORD, param=None, line=1)
    await scene.see(
        snapshot(batch_id, metadata={"m": WORD}, usage={"u": WORD}, problems=(problem,))
    )
    await scene.settle((await scene.claim()).deliveries, outcome)


async def everything(scene: Scene) -> str:
    """All rows of all tables, as text."""
    queries = [text(f"SELECT * FROM {table}") for table in TABLES]
    return str(await scene.store.read(lambda c: [c.execute(query).all() for query in queries]))


async def test_no_word_of_the_payloads_stays_anywhere(scene: Scene) -> None:
    await told(scene)
    assert WORD in await everything(scene)
    expunged = await expunge(scene)
    assert WORD not in await everything(scene)
    assert (expunged.status, expunged.expunged_at) == (Status.COMPLETED, scene.clock())
    found = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1")
    assert found == expunged
    assert found.snapshot is not None
    assert found.snapshot.counts is not None


async def test_the_attempts_stay_without_words(scene: Scene) -> None:
    await told(scene)
    await expunge(scene)
    (delivery,) = await scene.deliveries()
    (attempt,) = await scene.store.read(deliveries.list_attempts, delivery)
    assert attempt.outcome == Outcome(status=200, started_at=1.0)


async def test_twice_is_no_error_and_keeps_the_first_time(scene: Scene) -> None:
    await told(scene)
    first = await expunge(scene)
    scene.clock.advance(60)
    assert await expunge(scene) == first


@pytest.mark.parametrize("dialect", Dialect)
async def test_what_is_sent_again_is_bare(scene: Scene, dialect: Dialect) -> None:
    await scene.register("batch_1", metadata={"our": WORD}, dialect=dialect)
    await scene.see(snapshot("batch_1", metadata={"m": WORD}))
    await scene.settle((await scene.claim()).deliveries)
    await expunge(scene)
    (event,) = await scene.events()
    await scene.store.write(deliveries.resend, DEFAULT_PROJECT, event.id, now=scene.clock())
    (again,) = (await scene.claim()).deliveries
    sent = json.loads(
        payload.dressed(
            again.event_body,
            dialect=again.dialect,
            watch_id=again.watch_id,
            watch_metadata=again.watch_metadata,
        )
    )
    assert sent["data"] == {"id": "batch_1"}
    assert (sent["id"], sent["type"], sent["object"]) == (event.id, "batch.completed", "event")
    if dialect is Dialect.AWAITER:
        assert (sent["batchId"], sent["status"]) == ("batch_1", "completed")


async def test_a_batch_that_runs_is_a_conflict(scene: Scene) -> None:
    await scene.register("batch_1")
    with pytest.raises(InvalidRequest, match="has not ended") as caught:
        await expunge(scene)
    assert (caught.value.code, caught.value.status) == ("conflict", 409)


async def test_a_delivery_that_waits_is_a_conflict(scene: Scene) -> None:
    await told(scene, outcome=structs.replace(ANSWER, status=500))
    with pytest.raises(InvalidRequest, match="1 deliveries of batch batch_1 wait"):
        await expunge(scene)
    assert WORD in await everything(scene)


async def test_other_batches_keep_theirs(scene: Scene) -> None:
    await told(scene, "batch_1")
    await told(scene, "batch_2")
    await expunge(scene, "batch_1")
    left = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_2")
    assert left.snapshot is not None
    assert (left.snapshot.metadata, left.expunged_at) == ({"m": WORD}, None)
    (watch_2,) = [d for d in await scene.deliveries() if d.batch_id == "batch_2"]
    (attempt,) = await scene.store.read(deliveries.list_attempts, watch_2)
    assert attempt.outcome is not None
    assert attempt.outcome.response_body == WORD


async def test_every_batch_of_the_id_is_meant_whatever_its_account(scene: Scene) -> None:
    second = await scene.store.write(
        ensure_account,
        project_id=DEFAULT_PROJECT,
        name="second",
        provider="openai",
        base_url="https://second.example/v1",
        mint=scene.mint,
        now=scene.clock(),
    )
    elsewhere = replace(scene, account=second)
    await told(scene)
    await elsewhere.register("batch_1", metadata={"our": WORD})
    with pytest.raises(InvalidRequest, match="of account 'second' has not ended"):
        await expunge(scene)
    assert WORD in await everything(scene)
    await told(elsewhere)
    await expunge(scene)
    assert WORD not in await everything(scene)


async def test_a_batch_of_another_project_is_not_found(scene: Scene) -> None:
    await told(scene)
    with pytest.raises(NotFound):
        await expunge(scene, project="prj_other")
    assert WORD in await everything(scene)


async def test_a_new_life_of_an_expunged_batch_is_not_expunged(scene: Scene) -> None:
    await scene.register("batch_1")
    await scene.lose("batch_1")
    await scene.settle((await scene.claim()).deliveries)
    assert (await expunge(scene)).expunged_at is not None
    await scene.register("batch_1")
    found = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1")
    assert (found.status, found.expunged_at) == (Status.VALIDATING, None)


async def test_very_many_deliveries_are_emptied_in_steps(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    for n in range(5):
        await scene.register("batch_1", url=f"https://receiver.example/{n}", metadata={"our": WORD})
    await scene.end("batch_1")
    await scene.settle((await scene.claim()).deliveries, OK)
    await expunge(scene)
    assert WORD in await everything(scene)
    steps = 0
    while await scene.store.write(retention.strip_more, DEFAULT_PROJECT, "batch_1"):
        steps += 1
    assert steps == 2
    assert WORD not in await everything(scene)
