"""The official SDK takes the sandbox for the Gemini API."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google import genai
from google.genai import errors, types

from batchbell.sandbox import Sandbox
from tests.sandbox.making import KEY, FakeClock
from tests.web.making import Served
from tests.web.test_keys import make_key

MODEL = "gemini-3.5-flash"
HOOK = "http://127.0.0.1:9/hook"
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class Aiohttp:DeprecationWarning")
"""The SDK makes a class of its own of aiohttp's session."""


@pytest.fixture
async def client(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[genai.Client]:
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=sandbox.gemini_url))
    yield client
    await client.aio.aclose()
    client.close()


def request(key: str | None = None) -> Any:
    asked: dict[str, Any] = {"contents": [{"parts": [{"text": f"Say {key}."}], "role": "user"}]}
    return asked if key is None else {**asked, "metadata": {"key": key}}


async def uploaded(client: genai.Client, *keys: str) -> types.File:
    lines = [{"key": key, "request": request()} for key in keys]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    config = types.UploadFileConfig(display_name="in", mime_type="jsonl")
    return await client.aio.files.upload(file=io.BytesIO(content), config=config)


async def test_requests_in_the_call_are_answered_in_the_batch(
    client: genai.Client, clock: FakeClock
) -> None:
    made = await client.aio.batches.create(
        model=MODEL, src=[request("a"), request("b"), request()], config={"display_name": "mine"}
    )
    assert made.name is not None
    assert made.name.startswith("batches/")
    assert (made.state, made.done, made.dest) == (types.JobState.JOB_STATE_PENDING, False, None)
    clock.advance(200)
    ended = await client.aio.batches.get(name=made.name)
    assert (ended.state, ended.display_name) == (types.JobState.JOB_STATE_SUCCEEDED, "mine")
    assert ended.model == f"models/{MODEL}"
    assert ended.end_time is not None
    assert ended.dest is not None
    answers = ended.dest.inlined_responses or []
    assert [one.metadata and one.metadata["key"] for one in answers] == ["a", "b", None]
    assert [one.response and one.response.text for one in answers] == [
        "The sandbox heard: Say a.",
        "The sandbox heard: Say b.",
        "The sandbox heard: Say None.",
    ]
    used = answers[0].response and answers[0].response.usage_metadata
    assert used is not None
    assert used.total_token_count == 33


async def test_requests_in_a_file_are_answered_in_a_file(
    client: genai.Client, sandbox: Sandbox, clock: FakeClock
) -> None:
    file = await uploaded(client, "a", "b")
    assert file.name is not None
    assert (file.state, file.source) == (types.FileState.ACTIVE, types.FileSource.UPLOADED)
    made = await client.aio.batches.create(model=MODEL, src=file.name)
    assert made.name is not None
    clock.advance(200)
    ended = await client.aio.batches.get(name=made.name)
    assert ended.dest is not None
    assert ended.dest.file_name is not None
    content = await client.aio.files.download(file=ended.dest.file_name)
    rows = [json.loads(line) for line in content.splitlines()]
    assert [row["key"] for row in rows] == ["a", "b"]
    assert {name for row in rows for name in row} == {"key", "response"}
    generated = await client.aio.files.get(name=ended.dest.file_name)
    assert generated.source is types.FileSource.GENERATED
    with pytest.raises(errors.ClientError):
        await client.aio.files.download(file=file.name)
    clock.advance(48 * 3600)
    with pytest.raises(errors.ClientError, match="may not exist"):
        await client.aio.files.download(file=ended.dest.file_name)


async def test_embeddings_are_made(client: genai.Client, clock: FakeClock) -> None:
    source = types.EmbeddingsBatchJobSource(
        inlined_requests=types.EmbedContentBatch(contents=["a", "b"])
    )
    with pytest.warns(Warning, match="experimental"):
        made = await client.aio.batches.create_embeddings(model="gemini-embedding-001", src=source)
    assert made.name is not None
    clock.advance(200)
    ended = await client.aio.batches.get(name=made.name)
    assert ended.dest is not None
    answers = ended.dest.inlined_embed_content_responses or []
    vectors = [one.response and one.response.embedding for one in answers]
    assert [len((one and one.values) or []) for one in vectors] == [16, 16]


async def test_batches_and_files_are_paged(client: genai.Client, sandbox: Sandbox) -> None:
    ids = sandbox.gemini.add_batches(5)
    pager = await client.aio.batches.list(config={"page_size": 2})
    assert [one.name async for one in pager] == ids[::-1]
    assert sandbox.gemini.calls["list"] == 3
    names = [(await uploaded(client, "a")).name for _ in range(3)]
    found = await client.aio.files.list(config={"page_size": 2})
    assert [one.name async for one in found] == names[::-1]
    await client.aio.files.delete(name=names[0] or "")
    with pytest.raises(errors.ClientError, match="PERMISSION_DENIED"):
        await client.aio.files.get(name=names[0] or "")


async def test_a_batch_is_cancelled_and_deleted(client: genai.Client) -> None:
    made = await client.aio.batches.create(model=MODEL, src=[request("a")])
    assert made.name is not None
    await client.aio.batches.cancel(name=made.name)
    ended = await client.aio.batches.get(name=made.name)
    assert (ended.state, ended.dest) == (types.JobState.JOB_STATE_CANCELLED, None)
    await client.aio.batches.delete(name=made.name)
    with pytest.raises(errors.ClientError, match="NOT_FOUND"):
        await client.aio.batches.get(name=made.name)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("completed", types.JobState.JOB_STATE_SUCCEEDED),
        ("failed", types.JobState.JOB_STATE_FAILED),
        ("expired", types.JobState.JOB_STATE_EXPIRED),
        ("cancelled", types.JobState.JOB_STATE_CANCELLED),
    ],
)
async def test_every_end_has_its_state(
    client: genai.Client, sandbox: Sandbox, status: str, state: types.JobState
) -> None:
    for inline in (False, True):
        id = sandbox.gemini.add_batch(total=3, inline=inline)
        sandbox.gemini.finish(id, status, failed=1 if status == "completed" else 0)
        found = await client.aio.batches.get(name=id)
        assert found.state is state
        assert (found.dest is not None) is (status == "completed")
    if status == "completed":
        answers = (found.dest and found.dest.inlined_responses) or []
        assert [one.error.code for one in answers if one.error] == [3]


async def test_an_input_that_is_no_requests_fails_as_a_whole(
    client: genai.Client, sandbox: Sandbox, clock: FakeClock
) -> None:
    config = types.UploadFileConfig(mime_type="jsonl")
    file = await client.aio.files.upload(file=io.BytesIO(b'{"key": "a"}\n'), config=config)
    made = await client.aio.batches.create(model=MODEL, src=file.name or "")
    clock.advance(200)
    ended = await client.aio.batches.get(name=made.name or "")
    assert (ended.state, ended.dest) == (types.JobState.JOB_STATE_FAILED, None)
    shown = sandbox.gemini.operation(made.name or "")
    assert (shown["error"]["code"], "Line 1" in shown["error"]["message"]) == (3, True)


async def test_a_wrong_key_and_an_unknown_batch_are_refused(
    client: genai.Client, sandbox: Sandbox
) -> None:
    with pytest.raises(errors.ClientError, match="NOT_FOUND"):
        await client.aio.batches.get(name="batches/none")
    with pytest.raises(errors.ClientError, match="has no requests"):
        await client.aio.batches.create(model=MODEL, src=[])
    options = types.HttpOptions(base_url=sandbox.gemini_url)
    other = genai.Client(api_key="another", http_options=options)
    with pytest.raises(errors.ClientError, match="API_KEY_INVALID"):
        await other.aio.batches.list()
    await other.aio.aclose()
    other.close()


async def test_faults_come_in_the_apis_own_shape(client: genai.Client, sandbox: Sandbox) -> None:
    faults = sandbox.gemini.faults
    faults.add("rate_limited", retry_after_seconds=3)
    with pytest.raises(errors.ClientError, match="RESOURCE_EXHAUSTED"):
        await client.aio.batches.list()
    faults.add("status", status=503)
    with pytest.raises(errors.ServerError, match="UNAVAILABLE"):
        await client.aio.batches.list()
    assert sandbox.gemini.calls["list"] == 2
    assert sandbox.provider.calls["list"] == 0


@pytest.mark.parametrize("version", ["v1beta", "v1"])
async def test_its_calls_pass_through_batchbell_with_one_line_changed(
    served: Served, sandbox: Sandbox, version: str
) -> None:
    account = {"name": "gemini", "provider": "gemini", "api_key": KEY}
    account["base_url"] = sandbox.gemini_url
    assert (await served.http.post("/v1/accounts", json=account)).status_code == 201
    key = (await make_key(served))["key"]
    served.http.headers["authorization"] = f"Bearer {key}"
    options = types.HttpOptions(base_url=f"{served.url}/gemini", api_version=version)
    with genai.Client(api_key=key, http_options=options) as sdk:
        client = sdk.aio
        file = await uploaded(sdk, "a", "b")
        assert file.name is not None
        made = await client.batches.create(
            model=MODEL,
            src=file.name,
            config={
                "display_name": "mine",
                "http_options": {"headers": {"bb-webhook-url": f"{HOOK}/1"}},
            },
        )
        assert made.name is not None
        assert made.display_name == "mine"
        assert await urls_of(served, made.name) == [f"{HOOK}/1"]
        bare = await client.batches.create(model=MODEL, src=[request("c")])
        assert bare.name is not None
        assert await urls_of(served, bare.name) == []
        pager = await client.batches.list(config={"page_size": 1})
        assert [one.name async for one in pager] == [bare.name, made.name]
        await client.batches.cancel(name=bare.name)
        stopped = await client.batches.get(name=bare.name)
        assert stopped.state is types.JobState.JOB_STATE_CANCELLED
        sandbox.gemini.finish(made.name, "completed")
        ended = await client.batches.get(name=made.name)
        assert ended.dest is not None
        answers = ended.dest.file_name
        assert answers is not None
        content = await client.files.download(file=answers)
        assert [json.loads(line)["key"] for line in content.splitlines()] == ["a", "b"]
        shown = await client.files.get(name=answers)
        assert await client.files.download(file=shown) == content
        files = await client.files.list()
        assert {one.name async for one in files} == {file.name, answers}
        await client.files.delete(name=file.name)
        with pytest.raises(errors.ClientError, match="may not exist"):
            await client.files.get(name=file.name)
        await client.batches.delete(name=made.name)
        with pytest.raises(errors.ClientError, match="NOT_FOUND"):
            await client.batches.get(name=made.name)
        with pytest.raises(errors.ClientError, match="Send other calls to the provider"):
            await client.models.list()
        await client.aclose()
    wrong = genai.Client(api_key="bb_wrong", http_options=options)
    with pytest.raises(errors.ClientError, match="UNAUTHENTICATED"):
        await wrong.aio.batches.list()
    await wrong.aio.aclose()
    wrong.close()


async def urls_of(served: Served, batch_id: str) -> list[str]:
    answer = await served.http.get("/v1/watches", params={"batch_id": batch_id})
    return [one["url"] for one in answer.json()["data"]]
