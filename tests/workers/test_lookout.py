"""Alarms of batches that do not get on, from the sighting to the event, on both databases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, text
from tests.conftest import Clock
from tests.storage.scene import Scene, snapshot

from batchbell.core import alarms as rules
from batchbell.core.alarms import Patience
from batchbell.core.model import (
    DEFAULT_PROJECT,
    Account,
    Alarm,
    BatchKind,
    Counts,
    EventType,
    Mint,
    Snapshot,
    Status,
)
from batchbell.observability import Metrics
from batchbell.storage import alarms, batch_lists, batches, schema, submissions
from batchbell.storage.engine import Store
from batchbell.storage.submissions import Asked, NewPart
from batchbell.workers.lookout import Lookout

HOUR = 3600.0
ASKED = (EventType.COMPLETED, EventType.STALLED, EventType.EXPIRING_SOON)


class Stage:
    """A scene with a lookout."""

    def __init__(self, scene: Scene, **patience: Any) -> None:
        self.scene = scene
        self.clock = scene.clock
        self.metrics = Metrics()
        self.lookout = Lookout(
            scene.store,
            clock=scene.clock,
            mint=scene.mint,
            metrics=self.metrics,
            patience=Patience(**patience),
        )

    async def look(self, *, after: float = 0.0) -> list[tuple[str, str]]:
        """Let time pass, look once, and say which events there are by now: batch and cause."""
        self.clock.advance(after)
        assert await self.lookout.step() is False
        told = [json.loads(event.body)["data"] for event in await self.scene.events()]
        return sorted((data["id"], data["cause"]) for data in told if "cause" in data)


@pytest.fixture
def stage(store: Store, account: Account, mint: Mint, clock: Clock) -> Stage:
    return Stage(Scene(store, account, mint, clock))


def seen(id: str, clock: Clock, status: Status | None = Status.IN_PROGRESS, **how: Any) -> Snapshot:
    created = int(clock())
    stamps = {"created_at": created, "expires_at": created + 24 * 3600}
    return snapshot(id, status, **({"timestamps": stamps} | how))


async def rewritten(stage: Stage) -> Any:
    """Changes whenever a batch's row is written."""

    def rows(connection: Connection) -> Any:
        if connection.dialect.name == "sqlite":
            return connection.execute(text("SELECT total_changes()")).scalar_one()
        query = text("SELECT xmin::text, ctid::text FROM batches")
        return [tuple(row) for row in connection.execute(query)]

    return await stage.scene.store.write(rows)


async def test_a_batch_that_is_never_swept_again_rings_all_its_alarms_in_time(
    stage: Stage,
) -> None:
    """The provider is down for days: nobody sees the batch any more."""
    await stage.scene.register("batch_1", events=ASKED)
    await stage.scene.see(seen("batch_1", stage.clock))
    assert await stage.look() == []
    assert await stage.look(after=6 * HOUR) == [("batch_1", "no_progress")]
    assert len(await stage.look(after=16 * HOUR)) == 2
    told = await stage.look(after=3 * HOUR)
    assert told == [
        ("batch_1", "expiring_soon"),
        ("batch_1", "no_progress"),
        ("batch_1", "overdue"),
    ]
    assert await stage.look(after=200 * HOUR) == told, "each of them once"
    assert len(await stage.scene.deliveries()) == 3
    counted = {alarm: stage.metrics.alarms.labels(alarm.value)._value.get() for alarm in Alarm}
    assert counted == {
        Alarm.UNKNOWN_STATUS: 0,
        Alarm.OVERDUE: 1,
        Alarm.NO_PROGRESS: 1,
        Alarm.EXPIRING_SOON: 1,
    }
    read = stage.scene.store.read
    (batch,) = (await read(batch_lists.list_batches, DEFAULT_PROJECT, limit=9)).items
    assert batch.status is Status.IN_PROGRESS, "an alarm ends nothing"
    await stage.scene.see(seen("batch_1", stage.clock, Status.COMPLETED))
    types = {event.type for event in await stage.scene.events()}
    assert EventType.COMPLETED in types


async def test_the_event_says_what_is_wrong(stage: Stage) -> None:
    await stage.scene.register("batch_1", events=ASKED)
    await stage.scene.see(seen("batch_1", stage.clock, None))
    started = int(stage.clock())
    await stage.look()
    (event,) = await stage.scene.events()
    body = json.loads(event.body)
    assert (body["type"], body["created_at"]) == ("batch.stalled", started)
    data = body["data"]
    assert data["cause"] == "unknown_status"
    assert "'dreaming'" in data["reason"]
    assert data["provider_status"] == "dreaming"
    assert data["batch_id"] == data["id"] == "batch_1"
    assert data["expires_at"] == started + 24 * 3600
    assert data["last_progress_at"] == started
    assert (data["status"], data["outcome"]) == ("validating", None)


async def test_an_unknown_status_wakes_the_lookout_at_once(stage: Stage) -> None:
    await stage.scene.register("batch_1", events=ASKED)
    await stage.look(after=rules.FIRST_LOOK_SECONDS)
    stage.lookout.signal.set()
    assert await stage.lookout.signal.wait(5)
    await stage.scene.see(seen("batch_1", stage.clock))
    assert not await stage.lookout.signal.wait(0)
    await stage.scene.see(seen("batch_1", stage.clock, None))
    assert await stage.lookout.signal.wait(5)
    assert await stage.look() == [("batch_1", "unknown_status")]


async def test_it_may_stall_anew_after_progress_and_each_time_is_an_event(stage: Stage) -> None:
    await stage.scene.register("batch_1", events=ASKED)
    long = {"created_at": int(stage.clock()), "expires_at": int(stage.clock()) + 99 * 24 * 3600}
    for done in range(3):
        counts = Counts(total=9, completed=done, failed=0)
        await stage.scene.see(seen("batch_1", stage.clock, timestamps=long, counts=counts))
        await stage.look(after=rules.FIRST_LOOK_SECONDS)
        assert len(await stage.look(after=7 * HOUR)) == done + 1
    assert len(await stage.scene.deliveries()) == 3


async def test_nobody_asked_nothing_is_written_but_it_is_logged_and_shown(stage: Stage) -> None:
    await stage.scene.register("batch_1")
    await stage.scene.see(seen("batch_1", stage.clock, None))
    await stage.look()
    assert await stage.scene.events() == []
    read = stage.scene.store.read
    batch = await read(batches.get_batch, DEFAULT_PROJECT, "batch_1")
    assert rules.holding(batch, stage.clock()) == [Alarm.UNKNOWN_STATUS]
    counts = await read(alarms.count_stalled, now=stage.clock() + 30 * HOUR)
    assert counts == {Alarm.UNKNOWN_STATUS: 1, Alarm.OVERDUE: 1, Alarm.NO_PROGRESS: 0}


async def test_batches_that_are_well_are_not_written(stage: Stage) -> None:
    await stage.scene.register("batch_1", "batch_2", events=ASKED)
    await stage.scene.see(seen("batch_1", stage.clock), seen("batch_2", stage.clock))
    before = await rewritten(stage)
    await stage.look(after=rules.FIRST_LOOK_SECONDS - 1)
    assert await rewritten(stage) == before
    await stage.look(after=2)
    looked = await rewritten(stage)
    assert looked != before
    for _ in range(5):
        await stage.look(after=HOUR)
    assert await rewritten(stage) == looked


async def test_what_is_usual_is_learnt_from_the_account_s_last_batches(stage: Stage) -> None:
    ids = [f"batch_{n}" for n in range(6)]
    await stage.scene.register(*ids, "slow", events=ASKED)
    made = {"created_at": int(stage.clock()), "expires_at": int(stage.clock()) + 10**6}
    stage.clock.advance(600)
    await stage.scene.see(*(snapshot(id, timestamps=made) for id in ids))
    await stage.scene.see(seen("slow", stage.clock, timestamps=made))
    await stage.look()
    assert await stage.look(after=0.9 * HOUR) == []
    assert await stage.look(after=0.2 * HOUR) == [("slow", "no_progress")]


async def test_the_operator_s_own_patience_counts(stage: Stage) -> None:
    impatient = Stage(stage.scene, stalled_after=90.0, expiring_soon=23.0 * HOUR)
    await stage.scene.register("batch_1", events=ASKED)
    await stage.scene.see(seen("batch_1", stage.clock))
    assert await impatient.look(after=61) == []
    assert await impatient.look(after=30) == [("batch_1", "no_progress")]
    assert ("batch_1", "expiring_soon") in await impatient.look(after=18 * HOUR)


async def test_a_clock_that_was_put_back_far_hides_nothing(stage: Stage) -> None:
    await stage.scene.register("batch_1", events=ASKED)
    stage.clock.advance(-30 * 24 * HOUR)
    await stage.scene.see(seen("batch_1", stage.clock, None))
    stage.clock.advance(-30 * 24 * HOUR)
    assert await stage.look() == [("batch_1", "unknown_status")]


async def test_what_rings_for_a_part_rings_for_its_submission(stage: Stage) -> None:
    scene = stage.scene
    watch = replace(scene.wanted("sub_1")[0], events=ASKED)
    asked = Asked(
        id="sub_1",
        account_id=scene.account.id,
        endpoint="/v1/responses",
        model="m",
        parts=[NewPart(f"prt_{n}", lines=1, size=1, tokens=1) for n in (1, 2)],
        watch=watch,
    )
    await scene.store.write(
        submissions.create, DEFAULT_PROJECT, asked, mint=scene.mint, now=stage.clock()
    )
    await scene.register("batch_1", "batch_2")
    ours = schema.batches
    for part, batch in (("prt_1", "batch_1"), ("prt_2", "batch_2")):

        def tie(connection: Connection, part: str = part, batch: str = batch) -> None:
            this = ours.c.id == batch
            connection.execute(ours.update().where(this).values(kind=BatchKind.PART))
            key = connection.execute(ours.select().where(this)).one().key
            row = schema.parts.update().where(schema.parts.c.id == part)
            connection.execute(row.values(batch_key=key))

        await scene.store.write(tie)
    await scene.see(seen("batch_1", stage.clock, None), seen("batch_2", stage.clock, None))
    assert await stage.look() == [("sub_1", "unknown_status")], "once, though two parts have it"
    (event,) = await scene.events()
    assert json.loads(event.body)["data"]["batch_id"] in ("batch_1", "batch_2")


async def test_looks_at_batches_by_an_index(stage: Stage) -> None:
    """A plan is only good where the table is large: the index alone can answer."""

    def plan(connection: Connection) -> str:
        query = "SELECT min(alarm_at) FROM batches WHERE ended_at IS NULL"
        if connection.dialect.name == "sqlite":
            rows = connection.execute(text(f"EXPLAIN QUERY PLAN {query}"))
        else:
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            rows = connection.execute(text(f"EXPLAIN {query}"))
        return "\n".join(str(row) for row in rows)

    assert "ix_batches_alarm" in await stage.scene.store.read(plan)
