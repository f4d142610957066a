"""The account of files and batches, chosen by the official OpenAI SDK over two providers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest

from batchbell.core.errors import StoreUnavailable
from batchbell.sandbox import OPEN, Sandbox, SandboxProvider
from batchbell.storage import uploads

from ..conftest import Clock
from .making import Served
from .test_keys import bearer, error_of

pytestmark = pytest.mark.databases("sqlite")

SECOND_KEY = "sk-second-0123456789"
NIGHTLY = {"bb-account": "nightly"}


def line(number: int, model: str) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": f"question {number}"}]}
    url = "/v1/chat/completions"
    return {"custom_id": f"r{number}", "method": "POST", "url": url, "body": body}


def jsonl(*models: str) -> bytes:
    lines = [json.dumps(line(n, model)).encode() + b"\n" for n, model in enumerate(models)]
    return b"".join(lines)


@pytest.fixture
def provider_url(sandbox: Sandbox) -> str:
    return sandbox.base_url


@pytest.fixture
def first(sandbox: Sandbox) -> SandboxProvider:
    """That of the default account, `openai`."""
    return sandbox.provider


@pytest.fixture
async def second(served: Served, clock: Clock) -> AsyncIterator[SandboxProvider]:
    """That of the account `nightly`."""
    async with Sandbox(api_key=SECOND_KEY, schedule=OPEN, clock=clock) as sandbox:
        body = {"name": "nightly", "provider": "openai", "api_key": SECOND_KEY}
        body["base_url"] = sandbox.base_url
        assert (await served.http.post("/v1/accounts", json=body)).status_code == 201
        yield sandbox.provider


@pytest.fixture
async def sdk(served: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{served.url}/v1", api_key="bb_any", max_retries=0
    ) as client:
        yield client


async def uploaded(sdk: openai.AsyncOpenAI, content: bytes, **how: Any) -> str:
    return (await sdk.files.create(file=("in.jsonl", content), purpose="batch", **how)).id


async def made_of(sdk: openai.AsyncOpenAI, file_id: str, **how: Any) -> openai.types.Batch:
    return await sdk.batches.create(
        input_file_id=file_id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        **how,
    )


def account_of(batch: openai.types.Batch) -> str:
    return str((batch.model_extra or {})["batchbell"]["account"])


def files_at(provider: SandboxProvider) -> list[dict[str, Any]]:
    page = provider.file_page(limit=100, after=None, purpose=None, newest_first=True)
    rows: list[dict[str, Any]] = page["data"]
    return rows


async def test_one_header_at_the_upload_chooses_the_account_of_all_that_follows(
    sdk: openai.AsyncOpenAI, first: SandboxProvider, second: SandboxProvider
) -> None:
    content = jsonl("gpt-5-mini", "gpt-5-mini")
    id = await uploaded(sdk, content, extra_headers=NIGHTLY)
    assert files_at(first) == []
    assert second.file(id).content == content
    assert (await sdk.files.retrieve(id)).bytes == len(content)
    assert (await sdk.files.content(id)).content == content
    batch = await made_of(sdk, id)
    assert account_of(batch) == "nightly"
    second.finish(batch.id, "completed", failed=1)
    ended = await sdk.batches.retrieve(batch.id)
    assert ended.output_file_id is not None
    assert ended.error_file_id is not None
    for left in (ended.output_file_id, ended.error_file_id):
        assert (await sdk.files.content(left)).content == second.file(left).content
    assert (await sdk.files.delete(id)).deleted
    assert first.calls.total() == 0


@pytest.mark.parametrize("model", ["gpt-5-mini", "openai/gpt-oss-120b", "nightly/gpt-5-mini"])
async def test_a_models_name_never_chooses_an_account(
    sdk: openai.AsyncOpenAI, first: SandboxProvider, second: SandboxProvider, model: str
) -> None:
    """Groq calls its models `openai/gpt-oss-120b`, and an account is called `openai`."""
    content = jsonl(model, "another/model")
    id = await uploaded(sdk, content)
    assert first.file(id).content == content, "not a byte is changed"
    assert account_of(await made_of(sdk, id)) == "openai"
    assert second.calls.total() == 0


async def test_a_header_names_the_account_of_a_file_as_well(
    sdk: openai.AsyncOpenAI, first: SandboxProvider, second: SandboxProvider
) -> None:
    content = jsonl("openai/gpt-oss-120b")
    id = await uploaded(sdk, content, extra_headers=NIGHTLY)
    assert second.file(id).content == content, "the name of the model is the provider's"
    assert account_of(await made_of(sdk, id)) == "nightly"
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.files.retrieve(id, extra_headers={"bb-account": "openai"})
    assert caught.value.response.headers["bb-account"] == "openai"


async def test_a_file_that_nobody_knows_is_asked_of_the_default_account(
    sdk: openai.AsyncOpenAI, first: SandboxProvider, second: SandboxProvider
) -> None:
    row = second.upload(jsonl("m"), filename="x", purpose="batch", expires_after=None)
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.files.retrieve(row["id"])
    assert caught.value.response.headers["bb-account"] == "openai"
    with pytest.raises(openai.BadRequestError):
        await made_of(sdk, row["id"])
    assert second.calls.total() == 0


async def raw(
    served: Served, content: bytes, *, purpose: str | None = "batch", **headers: str
) -> httpx2.Response:
    """As other programs do it: the file first."""
    parts = b'--e\r\nContent-Disposition: form-data; name=file; filename="a"\r\n\r\n' + content
    if purpose is not None:
        head = 'Content-Disposition: form-data; name="purpose"'
        parts += f"\r\n--e\r\n{head}\r\n\r\n{purpose}".encode()
    kind = {"content-type": "multipart/form-data; boundary=e", **headers}
    return await served.http.post("/v1/files", content=parts + b"\r\n--e--\r\n", headers=kind)


async def test_what_the_provider_says_of_the_upload_is_passed_back(
    served: Served, second: SandboxProvider
) -> None:
    without = await raw(served, jsonl("m"), purpose=None, **NIGHTLY)
    assert (without.status_code, without.headers["bb-account"]) == (400, "nightly")
    assert "purpose" in without.json()["error"]["message"]


async def test_a_caller_whose_upload_stands_still_is_let_go(
    served: Served, second: SandboxProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.context.relay, "stall_seconds", 0.1)

    there = urlsplit(served.url)
    reader, writer = await asyncio.open_connection(there.hostname, there.port)
    head = b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    kind = b"Content-Type: multipart/form-data; boundary=e\r\n\r\n"
    file = b'--e\r\nContent-Disposition: form-data; name="file"\r\n\r\n{"body"'
    writer.write(head + kind + file)
    answer = await reader.readuntil(b"}}")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"body_stalled" in answer
    writer.close()
    await writer.wait_closed()


async def test_an_upload_that_cannot_be_remembered_is_to_be_made_again(
    served: Served, second: SandboxProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its batch would be asked of an account that has no such file."""

    def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("no space left")

    monkeypatch.setattr(uploads, "remember", away)
    assert error_of(await raw(served, jsonl("m"), **NIGHTLY)) == (503, "store_unavailable")


async def test_an_account_that_was_removed_has_no_files(
    served: Served, sdk: openai.AsyncOpenAI, first: SandboxProvider, second: SandboxProvider
) -> None:
    id = await uploaded(sdk, jsonl("m"), extra_headers=NIGHTLY)
    assert (await served.http.delete("/v1/accounts/nightly")).status_code == 200
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.files.retrieve(id)
    assert caught.value.response.headers["bb-account"] == "openai"


async def test_files_and_accounts_are_the_projects_own(
    served: Served, sdk: openai.AsyncOpenAI, first: SandboxProvider, second: SandboxProvider
) -> None:
    """Another project has an account of the same name, at a provider of its own."""
    theirs = await uploaded(sdk, jsonl("m"), extra_headers=NIGHTLY)
    ops = bearer((await served.http.post("/v1/keys", json={"name": "ops"})).json()["key"])
    await served.http.post("/v1/projects", json={"name": "blue"}, headers=ops)
    body = {"name": "team", "project_id": "blue"}
    key = (await served.http.post("/v1/keys", json=body, headers=ops)).json()["key"]
    async with Sandbox(api_key=SECOND_KEY, schedule=OPEN) as own:
        wanted = {"provider": "openai", "api_key": SECOND_KEY, "base_url": own.base_url}
        for name in ("main", "nightly"):
            answer = await served.http.post(
                "/v1/accounts", json={**wanted, "name": name}, headers=bearer(key)
            )
            assert answer.status_code == 201
        blue = sdk.with_options(api_key=key)
        asked = second.calls.total()
        for call in (blue.files.retrieve, blue.files.content, blue.files.delete):
            with pytest.raises(openai.NotFoundError) as caught:
                await call(theirs)
            assert caught.value.response.headers["bb-account"] == "main"
        with pytest.raises(openai.BadRequestError):
            await made_of(blue, theirs)
        assert second.calls.total() == asked
        mine = await uploaded(blue, jsonl("m"), extra_headers=NIGHTLY)
        assert own.provider.file(mine).content == jsonl("m")
        with pytest.raises(openai.BadRequestError):
            await uploaded(blue, jsonl("m"), extra_headers={"bb-account": "openai"})
    assert second.calls.total() == asked


async def test_uploads_are_forgotten_after_their_time(
    served: Served, sdk: openai.AsyncOpenAI, clock: Clock, second: SandboxProvider
) -> None:
    ids = [await uploaded(sdk, jsonl("m"), extra_headers=NIGHTLY) for _ in range(3)]
    store = served.context.store
    assert await store.write(uploads.forget_old, before=clock(), limit=2) == 0
    clock.advance(1)
    assert await store.write(uploads.forget_old, before=clock(), limit=2) == 2
    assert await store.write(uploads.forget_old, before=clock(), limit=2) == 1
    assert await store.read(uploads.account_of, "default", ids[0]) is None
