"""The official SDK, validating every answer, takes the sandbox for Anthropic's API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from batchbell.sandbox import Sandbox
from tests.sandbox.making import KEY, FakeClock
from tests.web.making import Served


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(
        api_key=KEY, base_url=sandbox.url, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def request(custom_id: str, model: str = "claude-sonnet-5") -> Any:
    messages = [{"role": "user", "content": f"Say {custom_id}."}]
    return {
        "custom_id": custom_id,
        "params": {"model": model, "max_tokens": 100, "messages": messages},
    }


async def test_a_batch_runs_from_its_creation_to_its_results(
    client: AsyncAnthropic, clock: FakeClock
) -> None:
    made = await client.messages.batches.create(
        requests=[request("a"), request("b", "claude-haiku-5")]
    )
    assert (made.processing_status, made.request_counts.processing) == ("in_progress", 2)
    assert (made.results_url, made.ended_at) == (None, None)
    with pytest.raises(anthropic.AnthropicError):
        await client.messages.batches.results(made.id)
    clock.advance(200)
    ended = await client.messages.batches.retrieve(made.id)
    assert (ended.processing_status, ended.request_counts.succeeded) == ("ended", 2)
    assert ended.ended_at is not None
    models = {}
    async for line in await client.messages.batches.results(made.id):
        assert line.result.type == "succeeded"
        assert line.result.message.usage.output_tokens > 0
        models[line.custom_id] = line.result.message.model
    assert models == {"a": "claude-sonnet-5", "b": "claude-haiku-5"}


async def test_batches_are_paged_both_ways(client: AsyncAnthropic, sandbox: Sandbox) -> None:
    ids = sandbox.anthropic.add_batches(5)
    assert [one.id async for one in client.messages.batches.list(limit=2)] == ids[::-1]
    first = await client.messages.batches.list(limit=2)
    assert (first.first_id, first.last_id, first.has_more) == (ids[4], ids[3], True)
    newer = await client.messages.batches.list(limit=2, before_id=ids[1])
    assert ([one.id for one in newer.data], newer.has_more) == ([ids[3], ids[2]], True)
    after = await client.messages.batches.list(limit=2, after_id=ids[1])
    assert ([one.id for one in after.data], after.has_more) == ([ids[0]], False)


async def test_a_batch_is_cancelled_and_then_deleted(
    client: AsyncAnthropic, clock: FakeClock
) -> None:
    made = await client.messages.batches.create(requests=[request("a")])
    with pytest.raises(anthropic.BadRequestError):
        await client.messages.batches.delete(made.id)
    asked = await client.messages.batches.cancel(made.id)
    assert asked.processing_status == "canceling"
    assert asked.cancel_initiated_at is not None
    clock.advance(20)
    ended = await client.messages.batches.retrieve(made.id)
    assert (ended.processing_status, ended.request_counts.canceled) == ("ended", 1)
    kinds = [line.result.type async for line in await client.messages.batches.results(made.id)]
    assert kinds == ["canceled"]
    with pytest.raises(anthropic.BadRequestError):
        await client.messages.batches.cancel(made.id)
    deleted = await client.messages.batches.delete(made.id)
    assert (deleted.id, deleted.type) == (made.id, "message_batch_deleted")
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.batches.retrieve(made.id)


@pytest.mark.parametrize(
    ("status", "completed", "failed", "kinds"),
    [
        ("completed", None, 1, ["errored", "succeeded", "succeeded"]),
        ("failed", None, 0, ["errored"] * 3),
        ("expired", 1, 1, ["errored", "expired", "succeeded"]),
        ("cancelled", None, 0, ["canceled"] * 3),
    ],
)
async def test_every_end_is_in_the_counts_and_the_lines(
    client: AsyncAnthropic,
    sandbox: Sandbox,
    status: str,
    completed: int | None,
    failed: int,
    kinds: list[str],
) -> None:
    id = sandbox.anthropic.add_batch(total=3)
    sandbox.anthropic.finish(id, status, completed=completed, failed=failed)
    counts = (await client.messages.batches.retrieve(id)).request_counts.model_dump()
    lines = [line.result.type async for line in await client.messages.batches.results(id)]
    assert sorted(lines) == kinds
    assert {name: number for name, number in counts.items() if number} == {
        name: kinds.count(name) for name in set(kinds)
    }


async def test_results_are_gone_after_29_days(
    client: AsyncAnthropic, sandbox: Sandbox, clock: FakeClock
) -> None:
    id = sandbox.anthropic.add_batch()
    sandbox.anthropic.finish(id)
    clock.advance(29 * 86_400)
    shown = await client.messages.batches.retrieve(id)
    assert shown.archived_at is not None
    assert shown.results_url is None


@pytest.mark.parametrize(
    "requests",
    [
        [],
        [request("a"), request("a")],
        [request("a b")],
        [request("x" * 65)],
        [{"custom_id": "a"}],
        [{"params": {}}],
    ],
)
async def test_requests_that_make_no_sense_are_refused(
    client: AsyncAnthropic, requests: list[Any]
) -> None:
    with pytest.raises(anthropic.BadRequestError) as error:
        await client.messages.batches.create(requests=requests)
    assert error.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]


async def test_a_wrong_key_and_an_unknown_batch_are_refused(
    client: AsyncAnthropic, sandbox: Sandbox
) -> None:
    with pytest.raises(anthropic.NotFoundError, match="msgbatch_none"):
        await client.messages.batches.retrieve("msgbatch_none")
    with pytest.raises(anthropic.AuthenticationError):
        await client.with_options(api_key="sk-other").messages.batches.list()


async def test_faults_come_in_the_apis_own_shape(client: AsyncAnthropic, sandbox: Sandbox) -> None:
    faults = sandbox.anthropic.faults
    faults.add("rate_limited", retry_after_seconds=3)
    with pytest.raises(anthropic.RateLimitError) as error:
        await client.messages.batches.list()
    assert error.value.response.headers["retry-after"] == "3"
    faults.add("status", status=529)
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        await client.messages.batches.list()
    assert sandbox.anthropic.calls["list"] == 2
    assert sandbox.provider.calls["list"] == 0


async def test_its_calls_pass_through_batchbell_with_one_line_changed(
    served: Served, sandbox: Sandbox
) -> None:
    account = {"name": "claude", "provider": "anthropic", "api_key": KEY, "base_url": sandbox.url}
    assert (await served.http.post("/v1/accounts", json=account)).status_code == 201
    async with AsyncAnthropic(
        api_key="bb_any",
        base_url=f"{served.url}/anthropic",
        max_retries=0,
        default_headers={"bb-webhook-url": "http://127.0.0.1:9/hook"},
        _strict_response_validation=True,
    ) as sdk:
        batches = sdk.messages.batches
        made = await batches.create(requests=[request("a"), request("b")])
        watched = await served.http.get("/v1/watches", params={"batch_id": made.id})
        assert [one["url"] for one in watched.json()["data"]] == ["http://127.0.0.1:9/hook"]
        assert [one.id async for one in batches.list()] == [made.id]
        assert (await batches.retrieve(made.id)).processing_status == "in_progress"
        assert (await batches.cancel(made.id)).processing_status == "canceling"
        sandbox.anthropic.finish(made.id, "cancelled", completed=1)
        results = {
            line.custom_id: line.result.type async for line in await batches.results(made.id)
        }
        assert sorted(results.values()) == ["canceled", "succeeded"]
        assert (await batches.delete(made.id)).id == made.id
        with pytest.raises(anthropic.NotFoundError, match="Could not find message batch"):
            await batches.retrieve(made.id)
        with pytest.raises(anthropic.NotFoundError, match="Send other calls to the provider"):
            await sdk.messages.create(
                model="claude-sonnet-5", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
            )
