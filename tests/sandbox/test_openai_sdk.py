"""The official SDK, validating every answer, takes the sandbox for the real thing."""

from __future__ import annotations

import openai
import pytest
from openai import AsyncOpenAI

from batchbell.sandbox import Sandbox

from .making import FakeClock, input_file, lines_of, new_batch


async def test_an_uploaded_file_can_be_read_listed_and_deleted(client: AsyncOpenAI) -> None:
    file = await client.files.create(file=("input.jsonl", b"hello"), purpose="batch")
    assert (file.bytes, file.filename, file.purpose) == (5, "input.jsonl", "batch")
    assert (await client.files.retrieve(file.id)) == file
    assert (await client.files.content(file.id)).content == b"hello"
    assert [f.id async for f in client.files.list(purpose="batch")] == [file.id]
    assert [f.id async for f in client.files.list(purpose="batch_output")] == []
    assert (await client.files.delete(file.id)).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            await call(file.id)


async def test_a_large_file_is_streamed_unchanged(client: AsyncOpenAI) -> None:
    content = bytes(range(256)) * 2_000
    file = await client.files.create(file=("big.bin", content), purpose="user_data")
    async with client.files.with_streaming_response.content(file.id) as answer:
        assert b"".join([chunk async for chunk in answer.iter_bytes()]) == content


async def test_files_are_paged_in_either_order(client: AsyncOpenAI) -> None:
    ids = [
        (await client.files.create(file=(f"{n}.jsonl", b"x"), purpose="batch")).id for n in range(5)
    ]
    assert [f.id async for f in client.files.list(limit=2)] == ids[::-1]
    assert [f.id async for f in client.files.list(limit=2, order="asc")] == ids


async def test_a_file_expires_when_asked_to(client: AsyncOpenAI, clock: FakeClock) -> None:
    file = await client.files.create(
        file=("a.jsonl", b"x"),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert file.expires_at == file.created_at + 3600
    clock.advance(3600)
    with pytest.raises(openai.NotFoundError):
        await client.files.content(file.id)


@pytest.mark.parametrize("seconds", [3599, 2_592_001])
async def test_an_expiry_out_of_range_is_refused(client: AsyncOpenAI, seconds: int) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.files.create(
            file=("a.jsonl", b"x"),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": seconds},
        )
    assert caught.value.param == "expires_after"


async def test_the_files_of_a_batch_expire_when_asked_to(
    client: AsyncOpenAI, clock: FakeClock
) -> None:
    expiry = {"anchor": "created_at", "seconds": 3600}
    batch = await new_batch(client, input_file(2), output_expires_after=expiry)
    clock.advance(120)
    batch = await client.batches.retrieve(batch.id)
    assert batch.output_file_id
    output = await client.files.retrieve(batch.output_file_id)
    assert output.expires_at == output.created_at + 3600


async def test_a_batch_runs_to_its_end(client: AsyncOpenAI, clock: FakeClock) -> None:
    batch = await new_batch(client, input_file(100), metadata={"job": "nightly"})
    created_at = batch.created_at
    seen = [(batch.status, batch.request_counts.total, batch.request_counts.completed)]
    for seconds in (10, 50, 50, 10):
        clock.advance(seconds)
        batch = await client.batches.retrieve(batch.id)
        seen.append((batch.status, batch.request_counts.total, batch.request_counts.completed))
    assert seen == [
        ("validating", 0, 0),
        ("in_progress", 100, 0),
        ("in_progress", 100, 50),
        ("finalizing", 100, 100),
        ("completed", 100, 100),
    ]
    assert batch.in_progress_at == created_at + 10
    assert batch.finalizing_at == created_at + 110
    assert batch.completed_at == created_at + 120
    assert batch.expires_at == created_at + 86_400
    assert batch.metadata == {"job": "nightly"}
    assert batch.model == "gpt-5-mini"
    assert batch.error_file_id is None


async def test_the_output_answers_every_request_in_another_order(
    client: AsyncOpenAI, clock: FakeClock
) -> None:
    batch = await new_batch(client, input_file(50))
    clock.advance(120)
    batch = await client.batches.retrieve(batch.id)
    lines = await lines_of(client, batch.output_file_id)
    asked = [f"request-{n}" for n in range(1, 51)]
    answered = [line["custom_id"] for line in lines]
    assert answered != asked
    assert sorted(answered) == sorted(asked)
    for line in lines:
        assert line["id"].startswith("batch_req_")
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        openai.types.chat.ChatCompletion.model_validate(line["response"]["body"], strict=True)
    usages = [line["response"]["body"]["usage"] for line in lines]
    assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in usages)
    assert batch.usage.total_tokens == sum(usage["total_tokens"] for usage in usages)


async def test_the_same_file_reads_the_same_twice(client: AsyncOpenAI, clock: FakeClock) -> None:
    batch = await new_batch(client, input_file(20))
    clock.advance(120)
    batch = await client.batches.retrieve(batch.id)
    assert await lines_of(client, batch.output_file_id) == await lines_of(
        client, batch.output_file_id
    )


async def test_metadata_sets_the_pace_the_failures_and_the_end(
    client: AsyncOpenAI, clock: FakeClock
) -> None:
    wishes = {"sandbox_seconds": "20", "sandbox_fail": "0.25", "sandbox_ends": "expired"}
    batch = await new_batch(client, input_file(40), metadata=wishes)
    clock.advance(20)
    batch = await client.batches.retrieve(batch.id)
    assert batch.status == "expired"
    assert batch.request_counts.model_dump() == {"total": 40, "completed": 15, "failed": 5}
    assert len(await lines_of(client, batch.output_file_id)) == 15


async def test_failed_requests_go_to_the_error_file(client: AsyncOpenAI, clock: FakeClock) -> None:
    batch = await new_batch(client, input_file(10), metadata={"sandbox_fail": "0.3"})
    clock.advance(120)
    batch = await client.batches.retrieve(batch.id)
    assert batch.request_counts.model_dump() == {"total": 10, "completed": 7, "failed": 3}
    errors = await lines_of(client, batch.error_file_id)
    assert [line["response"]["status_code"] for line in errors] == [400, 400, 400]
    assert all(line["error"] is None for line in errors)
    assert all(line["response"]["body"]["error"]["message"] for line in errors)


async def test_completed_without_an_output_file_when_every_request_failed(
    client: AsyncOpenAI, clock: FakeClock
) -> None:
    batch = await new_batch(client, input_file(9), metadata={"sandbox_fail": "1"})
    clock.advance(120)
    batch = await client.batches.retrieve(batch.id)
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert len(await lines_of(client, batch.error_file_id)) == 9


async def test_a_cancelled_batch_keeps_what_was_done(client: AsyncOpenAI, clock: FakeClock) -> None:
    batch = await new_batch(client, input_file(100))
    clock.advance(40)
    batch = await client.batches.cancel(batch.id)
    assert (batch.status, batch.cancelling_at) == ("cancelling", int(clock.now))
    clock.advance(10)
    batch = await client.batches.retrieve(batch.id)
    assert (batch.status, batch.cancelled_at) == ("cancelled", int(clock.now))
    assert batch.request_counts.model_dump() == {"total": 100, "completed": 30, "failed": 0}
    assert len(await lines_of(client, batch.output_file_id)) == 30
    skipped = await lines_of(client, batch.error_file_id)
    assert {line["error"]["code"] for line in skipped} == {"batch_cancelled"}
    assert [line["response"] for line in skipped] == [None] * 70


async def test_an_ended_batch_cannot_be_cancelled(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    batch_id = sandbox.provider.add_batch()
    sandbox.provider.finish(batch_id)
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        await client.batches.cancel(batch_id)


async def test_a_wrong_key_is_refused(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        await client.with_options(api_key="sk-of-somebody-else").batches.list()
    assert caught.value.code == "invalid_api_key"
    assert "sk-of-somebody-else" not in str(caught.value)


async def test_any_key_is_taken_where_none_is_set() -> None:
    async with (
        Sandbox() as sandbox,
        AsyncOpenAI(api_key="whatever", base_url=sandbox.base_url) as client,
    ):
        assert (await client.batches.list()).data == []


@pytest.mark.parametrize("verb", ["retrieve", "cancel"])
async def test_an_unknown_batch_is_not_found(client: AsyncOpenAI, verb: str) -> None:
    with pytest.raises(openai.NotFoundError, match="No batch found with id 'batch_none'") as caught:
        await getattr(client.batches, verb)("batch_none")
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id.startswith("req_")


async def test_an_unknown_address_is_answered_in_the_same_shape(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="Invalid URL"):
        await client.models.list()


@pytest.mark.parametrize(
    ("wishes", "param"),
    [
        ({"endpoint": "/v1/nothing"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {"sandbox_fail": "lots"}}, "metadata.sandbox_fail"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after"),
    ],
)
async def test_a_wish_that_cannot_be_taken_is_named(
    client: AsyncOpenAI, wishes: dict[str, object], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await new_batch(client, input_file(1), **wishes)
    assert caught.value.param == param


async def test_an_unknown_input_file_is_refused_at_once(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Cannot find file") as caught:
        await client.batches.create(
            input_file_id="file-none", endpoint="/v1/responses", completion_window="24h"
        )
    assert caught.value.param == "input_file_id"


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/embeddings", "/v1/moderations"])
async def test_other_endpoints_answer_too(
    client: AsyncOpenAI, clock: FakeClock, endpoint: str
) -> None:
    content = input_file(2).replace(b"/v1/chat/completions", endpoint.encode())
    batch = await new_batch(client, content, endpoint=endpoint)
    clock.advance(120)
    batch = await client.batches.retrieve(batch.id)
    assert len(await lines_of(client, batch.output_file_id)) == 2
