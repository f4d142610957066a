"""The official SDK, whose types every answer has to fit, takes the sandbox for Mistral's API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from mistralai.client import Mistral
from mistralai.client.errors import HTTPValidationError, SDKError

from batchbell.sandbox import Sandbox
from tests.sandbox.making import KEY, FakeClock
from tests.web.making import Served

CHAT = "/v1/chat/completions"
HOOK = "http://127.0.0.1:9/hook"


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[Mistral]:
    async with Mistral(api_key=KEY, server_url=sandbox.mistral_url) as client:
        yield client


def line(custom_id: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Say {custom_id}."}]
    return {"custom_id": custom_id, "body": {"max_tokens": 100, "messages": messages}}


async def uploaded(client: Mistral, *custom_ids: str) -> str:
    text = "".join(json.dumps(line(id)) + "\n" for id in custom_ids)
    file = await client.files.upload_async(
        file={"file_name": "in.jsonl", "content": text.encode()}, purpose="batch"
    )
    assert (file.object, file.purpose, file.num_lines) == ("file", "batch", len(custom_ids))
    assert str(UUID(file.id)) == file.id
    return file.id


async def lines_of(client: Mistral, file_id: Any) -> list[Any]:
    assert isinstance(file_id, str)
    answer = await client.files.download_async(file_id=file_id)
    return [json.loads(text) for text in (await answer.aread()).splitlines()]


async def test_a_job_of_two_files_runs_from_its_creation_to_its_results(
    client: Mistral, clock: FakeClock
) -> None:
    files = [await uploaded(client, "a", "b"), await uploaded(client, "c")]
    made = await client.batch.jobs.create_async(
        input_files=files, model="mistral-small-latest", endpoint=CHAT, metadata={"job": "a"}
    )
    assert (made.status, made.total_requests, made.input_files) == ("QUEUED", 3, files)
    clock.advance(50)
    assert (await client.batch.jobs.get_async(job_id=made.id)).status == "RUNNING"
    clock.advance(200)
    ended = await client.batch.jobs.get_async(job_id=made.id)
    assert (ended.status, ended.succeeded_requests, ended.failed_requests) == ("SUCCESS", 3, 0)
    assert (ended.completed_requests, ended.error_file, ended.outputs) == (3, None, None)
    assert isinstance(ended.started_at, int)
    assert isinstance(ended.completed_at, int)
    lines = await lines_of(client, ended.output_file)
    assert sorted(one["custom_id"] for one in lines) == ["a", "b", "c"]
    assert {one["response"]["status_code"] for one in lines} == {200}
    assert lines[0]["response"]["body"]["usage"]["completion_tokens"] > 0
    inline = await client.batch.jobs.get_async(job_id=made.id, inline=True)
    assert isinstance(inline.outputs, list)
    assert sorted(one["custom_id"] for one in inline.outputs) == ["a", "b", "c"]


async def test_requests_may_come_with_the_call(client: Mistral, clock: FakeClock) -> None:
    made = await client.batch.jobs.create_async(
        requests=[line("a"), line("b")],  # type: ignore[list-item]
        model="mistral-small-latest",
        endpoint=CHAT,
    )
    clock.advance(200)
    ended = await client.batch.jobs.get_async(job_id=made.id)
    assert ended.status == "SUCCESS"
    assert len(await lines_of(client, ended.output_file)) == 2
    assert len(await lines_of(client, ended.input_files[0])) == 2


async def test_jobs_are_listed_by_number_and_chosen_by_status_time_and_metadata(
    client: Mistral, sandbox: Sandbox, clock: FakeClock
) -> None:
    jobs = sandbox.mistral
    old = jobs.add_batches(3)
    clock.advance(3600)
    young = jobs.add_batches(2, metadata={"job": "nightly"}, model="codestral-latest")
    jobs.finish(young[0], "expired")
    every = [*young[::-1], *old[::-1]]

    async def ids(**asked: Any) -> list[str]:
        page = await client.batch.jobs.list_async(**asked)
        return [job.id for job in page.data or []]

    assert await ids() == every
    assert await ids(order_by="created") == every[::-1]
    assert await ids(page=1, page_size=2) == every[2:4]
    assert (await client.batch.jobs.list_async(page=7)).total == 5
    assert await ids(page=7) == []
    assert await ids(status=["RUNNING", "QUEUED"]) == [young[1], *old[::-1]]
    assert await ids(status=["TIMEOUT_EXCEEDED"]) == [young[0]]
    assert await ids(created_after=datetime.fromtimestamp(clock() - 60, UTC)) == young[::-1]
    assert await ids(metadata={"job": "nightly"}) == young[::-1]
    assert await ids(model="codestral-latest") == young[::-1]


async def test_a_job_is_cancelled_and_deleted(client: Mistral, clock: FakeClock) -> None:
    made = await client.batch.jobs.create_async(requests=[line("a")], endpoint=CHAT)  # type: ignore[list-item]
    asked = await client.batch.jobs.cancel_async(job_id=made.id)
    assert asked.status == "CANCELLATION_REQUESTED"
    clock.advance(20)
    assert (await client.batch.jobs.get_async(job_id=made.id)).status == "CANCELLED"
    deleted = await client.batch.jobs.delete_async(job_id=made.id)
    assert (deleted.id, deleted.deleted) == (made.id, True)
    with pytest.raises(SDKError, match="not found"):
        await client.batch.jobs.get_async(job_id=made.id)


@pytest.mark.parametrize("end", ["completed", "failed", "expired", "cancelled"])
async def test_every_end_fits_the_types(client: Mistral, sandbox: Sandbox, end: str) -> None:
    id = sandbox.mistral.add_batch(total=4)
    sandbox.mistral.finish(id, end, completed=2, failed=1)
    job = await client.batch.jobs.get_async(job_id=id)
    if end == "failed":
        assert (job.output_file, job.error_file) == (None, None)
        assert job.errors[0].count == 4
    else:
        assert len(await lines_of(client, job.output_file)) == 2
        (wrong,) = await lines_of(client, job.error_file)
        assert wrong["response"]["body"]["object"] == "error"


async def test_files_are_listed_shown_signed_and_deleted(client: Mistral, sandbox: Sandbox) -> None:
    id = await uploaded(client, "a")
    job = sandbox.mistral.add_batch(total=3)
    sandbox.mistral.finish(job, "completed", failed=1)
    listed = await client.files.list_async()
    assert [file.sample_type for file in listed.data].count("batch_request") == 1
    assert {file.sample_type for file in listed.data} == {
        "batch_request",
        "batch_result",
        "batch_error",
    }
    results = await client.files.list_async(sample_type=["batch_result"], purpose="batch")
    assert (results.total, results.data[0].source) == (1, "mistral")
    assert (await client.files.retrieve_async(file_id=id)).deleted is False
    signed = await client.files.get_signed_url_async(file_id=id)
    assert signed.url.startswith(sandbox.mistral_url)
    assert (await client.files.delete_async(file_id=id)).deleted
    with pytest.raises(SDKError, match=id):
        await client.files.download_async(file_id=id)


async def test_what_makes_no_sense_is_refused_in_the_apis_shapes(
    client: Mistral, sandbox: Sandbox
) -> None:
    with pytest.raises((HTTPValidationError, SDKError), match="uuid_parsing"):
        await client.batch.jobs.get_async(job_id="batch_1")
    with pytest.raises((HTTPValidationError, SDKError), match="timeout_hours"):
        await client.batch.jobs.create_async(endpoint=CHAT, timeout_hours=500)
    with pytest.raises((HTTPValidationError, SDKError), match="Exactly one"):
        await client.batch.jobs.create_async(endpoint=CHAT)
    sandbox.mistral.faults.add("rate_limited")
    with pytest.raises(SDKError, match="rate_limited"):
        await client.batch.jobs.list_async()
    async with Mistral(api_key="other", server_url=sandbox.mistral_url) as stranger:
        with pytest.raises(SDKError, match="Unauthorized") as error:
            await stranger.batch.jobs.list_async()
    assert error.value.status_code == 401
    assert sandbox.provider.calls.total() == 0


async def test_its_calls_pass_through_batchbell_with_one_line_changed(
    served: Served, sandbox: Sandbox
) -> None:
    account = {"name": "mistral", "provider": "mistral", "api_key": KEY}
    account["base_url"] = sandbox.mistral_url
    assert (await served.http.post("/v1/accounts", json=account)).status_code == 201
    async with Mistral(api_key="bb_any", server_url=f"{served.url}/mistral") as sdk:
        file = await uploaded(sdk, "a", "b")
        jobs, files = sdk.batch.jobs, sdk.files
        made = await jobs.create_async(
            input_files=[file], endpoint=CHAT, metadata={"webhook_url": f"{HOOK}/1"}
        )
        assert await urls_of(served, made.id) == [f"{HOOK}/1"]
        bare = await jobs.create_async(
            requests=[line("c")],  # type: ignore[list-item]
            endpoint=CHAT,
            http_headers={"bb-webhook-url": f"{HOOK}/2"},
        )
        assert await urls_of(served, bare.id) == [f"{HOOK}/2"]
        listed = await jobs.list_async(status=["QUEUED", "RUNNING"])
        assert [job.id for job in listed.data or []] == [bare.id, made.id]
        assert (await jobs.cancel_async(job_id=bare.id)).status == "CANCELLATION_REQUESTED"
        sandbox.mistral.finish(made.id, "completed", failed=1)
        ended = await jobs.get_async(job_id=made.id)
        assert (ended.status, ended.succeeded_requests) == ("SUCCESS", 1)
        assert len(await lines_of(sdk, ended.output_file)) == 1
        inline = await jobs.get_async(job_id=made.id, inline=True)
        assert isinstance(inline.outputs, list)
        assert len(inline.outputs) == 2
        assert (await files.list_async()).total == 4
        assert (await files.retrieve_async(file_id=file)).id == file
        signed = await files.get_signed_url_async(file_id=file)
        assert signed.url.startswith(sandbox.mistral_url)
        assert (await files.delete_async(file_id=file)).deleted
        assert (await jobs.delete_async(job_id=made.id)).deleted
        with pytest.raises(SDKError, match="not found"):
            await jobs.get_async(job_id=made.id)
        with pytest.raises(SDKError, match="Send other calls to the provider"):
            await sdk.models.list_async()


async def urls_of(served: Served, job_id: str) -> list[str]:
    answer = await served.http.get("/v1/watches", params={"batch_id": job_id})
    return [one["url"] for one in answer.json()["data"]]
