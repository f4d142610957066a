"""`/v1/stream`: every event once, in frames that an EventSource reads, whatever happens."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from typing import Any

import asyncpg
import pytest
from sqlalchemy import select

from batchbell.core.errors import StoreUnavailable
from batchbell.core.ids import first_id
from batchbell.core.model import DEFAULT_PROJECT, EventType, Status
from batchbell.core.stream import OVERLAP_SECONDS
from batchbell.storage import events
from batchbell.storage.engine import Store
from batchbell.storage.opening import open_store
from batchbell.storage.projects import ensure_project
from batchbell.storage.schema import events as events_table
from batchbell.web import stream as serving
from batchbell.web.app import end_streams

from ..conftest import SECRET, Clock, master_key
from .following import following, nudge, trigger
from .making import Served, a_snapshot


async def test_an_event_comes_as_one_frame_with_the_body_that_is_sent(served: Served) -> None:
    async with following(served) as stream:
        assert stream.answer.headers["content-type"].startswith("text/event-stream")
        assert stream.opening.fields["retry"] == "1000"
        await served.watch("batch_1")
        await served.see(a_snapshot("batch_1"))
        frame = await stream.frame()
    (row,) = await served.context.store.read(lambda c: c.execute(select(events_table)).all())
    assert (frame.fields["id"], frame.fields["event"]) == (row.id, "batch.completed")
    canonical, sent = json.loads(row.body), frame.body
    assert f"/results/{row.results_id}?" in sent["data"].pop("results")["url"]
    assert sent == canonical
    assert sent["data"]["id"] == "batch_1"


async def test_without_a_place_it_begins_now(served: Served) -> None:
    await trigger(served)
    async with following(served) as stream:
        second = await trigger(served)
        assert await stream.ids(1) == [second]


async def test_what_happens_in_another_project_is_not_told(served: Served) -> None:
    store = served.context.store
    await store.write(ensure_project, id="other", secret=SECRET, now=0.0)
    async with following(served) as stream:
        await record_with(store, first_id("evt", at=served.context.clock()), "other")
        own = await trigger(served)
        assert await stream.ids(1) == [own]
    async with following(served, params={"after": first_id("evt", at=0)}) as stream:
        assert await stream.ids(1) == [own]


async def test_the_first_frame_says_where_an_empty_stream_would_go_on(served: Served) -> None:
    async with following(served) as stream:
        place = stream.opening.id
    missed = await trigger(served)
    async with following(served, headers={"Last-Event-ID": place}) as stream:
        assert await stream.ids(1) == [missed]


async def test_it_goes_on_after_an_event_with_the_window_before_it(
    served: Served, clock: Clock
) -> None:
    old = await trigger(served)
    clock.advance(OVERLAP_SECONDS + 1)
    late, last = await trigger(served), await trigger(served)
    new = await trigger(served)
    for how in ({"params": {"after": last}}, {"headers": {"Last-Event-ID": last}}):
        async with following(served, **how) as stream:
            assert await stream.ids(2) == [late, new]
    async with following(served, params={"after": old}, headers={"Last-Event-ID": new}) as stream:
        assert await stream.ids(2) == [late, last]


async def test_an_event_that_was_forgotten_stands_for_its_time(
    served: Served, clock: Clock
) -> None:
    await trigger(served)
    clock.advance(3600)
    forgotten = first_id("evt", at=clock())
    clock.advance(3600)
    new = await trigger(served)
    async with following(served, params={"after": forgotten}) as stream:
        assert await stream.ids(1) == [new]


async def test_only_the_types_that_were_asked_for_come(served: Served) -> None:
    wanted = {"types": ["batch.failed,batch.lost", "batch.expired"]}
    async with following(served, params=wanted) as stream:
        made = {type_: await trigger(served, type_) for type_ in EventType}
        frames = [await stream.frame() for _ in range(3)]
    types = sorted(frame.fields["event"] for frame in frames)
    assert types == ["batch.expired", "batch.failed", "batch.lost"]
    assert {frame.id for frame in frames} == {made[EventType(type_)] for type_ in types}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"after": "batch_1"}, "after"),
        ({"after": "evt_" + "u" * 25}, "after"),
        ({"types": "batch.done"}, "types"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    served: Served, query: dict[str, str], param: str
) -> None:
    answer = await served.http.get("/v1/stream", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_long_backlog_comes_whole_and_in_order(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "PAGE", 3)
    monkeypatch.setattr(serving, "IDS_PAGE", 7)
    start = first_id("evt", at=0)
    made = [await trigger(served) for _ in range(20)]
    async with following(served, params={"after": start}) as stream:
        assert await stream.ids(20) == made


async def test_a_quiet_stream_shows_that_it_lives(served: Served, clock: Clock) -> None:
    async with following(served) as stream:
        clock.advance(serving.HEARTBEAT_SECONDS)
        await nudge(served)
        assert (await stream.frame()).comment == "heartbeat"
        clock.advance(1)
        await nudge(served)
        made = await trigger(served)
        assert await stream.ids(1) == [made], "not every look is a sign of life"


async def record_with(store: Store, id: str, project_id: str = DEFAULT_PROJECT) -> None:
    await store.write(
        events.record_test,
        project_id,
        EventType.COMPLETED,
        mint=lambda _: id,
        now=0.0,
    )


async def test_what_commits_late_or_comes_from_a_clock_behind_is_not_missed(
    served: Served, clock: Clock
) -> None:
    early = first_id("evt", at=clock() - OVERLAP_SECONDS + 1)
    earlier = first_id("evt", at=clock() - OVERLAP_SECONDS + 0.5)
    async with following(served) as stream:
        now = await trigger(served)
        assert await stream.ids(1) == [now]
        await record_with(served.context.store, early)
        clock.advance(serving.LOOK_BACK_SECONDS)
        await nudge(served)
        assert await stream.ids(1) == [early]
        ahead = first_id("evt", at=clock() + 600)
        await record_with(served.context.store, ahead)
        assert await stream.ids(1) == [ahead]
        clock.now -= serving.LOOK_BACK_SECONDS
        await record_with(served.context.store, earlier)
        assert await stream.ids(1) == [earlier]
        last = await trigger(served)
        clock.advance(serving.LOOK_BACK_SECONDS)
        await nudge(served)
        assert await stream.ids(1) == [last], "a clock that is ahead hides nothing"


INSERT = (
    "INSERT INTO events (id, project_id, type, generation, created_at, recorded_at, body)"
    " VALUES ($1, 'default', 'batch.completed', 0, 0, 0, '{}')"
)


@pytest.mark.databases("postgresql")
async def test_two_transactions_that_commit_in_the_other_order_are_both_told(
    served: Served, database_url: str, clock: Clock
) -> None:
    first, second = (first_id("evt", at=clock() + after) for after in (0.001, 0.002))
    slow, quick = [await asyncpg.connect(database_url) for _ in range(2)]
    async with following(served) as stream:
        under_way = slow.transaction()
        await under_way.start()
        await slow.execute(INSERT, first)
        await quick.execute(INSERT, second)
        await nudge(served)
        assert await stream.ids(1) == [second]
        await under_way.commit()
        clock.advance(serving.LOOK_BACK_SECONDS)
        await nudge(served)
        assert await stream.ids(1) == [first]
    await slow.close()
    await quick.close()


@pytest.mark.databases("postgresql")
async def test_what_another_process_records_wakes_a_stream(
    served: Served, database_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "POLL_SECONDS", 3600.0)
    other = await open_store(database_url, master_key=master_key(database_url))
    async with following(served) as stream:
        id = first_id("evt", at=clock() + 1)
        await record_with(other, id)
        assert await stream.ids(1) == [id]
    await other.close()


async def test_a_stream_ends_with_its_key(served: Served) -> None:
    made = (await served.http.post("/v1/keys", json={"name": "one"})).json()
    other = (await served.http.post("/v1/keys", json={"name": "two"}, headers=bearer(made))).json()
    async with following(served, headers=bearer(made)) as stream:
        await served.http.delete(f"/v1/keys/{made['id']}", headers=bearer(other))
        await nudge(served)
        assert await stream.ends()


async def test_a_stream_of_local_mode_ends_when_a_key_is_made(served: Served) -> None:
    async with following(served) as stream:
        await served.http.post("/v1/keys", json={"name": "first"})
        await nudge(served)
        assert await stream.ends()


def bearer(key: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {key['key']}"}


async def test_a_stream_outlives_an_outage_of_the_database(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = served.context.store.read, asyncio.Event()

    async def gone(*_: Any, **__: Any) -> None:
        asked.set()
        raise StoreUnavailable("gone")

    async with following(served) as stream:
        monkeypatch.setattr(served.context.store, "read", gone)
        await nudge(served)
        await asked.wait()
        monkeypatch.setattr(served.context.store, "read", answers)
        made = await trigger(served)
        assert await stream.ids(1) == [made]


async def test_streams_are_counted_and_a_place_is_free_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "STREAMS_MAX", 1)
    async with following(served):
        answer = await served.http.get("/v1/stream")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "too_many_streams")
        assert answer.headers["retry-after"]
    async with asyncio.timeout(20):
        while served.app.state.surface.streams.full:
            await served.http.get("/healthz")
    async with following(served):
        pass


async def test_streams_end_when_the_server_stops(served: Served) -> None:
    async with following(served) as stream:
        end_streams(served.app)
        assert await stream.ends()


async def test_an_event_of_a_test_is_listed_and_told_to_no_endpoint(served: Served) -> None:
    wanted = {"name": "n", "url": "http://127.0.0.1:9/", "event_types": ["batch.failed"]}
    await served.http.post("/v1/webhook_endpoints", json=wanted)
    answer = await served.http.post("/v1/events", json={"type": "batch.failed"})
    event = answer.json()
    assert event["data"]["status"] == Status.FAILED
    assert event["data"]["metadata"] == {"test": "true"}
    assert (await served.http.get("/v1/events")).json()["data"] == [event]
    assert (await served.http.get("/v1/deliveries")).json()["data"] == []
    for status in ("missing", "failed", "all"):
        replay = await served.http.post("/v1/replays", json={"status": status, "dry_run": True})
        assert replay.json()["total"] == 0


async def test_a_test_event_without_a_type_is_a_completed_batch(served: Served) -> None:
    answer = await served.http.post("/v1/events")
    assert (answer.status_code, answer.json()["type"]) == (201, "batch.completed")
    wrong = await served.http.post("/v1/events", json={"type": "batch.done"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "type")


async def test_a_revoked_key_hears_nothing_more(served: Served) -> None:
    """What is recorded right after the revocation wakes the stream: it must not be told."""
    made = (await served.http.post("/v1/keys", json={"name": "one"})).json()
    other = (await served.http.post("/v1/keys", json={"name": "two"}, headers=bearer(made))).json()
    async with following(served, headers=bearer(made)) as stream:
        await served.http.delete(f"/v1/keys/{made['id']}", headers=bearer(other))
        await record_with(served.context.store, first_id("evt", at=served.context.clock() + 1))
        assert await stream.ends()


async def test_the_last_key_takes_its_streams_with_it(served: Served) -> None:
    """It used to become a stream of local mode."""
    made = (await served.http.post("/v1/keys", json={"name": "one"})).json()
    async with following(served, headers=bearer(made)) as stream:
        await served.http.delete(f"/v1/keys/{made['id']}", headers=bearer(made))
        await nudge(served)
        assert await stream.ends()


class TestFairness:
    """A project cannot keep the others from following."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serving, "STREAMS_MAX", 4)
        monkeypatch.setattr(serving, "PROJECT_STREAMS_MAX", 3)

    @pytest.fixture
    def database_url(self, ready_sqlite_url: str) -> str:
        return ready_sqlite_url

    def joined(self, streams: serving.Streams, stack: ExitStack, project: str) -> serving.Place:
        assert streams.refusal(project) is None
        return stack.enter_context(streams.joined(project))

    async def test_a_project_has_its_share_and_no_more(self, served: Served) -> None:
        streams = serving.Streams(served.context.store)
        with ExitStack() as stack:
            many = [self.joined(streams, stack, "many") for _ in range(3)]
            refusal = streams.refusal("many")
            assert refusal is not None
            assert refusal.status_code == 503
            self.joined(streams, stack, "one")
            self.joined(streams, stack, "two")
            assert [place.ended for place in many] == [False, False, True]
            assert streams.refusal("three") is None
            self.joined(streams, stack, "three")
            assert [place.ended for place in many] == [False, True, True]
            assert streams.refusal("one") is not None, "nobody has more than it would have"
        assert not streams.full
        assert streams._open == {}
