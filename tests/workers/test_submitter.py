"""Submissions: handed in in parts, watched, joined, told of once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import text
from tests.failing_work import die
from tests.storage.test_postgres_store import one_waits
from tests.workers.conftest import House
from tests.workers.submitting import Counter, counting, snapshot_of, states
from tests.workers.test_watcher import batch_of

from batchbell import threads
from batchbell.core import submission as rules
from batchbell.core.errors import LeaseLost, NotFound
from batchbell.core.model import DEFAULT_PROJECT, Counts, Status
from batchbell.core.submission import TAG, PartState, new_name
from batchbell.net.api import ApiClient
from batchbell.providers import open_provider
from batchbell.sandbox import Sandbox, problem
from batchbell.storage import batches, events, parts, retention, submissions
from batchbell.storage.accounts import ensure_account
from batchbell.storage.postgresql import PostgresStore
from batchbell.workers.loop import LOOK_SECONDS
from batchbell.workers.submitter import SHARES

NO_ROOM = problem(
    "token_limit_exceeded",
    "Enqueued token limit reached for gpt-5-mini in organization x. Limit: 150 enqueued tokens.",
)


@pytest.fixture
async def counter(house: House, tmp_path: Path) -> AsyncIterator[Counter]:
    async with counting(house, tmp_path) as counter:
        yield counter


async def told(counter: Counter) -> list[dict[str, Any]]:
    await counter.house.deliver()
    return [json.loads(hook.body) for hook in counter.house.receiver.received]


async def test_parts_are_handed_in_in_order_and_told_of_once(counter: Counter) -> None:
    id = await counter.submit(10, metadata={"night": "yes"})
    await counter.step()
    found = await counter.of(id)
    assert found.batch.status is Status.IN_PROGRESS
    assert states(found.parts) == ["running"] * 3
    made = counter.created()
    assert [one["request_counts"]["total"] for one in made] == [4, 4, 2]
    assert [one["metadata"][TAG] for one in made] == [part.tag for part in found.parts]
    ids = await counter.running(id)
    await counter.end(ids[:2])
    assert not await told(counter)
    await counter.end(ids[2:])
    [event] = await told(counter)
    assert event["type"] == "batch.completed"
    data = event["data"]
    assert (data["id"], data["status"], data["outcome"]) == (id, "completed", "succeeded")
    assert data["request_counts"] == {"total": 10, "completed": 10, "failed": 0}
    assert data["parts"] == ids
    assert data["metadata"] == {"night": "yes"}
    assert data["usage"]["total_tokens"] > 0


async def test_results_are_joined_in_the_order_of_the_input(counter: Counter) -> None:
    id = await counter.submit(10)
    await counter.step()
    await counter.end(list(reversed(await counter.running(id))), failed=1)
    lines = await counter.lines(id)
    assert [line["custom_id"] for line in lines] == [f"r{n}" for n in range(10)]
    merged = await counter.results(id)
    assert merged.tally is not None
    assert (merged.tally.succeeded, merged.tally.failed, merged.tally.notes) == (7, 3, ())
    left = [path.name for path in (counter.results_store.root / DEFAULT_PROJECT).iterdir()]
    assert not [name for name in left if "requests" in name], "they are kept no longer"


async def test_endpoints_of_the_project_hear_of_the_whole_only(counter: Counter) -> None:
    id = await counter.submit(10)
    await counter.step()
    await counter.end(await counter.running(id))
    page = await counter.house.read(events.list_events, DEFAULT_PROJECT, limit=100)
    assert len([event for event in page.items if event.batch_id == id]) == 1


async def test_what_the_provider_left_is_tried_again_and_put_in_its_place(
    counter: Counter,
) -> None:
    id = await counter.submit(8, retry_missing=1)
    await counter.step()
    first, second = await counter.running(id)
    await counter.end([first], "expired", completed=1)
    await counter.end([second])
    [again] = await counter.running(id)
    assert counter.created()[-1]["request_counts"]["total"] == 3
    await counter.end([again])
    [event] = await told(counter)
    assert event["type"] == "batch.completed"
    assert event["data"]["request_counts"] == {"total": 8, "completed": 8, "failed": 0}
    assert event["data"]["parts"] == [first, again, second]
    lines = await counter.lines(id)
    assert [line["custom_id"] for line in lines] == [f"r{n}" for n in range(8)]
    assert all(line["response"]["status_code"] == 200 for line in lines)


async def test_retries_have_an_end(counter: Counter) -> None:
    id = await counter.submit(4, retry_missing=2)
    await counter.step()
    for _ in range(3):
        await counter.end(await counter.running(id), "expired", completed=0)
    [event] = await told(counter)
    assert event["type"] == "batch.expired"
    assert len(counter.created()) == 3
    lines = await counter.lines(id)
    assert [line["error"]["code"] for line in lines] == ["batch_expired"] * 4


async def test_retries_cost_no_more_than_they_may(counter: Counter) -> None:
    """Two parts expire at once, and there is enough for one of them."""
    id = await counter.submit(8, retry_missing=3, retry_max_tokens=200)
    await counter.step()
    first, second = (await counter.of(id)).parts
    assert max(first.tokens, second.tokens) <= 200 < first.tokens + second.tokens
    await counter.end(await counter.running(id), "expired", completed=0)
    [again] = await counter.running(id)
    await counter.end([again])
    [event] = await told(counter)
    assert event["type"] == "batch.expired"
    assert event["data"]["request_counts"]["completed"] == 4
    assert len(counter.created()) == 3


async def test_requests_that_are_wrong_are_not_tried_again(counter: Counter) -> None:
    id = await counter.submit(4, retry_missing=3)
    await counter.step()
    await counter.end(await counter.running(id), failed=2)
    [event] = await told(counter)
    counts = {"total": 4, "completed": 2, "failed": 2}
    assert (event["type"], event["data"]["request_counts"]) == ("batch.completed", counts)


async def test_a_part_without_room_waits_until_another_has_ended(counter: Counter) -> None:
    id = await counter.submit(12)
    await counter.step()
    first, second, third = await counter.running(id)
    await counter.end([second], "failed", problems=[NO_ROOM])
    found = await counter.of(id)
    assert states(found.parts) == ["running", "waiting", "running"]
    assert snapshot_of(found).problems == ()
    await counter.wait()
    assert states((await counter.of(id)).parts) == ["running", "waiting", "running"]
    known = await counter.house.read(parts.learnt, counter.house.account.id, "gpt-5-mini")
    assert known.cap == 150
    await counter.end([first, third])
    [again] = await counter.running(id)
    assert again not in (first, second, third)
    await counter.end([again])
    [event] = await told(counter)
    assert event["data"]["outcome"] == "succeeded"
    assert len(await counter.lines(id)) == 12


async def test_a_part_that_is_larger_than_the_limit_is_split(counter: Counter) -> None:
    id = await counter.submit(8)
    await counter.step()
    first, second = await counter.running(id)
    tight = problem("token_limit_exceeded", "Limit: 70 enqueued tokens.")
    await counter.end([first], "failed", problems=[tight])
    assert [part.lines for part in (await counter.of(id)).parts] == [2, 2, 4]
    await counter.end([second])
    while running := await counter.running(id):
        await counter.end(running)
    [event] = await told(counter)
    assert event["data"]["request_counts"] == {"total": 8, "completed": 8, "failed": 0}
    assert [line["custom_id"] for line in await counter.lines(id)] == [f"r{n}" for n in range(8)]


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """All work is done in child processes, and given up after two deaths in a row."""
    monkeypatch.setattr("batchbell.threads.APART_BYTES", 0)
    monkeypatch.setattr(rules, "DEATHS_MAX", 2)
    yield monkeypatch
    threads.children.end()


@pytest.mark.databases("sqlite")
async def test_requests_that_kill_whoever_gathers_them_are_not_tried_again(
    counter: Counter, deadly: pytest.MonkeyPatch
) -> None:
    id = await counter.submit(4, retry_missing=1)
    await counter.step()
    deadly.setattr("batchbell.workers.submitter.gather_passing", die)
    await counter.end(await counter.running(id), "expired", completed=1)
    for deaths in (1, 2):
        found = await counter.of(id)
        assert (found.failures, found.batch.status) == (deaths, Status.IN_PROGRESS)
        assert "died of signal 9" in str(found.reason)
        await counter.wait()
    [event] = await told(counter)
    assert event["type"] == "batch.expired"
    assert event["data"]["request_counts"]["completed"] == 1
    assert len(await counter.lines(id)) == 4
    assert len(counter.created()) == 1


@pytest.mark.databases("sqlite")
async def test_a_part_that_kills_whoever_splits_it_is_rejected_and_the_others_go_on(
    counter: Counter, deadly: pytest.MonkeyPatch
) -> None:
    id = await counter.submit(8)
    await counter.step()
    first, second = await counter.running(id)
    tight = problem("token_limit_exceeded", "Limit: 70 enqueued tokens.")
    deadly.setattr("batchbell.workers.submitter.split_file", die)
    await counter.end([first], "failed", problems=[tight])
    for _ in range(3):
        await counter.wait()
    await counter.end([second])
    [event] = await told(counter)
    assert (event["type"], event["data"]["outcome"]) == ("batch.completed", "partial")
    assert "died of signal 9" in event["data"]["errors"][0]["message"]
    lines = await counter.lines(id)
    assert [bool(line["error"]) for line in lines] == [True] * 4 + [False] * 4


async def test_a_part_that_failed_otherwise_is_not_handed_in_again(counter: Counter) -> None:
    id = await counter.submit(8)
    await counter.step()
    first, second = await counter.running(id)
    await counter.end([first], "failed", problems=[problem("invalid_url", "No.", line=1)])
    await counter.end([second])
    [event] = await told(counter)
    assert (event["type"], event["data"]["outcome"]) == ("batch.completed", "partial")
    assert event["data"]["errors"][0]["code"] == "invalid_url"
    lines = await counter.lines(id)
    assert [bool(line["error"]) for line in lines] == [True] * 4 + [False] * 4
    assert len(counter.created()) == 2


async def test_when_nothing_succeeded_it_has_failed(counter: Counter) -> None:
    id = await counter.submit(4)
    await counter.step()
    problems = [problem("invalid_url", "No.", line=1)]
    await counter.end(await counter.running(id), "failed", problems=problems)
    [event] = await told(counter)
    assert (event["type"], event["data"]["outcome"]) == ("batch.failed", "none")


async def test_cancelling_cancels_what_runs_and_what_waits(counter: Counter) -> None:
    id = await counter.submit(12)
    counter.house.provider.faults.add("status", status=503, route="create", skip_calls=2)
    await counter.step()
    assert len(await counter.running(id)) == 2
    store, now = counter.house.store, counter.house.clock()
    await store.write(submissions.cancel, DEFAULT_PROJECT, id, now=now)
    await counter.step()
    assert (await counter.of(id)).batch.status is Status.CANCELLING
    assert counter.house.provider.calls["cancel"] == 2
    first, second = await counter.running(id)
    await counter.end([first], "cancelled", completed=3)
    await counter.end([second], "cancelled", completed=0)
    while (await counter.of(id)).parts[2].state is PartState.SUBMITTING:
        await counter.wait()  # it may have been handed in
    await counter.step()
    [event] = await told(counter)
    assert event["type"] == "batch.cancelled"
    assert event["data"]["request_counts"] == {"total": 12, "completed": 3, "failed": 0}
    lines = await counter.lines(id)
    assert [line["custom_id"] for line in lines] == [f"r{n}" for n in range(12)]
    codes = Tally((line["error"] or {}).get("code") for line in lines)
    assert codes == {None: 3, "batch_cancelled": 9}
    assert len(counter.created()) == 2


async def test_an_answer_that_was_lost_is_looked_for_before_posting_again(
    counter: Counter,
) -> None:
    """The provider made the batch, and the line broke."""
    id = await counter.submit(4)
    counter.house.provider.faults.add("truncated", route="create")
    await counter.step()
    found = await counter.of(id)
    assert (states(found.parts), len(counter.created())) == (["submitting"], 1)
    assert found.reason
    counter.house.provider.add_batches(250)
    await counter.wait()
    assert states((await counter.of(id)).parts) == ["running"]
    assert len([one for one in counter.created() if TAG in (one["metadata"] or {})]) == 1


async def test_a_provider_in_trouble_is_asked_again(counter: Counter) -> None:
    id = await counter.submit(8)
    counter.house.provider.faults.add("status", status=503, route="upload", times=3)
    await counter.step()
    assert (await counter.of(id)).reason
    for _ in range(3):
        await counter.wait()
    found = await counter.of(id)
    assert (states(found.parts), found.reason) == (["running"] * 2, None)


async def test_what_a_provider_rejects_is_not_posted_again(counter: Counter) -> None:
    id = await counter.submit(4)
    counter.house.provider.faults.add("status", status=400, route="create", times=None)
    await counter.step()
    [event] = await told(counter)
    assert event["type"] == "batch.failed"
    assert event["data"]["errors"][0]["code"] == "part_rejected"
    assert [line["error"]["code"] for line in await counter.lines(id)] == ["not_run"] * 4


async def test_a_step_whose_lease_was_lost_writes_nothing(counter: Counter) -> None:
    id = await counter.submit(4)
    held = await counter.house.store.write(
        parts.claim_due,
        counter.house.account.id,
        now=counter.house.clock(),
        lease_seconds=1.0,
        token="first",
    )
    assert held is not None
    counter.house.clock.advance(2.0)
    await counter.step()
    assert states((await counter.of(id)).parts) == ["running"]
    assert len(counter.created()) == 1
    with pytest.raises(LeaseLost):
        await counter.house.store.write(parts.intend, held, held.parts[0], now=0.0)


async def test_what_requests_used_is_learnt(counter: Counter) -> None:
    id = await counter.submit(4)
    await counter.step()
    await counter.end(await counter.running(id))
    known = await counter.house.read(parts.learnt, counter.house.account.id, "gpt-5-mini")
    assert known.tokens > 0
    assert known.bytes > 0


async def test_expunging_a_submission_leaves_nothing_of_its_parts(counter: Counter) -> None:
    id = await counter.submit(8)
    await counter.step()
    ids = await counter.running(id)
    await counter.end(ids)
    await told(counter)
    store = counter.house.store
    await store.write(retention.expunge, DEFAULT_PROJECT, id, now=counter.house.clock())
    await counter.step()
    assert not list((counter.results_store.root / DEFAULT_PROJECT).iterdir())
    found = await counter.of(id)
    assert all(part.batch and part.batch.expunged_at for part in found.parts)


async def test_submissions_are_forgotten_with_their_batches(counter: Counter) -> None:
    id = await counter.submit(8)
    await counter.step()
    await counter.end(await counter.running(id))
    await told(counter)
    counter.house.clock.advance(31 * 86_400.0)
    await counter.step()
    store, now = counter.house.store, counter.house.clock()
    assert await store.write(retention.forget_batches, before=now, limit=100) == 3
    with pytest.raises(NotFound):
        await counter.of(id)


@asynccontextmanager
async def connecting_to(base_url: str) -> AsyncIterator[Callable[..., ApiClient]]:
    made: list[ApiClient] = []

    def connect(_: str, headers: Mapping[str, str]) -> ApiClient:
        made.append(ApiClient(base_url, headers, timeout_seconds=60))
        return made[-1]

    yield connect
    for one in made:
        await one.aclose()


async def test_a_provider_that_never_answers_holds_up_its_own_account_only(
    counter: Counter, tmp_path: Path
) -> None:
    house = counter.house
    how = {"provider": "openai", "base_url": "x", "mint": house.mint, "now": house.clock()}
    other = await house.store.write(ensure_account, project_id=DEFAULT_PROJECT, name="other", **how)
    async with (
        Sandbox(api_key="sk-other", clock=house.clock) as sandbox,
        connecting_to(sandbox.base_url) as connect,
    ):
        provider = open_provider(other, "sk-other", connect=connect, clock=house.clock)
        counter.providers[other.id] = provider
        sandbox.provider.faults.add("hang", route="upload", times=None)
        for _ in range(3 * SHARES.of_account):
            await counter.submit(4, path=None, account_id=other.id)
        while await counter.submitter.step():
            pass
        await sandbox.provider.faults.until_hanging(SHARES.of_account)
        assert await counter.submitter.idle_seconds() == LOOK_SECONDS, "no slot of its own is free"
        id = await counter.submit(4)
        assert await counter.submitter.step()
        while not await counter.running(id):
            assert await counter.submitter.signal.wait(30)
        assert not await counter.submitter.step()
        await counter.submitter.close()


async def test_the_providers_lines_become_those_of_the_users_file(counter: Counter) -> None:
    """Every request has an empty line after it; one part is split, and one is tried again."""
    id = await counter.submit(8, ends=b"\n\n", retry_missing=1)
    await counter.step()
    first, second = await counter.running(id)
    wrong = [problem("invalid_url", "No.", line=n) for n in (2, 9)] + [problem("other", "No.")]
    await counter.end([second], "expired", completed=1)
    _, again = await counter.running(id)
    part = (await counter.of(id)).parts[-1]
    requests = (
        (counter.results_store.root / new_name(DEFAULT_PROJECT, part.id)).read_text().splitlines()
    )
    retried = int(json.loads(requests[1])["custom_id"].removeprefix("r"))
    await counter.end([again], "failed", problems=wrong)
    tight = problem("token_limit_exceeded", "Limit: 70 enqueued tokens.")
    await counter.end([first], "failed", problems=[tight])
    parts = (await counter.of(id)).parts
    assert [(part.lines, part.round) for part in parts] == [(2, 1), (2, 1), (4, 1), (3, 2)]
    [half] = await counter.running(id)
    await counter.end([half])
    [half] = await counter.running(id)
    await counter.end([half], "failed", problems=[problem("bad", "No.", line=1)])
    errors = snapshot_of(await counter.of(id)).problems
    assert [(one.code, one.line) for one in errors] == [
        ("bad", 5),
        ("invalid_url", 2 * retried + 1),
        ("invalid_url", None),
        ("other", None),
    ]


async def lose(counter: Counter, batch_id: str) -> None:
    """Have the provider know nothing of a batch until it counts as lost."""
    house = counter.house
    house.provider.faults.add("missing", batch_id=batch_id, times=None)
    while (await batch_of(house, batch_id)).status is not Status.LOST:
        house.clock.advance(2 * 3600)
        await house.sweep()
    await counter.step()


async def test_a_lost_part_that_comes_back_brings_nothing_expunged_back(counter: Counter) -> None:
    id = await counter.submit(8)
    await counter.step()
    first, second = await counter.running(id)
    await counter.end([first])
    await lose(counter, second)
    await counter.house.deliver()
    now = counter.house.clock()
    await counter.house.store.write(retention.expunge, DEFAULT_PROJECT, id, now=now)
    counter.house.provider.faults.clear()
    counter.house.provider.finish(second, "completed")
    counter.house.clock.advance(86_400)
    await counter.house.sweep()
    await counter.step()
    found = await counter.of(id)
    assert (found.batch.generation, found.batch.expunged_at) == (1, now)


@pytest.mark.parametrize("while_running", [False, True])
async def test_a_lost_part_that_comes_back_rings_the_true_end(
    counter: Counter, *, while_running: bool
) -> None:
    id = await counter.submit(8)
    await counter.step()
    first, second = await counter.running(id)
    if not while_running:
        await counter.end([first])
    await lose(counter, second)
    if not while_running:
        before = await counter.of(id)
        assert (before.batch.status, before.batch.generation) == (Status.COMPLETED, 1)
        assert snapshot_of(before).counts == Counts(total=8, completed=4, failed=0)
        assert len(await counter.lines(id)) == 8
    counter.house.provider.faults.clear()
    if while_running:
        counter.house.provider.finish(first, "completed")
    counter.house.provider.finish(second, "completed")
    counter.house.clock.advance(86_400)
    await counter.house.sweep()
    await counter.step()
    found = await counter.of(id)
    assert (found.batch.status, found.batch.generation) == (
        Status.COMPLETED,
        1 if while_running else 2,
    )
    assert snapshot_of(found).counts == Counts(total=8, completed=8, failed=0)
    assert snapshot_of(found).timestamps["completed_at"] == int(counter.house.clock())
    codes = [line["response"]["status_code"] for line in await counter.lines(id)]
    assert codes == [200] * 8
    await counter.house.deliver()
    ends = [json.loads(hook.body)["type"] for hook in counter.house.receiver.received]
    assert ends == ["batch.completed"] * (1 if while_running else 2)


async def test_a_lost_part_that_is_registered_again_runs_again(counter: Counter) -> None:
    id = await counter.submit(4)
    await counter.step()
    [only] = await counter.running(id)
    await lose(counter, only)
    [event] = await told(counter)
    assert event["type"] == "batch.failed"
    counter.house.provider.faults.clear()
    await counter.house.register(only)
    await counter.end([only])
    types = [one["type"] for one in await told(counter) if one["data"]["id"] == id]
    assert types == ["batch.failed", "batch.completed"]


async def test_a_sweep_and_a_step_lock_in_one_order(counter: Counter) -> None:
    """The step ends what holds it while a sweep, which has the lost part's row, waits for it."""
    store = counter.house.store
    if not isinstance(store, PostgresStore):
        pytest.skip("on SQLite one writes at a time")
    house = counter.house
    id = await counter.submit(4)
    await counter.step()
    [only] = await counter.running(id)
    await lose(counter, only)
    seen = replace(snapshot_of(await counter.of(id)), id=only, status=Status.IN_PROGRESS)

    async with store._engine.connect() as connection:
        transaction = await connection.begin()
        await connection.execute(text("SET LOCAL deadlock_timeout = '1h'"))
        lock = text("SELECT 1 FROM submissions WHERE id = :id FOR UPDATE")
        await connection.execute(lock, {"id": id})
        sweep = asyncio.create_task(
            store.write(
                batches.observe,
                account_id=house.account.id,
                sightings=[seen],
                mint=house.mint,
                now=house.clock(),
            )
        )
        await one_waits(store)
        whole = text("SELECT 1 FROM batches WHERE id = :id FOR UPDATE NOWAIT")
        await connection.execute(whole, {"id": id})
        await transaction.commit()
    await sweep
    found = await counter.of(id)
    assert (found.batch.generation, states(found.parts)) == (2, ["running"])
