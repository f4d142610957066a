"""The account in front of the model's name, used by the official OpenAI SDK over two providers."""

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
from .test_access import bearer, error_of

SECOND_KEY = "sk-second-0123456789"


def line(number: int, model: str) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": f"question {number}"}]}
    url = "/v1/chat/completions"
    return {"custom_id": f"r{number}", "method": "POST", "url": url, "body": body}


def jsonl(*models: str) -> bytes:
    lines = [json.dumps(line(n, model)).encode() + b"\n" for n, model in enumerate(models)]
    return b"".join(lines)


@pytest.fixture
async def sandbox(clock: Clock) -> AsyncIterator[Sandbox]:
    async with Sandbox(api_key="sk-test", schedule=OPEN, clock=clock) as sandbox:
        yield sandbox


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


async def test_from_the_upload_to_the_results_nobody_names_the_account_but_the_model(
    served: Served, sdk: openai.AsyncOpenAI, first: SandboxProvider, second: SandboxProvider
) -> None:
    content = jsonl("nightly/gpt-5-mini", "nightly/gpt-5-mini")
    id = await uploaded(sdk, content)
    assert files_at(first) == []
    kept = second.file(id).content
    assert len(kept) == len(content)
    assert [json.loads(text) for text in kept.splitlines()] == [
        line(0, "gpt-5-mini"),
        line(1, "gpt-5-mini"),
    ]
    assert (await sdk.files.retrieve(id)).bytes == len(content)
    assert (await sdk.files.content(id)).content == kept
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


async def test_without_a_front_all_stays_with_the_default_account(
    sdk: openai.AsyncOpenAI, first: SandboxProvider, second: SandboxProvider
) -> None:
    content = jsonl("gpt-5-mini", "other/gpt-5-mini")
    id = await uploaded(sdk, content)
    assert first.file(id).content == content
    assert account_of(await made_of(sdk, id)) == "openai"
    assert second.calls.total() == 0


async def test_a_header_names_the_account_of_a_file_as_well(
    sdk: openai.AsyncOpenAI, first: SandboxProvider, second: SandboxProvider
) -> None:
    header = {"bb-account": "nightly"}
    content = jsonl("openai/gpt-oss-120b")
    id = await uploaded(sdk, content, extra_headers=header)
    assert second.file(id).content == content, "the name of the model is the provider's"
    assert account_of(await made_of(sdk, id)) == "nightly"
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.files.retrieve(id, extra_headers={"bb-account": "openai"})
    assert caught.value.response.headers["bb-account"] == "openai"
    fronted = await uploaded(sdk, jsonl("nightly/gpt-5-mini"), extra_headers=header)
    assert json.loads(second.file(fronted).content) == line(0, "gpt-5-mini")


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


@pytest.mark.parametrize("wrong", ["gpt-5-mini", "openai/gpt-5-mini"])
async def test_a_line_for_somebody_else_is_named_and_nothing_is_kept(
    sdk: openai.AsyncOpenAI, first: SandboxProvider, second: SandboxProvider, wrong: str
) -> None:
    models = ["nightly/m"] * 5000
    models[3210] = wrong
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        await uploaded(sdk, jsonl(*models))
    body: Any = caught.value.body
    assert (caught.value.code, body["problems"][0]["line"]) == ("invalid_requests", 3211)
    assert body["problems"][0]["code"] == "mismatched_account"
    assert "Line 3211" in caught.value.message
    assert "bb-account" not in caught.value.response.headers
    assert files_at(first) == files_at(second) == []


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


async def test_the_purpose_may_come_last(
    served: Served, first: SandboxProvider, second: SandboxProvider
) -> None:
    good = await raw(served, jsonl("nightly/m"))
    assert (good.status_code, good.headers["bb-account"]) == (200, "nightly")
    assert json.loads(second.file(good.json()["id"]).content) == line(0, "m")
    other = await raw(served, jsonl("nightly/m"), purpose="user_data")
    assert error_of(other) == (400, "invalid_value")
    assert other.json()["error"]["param"] == "purpose"
    assert len(files_at(second)) == 1
    assert files_at(first) == []


async def test_what_the_provider_says_of_the_upload_is_passed_back(
    served: Served, second: SandboxProvider
) -> None:
    without = await raw(served, jsonl("nightly/m"), purpose=None)
    assert (without.status_code, without.headers["bb-account"]) == (400, "nightly")
    assert "purpose" in without.json()["error"]["message"]


async def test_a_caller_who_stands_still_before_the_first_line_is_let_go(
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
    assert error_of(await raw(served, jsonl("nightly/m"))) == (503, "store_unavailable")


async def test_an_account_that_was_removed_has_no_files(
    served: Served, sdk: openai.AsyncOpenAI, first: SandboxProvider, second: SandboxProvider
) -> None:
    id = await uploaded(sdk, jsonl("nightly/m"))
    assert (await served.http.delete("/v1/accounts/nightly")).status_code == 200
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.files.retrieve(id)
    assert caught.value.response.headers["bb-account"] == "openai"
    plain = jsonl("nightly/m")
    assert first.file(await uploaded(sdk, plain)).content == plain


async def test_files_and_fronts_are_the_projects_own(
    served: Served, sdk: openai.AsyncOpenAI, first: SandboxProvider, second: SandboxProvider
) -> None:
    """Another project has an account of the same name, at a provider of its own."""
    theirs = await uploaded(sdk, jsonl("nightly/m"))
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
        mine = await uploaded(blue, jsonl("nightly/m"))
        assert json.loads(own.provider.file(mine).content) == line(0, "m")
        untouched = jsonl("openai/m")
        kept = await uploaded(blue, untouched)
        assert own.provider.file(kept).content == untouched, "they have no such account"
    assert second.calls.total() == asked


async def test_uploads_are_forgotten_after_their_time(
    served: Served, sdk: openai.AsyncOpenAI, clock: Clock, second: SandboxProvider
) -> None:
    ids = [await uploaded(sdk, jsonl("nightly/m")) for _ in range(3)]
    store = served.context.store
    assert await store.write(uploads.forget_old, before=clock(), limit=2) == 0
    clock.advance(1)
    assert await store.write(uploads.forget_old, before=clock(), limit=2) == 2
    assert await store.write(uploads.forget_old, before=clock(), limit=2) == 1
    assert await store.read(uploads.account_of, "default", ids[0]) is None
