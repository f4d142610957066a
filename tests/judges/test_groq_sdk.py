"""The official SDK, validating every answer, takes the sandbox for Groq's API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import groq
import pytest
from groq import AsyncGroq

from batchbell.sandbox import Sandbox
from tests.sandbox.making import KEY, FakeClock

URL = "/v1/chat/completions"


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[AsyncGroq]:
    async with AsyncGroq(
        api_key=KEY, base_url=sandbox.groq_url, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def file_of(*custom_ids: str) -> bytes:
    body = {"model": "openai/gpt-oss-120b", "messages": [{"role": "user", "content": "Hi"}]}
    rows = [{"custom_id": one, "method": "POST", "url": URL, "body": body} for one in custom_ids]
    return "\n".join(map(json.dumps, rows)).encode()


async def test_a_batch_runs_from_its_file_to_its_results(
    client: AsyncGroq, clock: FakeClock
) -> None:
    file = await client.files.create(file=("a.jsonl", file_of("a", "b")), purpose="batch")
    made = await client.batches.create(
        input_file_id=file.id,
        endpoint=URL,
        completion_window="24h",
        metadata={"job": "nightly"},
    )
    assert (made.status, made.metadata) == ("validating", {"job": "nightly"})
    clock.advance(200)
    ended = await client.batches.retrieve(made.id)
    assert ended.status == "completed"
    assert ended.request_counts is not None
    assert (ended.request_counts.total, ended.request_counts.completed) == (2, 2)
    assert ended.output_file_id is not None
    output = await client.files.content(ended.output_file_id)
    lines = [json.loads(line) for line in (await output.text()).splitlines()]
    assert {line["custom_id"] for line in lines} == {"a", "b"}
    assert {line["response"]["status_code"] for line in lines} == {200}


async def test_the_list_is_whole_and_a_window_may_be_long(
    client: AsyncGroq, sandbox: Sandbox
) -> None:
    ids = sandbox.groq.add_batches(120)
    assert [one.id for one in (await client.batches.list()).data] == ids[::-1]
    file = await client.files.create(file=("a.jsonl", file_of("a")), purpose="batch")
    made = await client.batches.create(
        input_file_id=file.id,
        endpoint=URL,
        completion_window="7d",
    )
    assert made.completion_window == "7d"
    cancelled = await client.batches.cancel(made.id)
    assert cancelled.status == "cancelling"


async def test_errors_are_of_the_sdks_types(client: AsyncGroq, sandbox: Sandbox) -> None:
    with pytest.raises(groq.NotFoundError):
        await client.batches.retrieve("batch_none")
    sandbox.groq.faults.add("rate_limited", retry_after_seconds=3)
    with pytest.raises(groq.RateLimitError) as limited:
        await client.batches.list()
    assert limited.value.response.headers["retry-after"] == "3"
    with pytest.raises(groq.AuthenticationError):
        await client.with_options(api_key="other").batches.list()
