"""The Python client, blocking and awaited, against a real server."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest

from batchbell import client
from batchbell.client import (
    AccessRefused,
    ApiError,
    AsyncBatchbell,
    Batch,
    Batchbell,
    NothingFound,
    ServerUnavailable,
    ServerUnreachable,
    WaitTimedOut,
    WatchSpec,
    calls,
)
from batchbell.client.waits import LOOK_SECONDS, LOOK_SECONDS_MAX, Wait
from batchbell.core.model import Outcome, Status

from ..conftest import SECRET
from .making import HOOK, Served, a_snapshot

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
async def bell(served: Served) -> AsyncIterator[AsyncBatchbell]:
    async with AsyncBatchbell(served.url) as bell:
        yield bell


async def test_every_call_says_what_the_server_said(served: Served, bell: AsyncBatchbell) -> None:
    watch = await bell.watch("batch_1", HOOK, events=["batch.completed"], metadata={"a": "b"})
    assert (watch.batch_id, watch.events, watch.metadata) == (
        "batch_1",
        ("batch.completed",),
        {"a": "b"},
    )
    assert await bell.get_watch(watch.id) == watch
    await served.see(a_snapshot("batch_1"))
    [delivery_id] = await served.try_all(Outcome(status=204, duration_ms=1.0))
    batch = await bell.batch("batch_1")
    assert (batch.status, batch.ended, batch.batchbell.outcome) == ("completed", True, "succeeded")
    delivery = await bell.delivery(delivery_id)
    assert delivery.attempts is not None
    assert [attempt.result for attempt in delivery.attempts] == ["delivered"]
    event = await bell.event(delivery.event_id)
    assert event.deliveries is not None
    assert event.deliveries.delivered == 1
    assert [d.state for d in await bell.resend(event.id)] == ["pending"]
    assert [d.id async for d in bell.deliveries(state="pending")] == [delivery_id]
    assert [e.id async for e in bell.events(delivery_success=False)] == [event.id]
    changed = await bell.update_watch(watch.id, results="none", metadata=None)
    assert (changed.id, changed.results, changed.metadata) == (watch.id, "none", {})
    await bell.delete_watch(watch.id)
    assert [w async for w in bell.list_watches()] == []
    assert [account.name for account in await bell.accounts()] == ["openai"]
    assert await bell.secret() == SECRET
    assert (await bell.ready()).ready


async def test_a_replay_is_counted_begun_followed_and_cancelled(
    served: Served, bell: AsyncBatchbell
) -> None:
    await bell.watch("batch_1", HOOK)
    await served.see(a_snapshot("batch_1"))
    await served.try_all(Outcome(status=500, duration_ms=1.0))
    assert (await bell.count_replay(status="failed")).total == 1
    made = await bell.replay(since=0, types=["batch.completed"], pace=5, as_new=True)
    assert (made.state, made.total, made.as_new, made.pace) == ("running", 1, True, 5.0)
    assert await bell.get_replay(made.id) == made
    assert [found.id async for found in bell.list_replays()] == [made.id]
    assert (await bell.cancel_replay(made.id)).state == "cancelled"


async def test_lists_are_walked_page_by_page(served: Served, bell: AsyncBatchbell) -> None:
    specs = [WatchSpec(f"batch_{i}", HOOK) for i in range(7)]
    made = await bell.watch_many(specs)
    assert [watch.batch_id for watch in made] == [spec.batch_id for spec in specs]
    found = [watch.id async for watch in bell.list_watches(page_size=3)]
    assert found == [watch.id for watch in reversed(made)]
    assert len([batch async for batch in bell.batches(page_size=3)]) == 7


async def test_a_batch_tells_its_story(served: Served, bell: AsyncBatchbell) -> None:
    watch = await bell.watch("batch_1", HOOK)
    await served.see(a_snapshot("batch_1"))
    failed = Outcome(status=503, started_at=served.context.clock(), duration_ms=12.5)
    await served.try_all(failed)
    story = await bell.timeline("batch_1")
    assert (story.batch_id, story.account, story.left_out) == ("batch_1", "openai", ())
    assert list(story.data) == sorted(story.data, key=lambda one: one.at)
    by_kind = {one.kind: one for one in story.data}
    registered, ended, attempt = by_kind["registered"], by_kind["ended"], by_kind["attempt"]
    assert (registered.after_seconds, ended.status) == (0, "completed")
    assert ended.after_seconds == ended.at - registered.at < 0  # by the provider's clock
    assert by_kind["watched"].watch_id == watch.id
    assert by_kind["seen"].provider_status == "completed"
    assert (attempt.http_status, attempt.status, attempt.attempt) == (503, "failed", 1)
    assert attempt.timings is not None
    with pytest.raises(NothingFound):
        await bell.timeline("batch_never")


async def test_lists_take_what_they_are_asked_for(served: Served, bell: AsyncBatchbell) -> None:
    for id in ("batch_1", "batch_2", "other_3"):
        await served.watch(id)
    await served.see(a_snapshot("batch_1"), a_snapshot("other_3"))
    now = served.context.clock()
    found = bell.batches(
        id="batch_",
        outcome="succeeded",
        provider="openai",
        account="openai",
        metadata={"night": "yes"},
        since=now - 9,
        until=now + 9,
        ended_since=1,
        ended_until=now,
        page_size=1,
    )
    assert [one.id async for one in found] == ["batch_1"]
    assert [one async for one in bell.batches(model="none")] == []
    assert [one async for one in bell.submissions(status="completed", since=1.5)] == []
    how = {"batch_id": "batch_1", "type": "batch.completed", "since": now - 9, "until": now + 9}
    (delivery,) = [one async for one in bell.deliveries(**how)]
    how["endpoint_id"] = delivery.endpoint_id
    assert [one.id async for one in bell.deliveries(**how)] == [delivery.id]
    assert [one.id async for one in bell.events(**how)] == [delivery.event_id]
    assert [one async for one in bell.events(endpoint_id="whe_none")] == []


async def test_keys_are_made_listed_and_revoked(served: Served, bell: AsyncBatchbell) -> None:
    made = await bell.create_key("ci")
    assert made.key is not None
    assert made.key not in repr(made)
    with pytest.raises(AccessRefused) as refused:
        await bell.list_keys()
    assert (refused.value.status, refused.value.code) == (401, "missing_api_key")
    async with AsyncBatchbell(served.url, made.key) as holder:
        assert [key.id for key in await holder.list_keys()] == [made.id]
        await holder.revoke_key(made.id)


async def test_an_error_carries_what_the_server_said(bell: AsyncBatchbell) -> None:
    with pytest.raises(NothingFound) as missing:
        await bell.batch("../keys")
    assert "../keys" in missing.value.message
    with pytest.raises(ApiError) as wrong:
        await bell.watch("a b", HOOK)
    assert (wrong.value.status, wrong.value.code, wrong.value.param) == (
        400,
        "invalid_value",
        "batch_id",
    )


async def test_not_ready_is_an_answer_and_no_error(served: Served, bell: AsyncBatchbell) -> None:
    served.workers["watcher"] = False
    readiness = await bell.ready()
    assert (readiness.ready, len(readiness.reasons)) == (False, 1)


async def test_the_blocking_client_says_the_same(served: Served) -> None:
    def use() -> tuple[str, list[str], Batch]:
        with Batchbell(served.url) as bell:
            watch = bell.watch("batch_1", HOOK)
            ids = [found.id for found in bell.list_watches(page_size=1)]
            return watch.id, ids, bell.batch("batch_1")

    watch_id, ids, batch = await asyncio.to_thread(use)
    assert ids == [watch_id]
    assert batch.status == "validating"


def test_both_clients_offer_the_same_calls() -> None:
    def offered(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and name not in ("close", "aclose")
        }

    assert offered(Batchbell) == offered(AsyncBatchbell)


def test_an_old_client_reads_a_new_server() -> None:
    """It passes over fields that it does not know, and takes words that it does not know."""
    watch = {
        "object": "watch",
        "id": "w_1",
        "batch_id": "batch_1",
        "url": HOOK,
        "events": ["batch.renamed"],
        "metadata": {},
        "endpoint_id": "ep_1",
        "dialect": "later",
        "created_at": 1,
        "results": "carried",
        "more": {"of": ["everything"]},
    }
    read = calls.get_watch("w_1").read(200, msgspec.json.encode(watch))
    assert (read.dialect, read.results, read.events) == ("later", "carried", ("batch.renamed",))


def test_nobody_listening_is_said_plainly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        Batchbell(f"http://127.0.0.1:{port}") as bell,
        pytest.raises(ServerUnreachable, match="batchbell serve"),
    ):
        bell.ready()


def test_url_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BATCHBELL_URL", raising=False)
    monkeypatch.delenv("BATCHBELL_API_KEY", raising=False)
    assert calls.server_url(None) == "http://127.0.0.1:3000"
    assert "authorization" not in calls.headers(None)
    monkeypatch.setenv("BATCHBELL_URL", "https://bell.example/")
    monkeypatch.setenv("BATCHBELL_API_KEY", "bb_env")
    assert calls.server_url(None) == "https://bell.example"
    assert calls.headers(None)["authorization"] == "Bearer bb_env"
    assert calls.headers("bb_given")["authorization"] == "Bearer bb_given"


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (502, b"<html>Bad Gateway</html>", ServerUnavailable),
        (404, b"", NothingFound),
        (200, b"<html>", ApiError),
        (200, b"{}", ApiError),
        (418, b'{"error": "text"}', ApiError),
    ],
)
def test_what_is_no_answer_of_ours_is_an_error(
    status: int, content: bytes, kind: type[ApiError]
) -> None:
    with pytest.raises(kind) as caught:
        calls.batch("batch_1").read(status, content)
    assert caught.value.status == status


async def test_waiting_ends_with_the_batch(served: Served, bell: AsyncBatchbell) -> None:
    await bell.watch("batch_1", HOOK)
    seen: list[str] = []
    first_seen = asyncio.Event()

    def note(batch: Batch) -> None:
        seen.append(batch.batchbell.status)
        first_seen.set()

    waiting = asyncio.create_task(bell.wait("batch_1", on_change=note))
    await first_seen.wait()
    await served.see(a_snapshot("batch_1", Status.COMPLETED))
    assert (await waiting).ended
    assert seen == ["validating", "completed"]


async def test_waiting_has_an_end(bell: AsyncBatchbell) -> None:
    await bell.watch("batch_1", HOOK)
    with pytest.raises(WaitTimedOut, match="validating"):
        await bell.wait("batch_1", timeout=0)


async def a_batch(bell: AsyncBatchbell) -> Batch:
    await bell.watch("batch_1", HOOK)
    return await bell.batch("batch_1")


async def test_looks_grow_rarer_until_something_changes(bell: AsyncBatchbell) -> None:
    batch = await a_batch(bell)
    wait = Wait("batch_1", started=0.0, timeout=None, on_change=None)
    pauses = []
    for _ in range(30):
        assert wait.see(batch) is False
        pauses.append(wait.pause_seconds(now=0.0))
    assert (pauses[0], pauses[-1]) == (LOOK_SECONDS, LOOK_SECONDS_MAX)
    assert pauses == sorted(pauses)
    wait.see(msgspec.structs.replace(batch, status="in_progress"))
    assert wait.pause_seconds(now=0.0) == LOOK_SECONDS


def test_a_server_that_is_away_is_waited_for_until_the_time_is_up() -> None:
    wait = Wait("batch_1", started=0.0, timeout=10.0, on_change=None)
    away = ServerUnreachable("gone")
    wait.miss(away, now=9.0)
    assert wait.pause_seconds(now=9.5) == 0.5
    with pytest.raises(ServerUnreachable):
        wait.miss(away, now=10.0)


def test_everything_that_is_offered_is_there() -> None:
    assert [name for name in client.__all__ if not hasattr(client, name)] == []
    assert client.__all__ == sorted(client.__all__)


async def test_an_endpoint_is_managed_from_making_to_deleting(bell: AsyncBatchbell) -> None:
    made = await bell.create_endpoint(HOOK, "nightly", event_types=["batch.completed"])
    assert made.signing_secret is not None
    assert made.signing_secret not in repr(made)
    assert (await bell.update_endpoint(made.id, name="daily")).name == "daily"
    rotated = await bell.rotate_secret(made.id, keep_old_seconds=60)
    assert (rotated.active_secrets, rotated.signing_secret is None) == (2, False)
    result = await bell.test_endpoint(made.id)
    assert (result.success, result.attempt.fault) == (False, "connection_failed")
    assert (await bell.enable_endpoint(made.id)).state == "active"
    assert [one.id async for one in bell.endpoints()] == [made.id]
    await bell.delete_endpoint(made.id)
    with pytest.raises(NothingFound):
        await bell.endpoint(made.id)
