"""OpenAI's SDK, both ways in which it speaks to Azure, takes the sandbox for Azure OpenAI."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI

from batchbell.sandbox import Sandbox
from batchbell.sandbox.azure import DAY_SECONDS
from tests.sandbox.making import KEY, FakeClock

URL = "/chat/completions"


@pytest.fixture(params=["a dated version", "v1", "v1 with the plain client"])
async def client(request: pytest.FixtureRequest, sandbox: Sandbox) -> AsyncIterator[AsyncOpenAI]:
    base_url = f"{sandbox.azure_url}/openai/v1"
    made: AsyncOpenAI
    if request.param == "a dated version":
        made = AsyncAzureOpenAI(
            api_key=KEY,
            azure_endpoint=sandbox.azure_url,
            api_version="2024-10-21",
            max_retries=0,
        )
    elif request.param == "v1":
        made = AsyncAzureOpenAI(
            api_key=KEY, base_url=base_url, api_version="preview", max_retries=0
        )
    else:
        made = AsyncOpenAI(
            api_key=KEY, base_url=base_url, max_retries=0, _strict_response_validation=True
        )
    async with made:
        yield made


def file_of(*custom_ids: str) -> bytes:
    body = {"model": "my-deployment", "messages": [{"role": "user", "content": "Hi"}]}
    rows = [{"custom_id": one, "method": "POST", "url": URL, "body": body} for one in custom_ids]
    return "\n".join(map(json.dumps, rows)).encode()


async def test_a_batch_runs_from_its_file_to_its_results(
    client: AsyncOpenAI, clock: FakeClock
) -> None:
    file = await client.files.create(
        file=("a.jsonl", file_of("a", "b")),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 14 * DAY_SECONDS},
    )
    asked = {"input_file_id": file.id, "endpoint": URL, "completion_window": "24h"}
    made = await client.batches.create(**asked)  # type: ignore[arg-type]
    assert (made.status, made.model) == ("validating", "my-deployment")
    clock.advance(200)
    assert [one.id async for one in client.batches.list(limit=1)] == [made.id]
    ended = await client.batches.retrieve(made.id)
    assert ended.status == "completed"
    assert ended.output_file_id is not None
    output = await client.files.content(ended.output_file_id)
    assert {json.loads(line)["custom_id"] for line in output.text.splitlines()} == {"a", "b"}


async def test_a_file_is_pending_before_a_batch_can_be_made_of_it(
    sandbox: Sandbox, clock: FakeClock
) -> None:
    """A word that OpenAI's type for files does not have."""
    sandbox.azure.processing_seconds = 10.0
    async with AsyncAzureOpenAI(
        api_key=KEY, azure_endpoint=sandbox.azure_url, api_version="2024-10-21", max_retries=0
    ) as client:
        file = await client.files.create(file=("a.jsonl", file_of("a")), purpose="batch")
        assert str(file.status) == "pending"
        asked = {"input_file_id": file.id, "endpoint": URL, "completion_window": "24h"}
        with pytest.raises(openai.BadRequestError, match="not in the processed state"):
            await client.batches.create(**asked)  # type: ignore[arg-type]
        clock.advance(10)
        assert (await client.files.retrieve(file.id)).status == "processed"
        await client.batches.create(**asked)  # type: ignore[arg-type]


async def test_an_expiry_is_two_weeks_at_least(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="1209600 to 2592000"):
        await client.files.create(
            file=("a.jsonl", file_of("a")),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 3_600},
        )


async def test_errors_are_of_the_sdks_types(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.batches.retrieve("batch_none")
    sandbox.azure.faults.add("rate_limited", retry_after_seconds=3)
    with pytest.raises(openai.RateLimitError):
        await client.batches.list()
    id = sandbox.azure.add_batch()
    sandbox.azure.finish(id, "failed")
    failed = await client.batches.retrieve(id)
    assert failed.errors is not None
    assert (failed.failed_at, failed.completed_at is None) == (None, False)
    assert failed.errors.data is not None
    assert failed.errors.data[0].code == "token_limit_exceeded"
