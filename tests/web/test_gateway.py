"""The gateway, used by the official OpenAI SDK as if it were OpenAI."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import openai
import pytest

from batchbell.core.errors import StoreUnavailable
from batchbell.sandbox import Sandbox, SandboxProvider, api
from batchbell.sandbox.answers import ApiError
from batchbell.storage import sweeps
from batchbell.web.gateway import creations
from batchbell.web.gateway.creations import for_provider

from .conftest import Logged
from .making import HOOK, Served
from .test_keys import bearer, error_of

pytestmark = pytest.mark.databases("sqlite")

LINE = {
    "custom_id": "one",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]},
}
INPUT = json.dumps(LINE).encode() + b"\n"


@pytest.fixture
def database_url(ready_sqlite_url: str) -> str:
    """What is passed on does not touch the database; what is kept is tested on both elsewhere."""
    return ready_sqlite_url


@pytest.fixture
def provider_url(sandbox: Sandbox) -> str:
    return sandbox.base_url


@pytest.fixture
async def sdk(served: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    """As a user has it: one line is changed."""
    async with openai.AsyncOpenAI(
        base_url=f"{served.url}/v1", api_key="bb_any", max_retries=0
    ) as client:
        yield client


async def until(look: Callable[[], Any]) -> None:
    """Wait until there is something to see."""
    async with asyncio.timeout(10):
        while True:
            seen = look()
            if await seen if inspect.isawaitable(seen) else seen:
                return
            await asyncio.sleep(0.01)


async def uploaded(sdk: openai.AsyncOpenAI, content: bytes = INPUT) -> str:
    return (await sdk.files.create(file=("in.jsonl", content), purpose="batch")).id


async def created(sdk: openai.AsyncOpenAI, **more: Any) -> openai.types.Batch:
    return await sdk.batches.create(
        input_file_id=await uploaded(sdk),
        endpoint="/v1/chat/completions",
        completion_window="24h",
        **more,
    )


async def test_files_are_the_providers(sdk: openai.AsyncOpenAI, provider: SandboxProvider) -> None:
    id = await uploaded(sdk)
    assert provider.file(id).content == INPUT
    assert (await sdk.files.retrieve(id)).bytes == len(INPUT)
    assert [one.id async for one in sdk.files.list(purpose="batch")] == [id]
    assert (await sdk.files.content(id)).content == INPUT
    provider.faults.add("redirect", route="content")
    assert (await sdk.files.content(id)).content == INPUT, "from storage that refuses the key"
    assert (await sdk.files.delete(id)).deleted
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.files.retrieve(id)
    assert caught.value.response.headers["bb-account"] == "openai"
    assert caught.value.response.headers["x-request-id"].startswith("req_")


async def test_a_batch_is_made_and_known(
    served: Served, sdk: openai.AsyncOpenAI, provider: SandboxProvider
) -> None:
    batch = await created(sdk, metadata={"night": "yes"})
    assert provider.retrieve(batch.id)["metadata"] == {"night": "yes"}
    assert (batch.model_extra or {})["batchbell"]["account"] == "openai"
    [listed] = [one async for one in sdk.batches.list()]
    assert (listed.id, listed.metadata) == (batch.id, {"night": "yes"})
    assert (await served.http.get("/v1/watches")).json()["data"] == []


async def test_the_blocking_sdk_works_as_well(served: Served, provider: SandboxProvider) -> None:
    def use() -> bytes:
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="bb_any") as client:
            file = client.files.create(file=("in.jsonl", INPUT), purpose="batch")
            made = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            provider.finish(made.id, "completed")
            ended = client.batches.retrieve(made.id)
            assert ended.status == "completed"
            assert ended.output_file_id is not None
            return client.files.content(ended.output_file_id).content

    assert json.loads(await asyncio.to_thread(use))["custom_id"] == "one"


async def wishes(served: Served) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await served.http.get("/v1/watches")).json()["data"]
    return found


async def test_a_webhook_url_in_the_metadata_makes_a_watch_and_goes_on(
    served: Served, sdk: openai.AsyncOpenAI, provider: SandboxProvider
) -> None:
    batch = await created(sdk, metadata={"webhook_url": HOOK})
    [watch] = await wishes(served)
    assert (watch["batch_id"], watch["url"]) == (batch.id, HOOK)
    assert provider.retrieve(batch.id)["metadata"] == {"webhook_url": HOOK}


async def test_a_webhook_in_the_body_makes_a_watch_with_wishes_of_its_own(
    served: Served, sdk: openai.AsyncOpenAI
) -> None:
    wish = {"url": HOOK, "events": ["batch.in_progress"], "metadata": {"who": "me"}}
    wish["results"] = "inline"
    await created(sdk, extra_body={"webhook": wish}, metadata={"webhook_url": f"{HOOK}/2"})
    second, first = await wishes(served)
    assert (first["url"], first["events"]) == (HOOK, ["batch.in_progress"])
    assert (first["metadata"], first["results"]) == ({"who": "me"}, "inline")
    assert second["url"] == f"{HOOK}/2"


async def test_a_webhook_may_name_an_endpoint(served: Served, sdk: openai.AsyncOpenAI) -> None:
    wanted = {"name": "n", "url": HOOK, "event_types": ["batch.lost"]}
    endpoint = (await served.http.post("/v1/webhook_endpoints", json=wanted)).json()
    await created(sdk, extra_body={"webhook": {"endpoint_id": endpoint["id"]}})
    [watch] = await wishes(served)
    assert watch["endpoint_id"] == endpoint["id"]


def test_what_is_for_us_alone_does_not_go_on() -> None:
    raw = b'{"endpoint": "/v1/x",  "webhook": {"url": "https://a.example"}}'
    assert for_provider(raw, json.loads(raw)) == b'{"endpoint":"/v1/x"}'
    plain = b'{ "endpoint" : "/v1/x" }'
    assert for_provider(plain, json.loads(plain)) is plain


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"webhook": {"url": "ftp://a.example"}}, "webhook.url", "invalid_value"),
        ({"webhook": {"url": "http://10.0.0.1/"}}, "webhook.url", "address_refused"),
        ({"webhook": {}}, "webhook.url", "missing_field"),
        ({"webhook": {"url": "x", "endpoint_id": [1]}}, "webhook.endpoint_id", "invalid_value"),
        ({"webhook": "https://a.example"}, "webhook", "invalid_value"),
        ({"webhook": {"url": HOOK, "events": ["no"]}}, "webhook.events[0]", "invalid_value"),
        ({"webhook": {"url": HOOK, "metadata": 1}}, "webhook.metadata", "invalid_value"),
        ({"webhook": {"endpoint_id": "whe_no"}}, "webhook.endpoint_id", "not_found"),
        ({"metadata": {"webhook_url": "nowhere"}}, "metadata.webhook_url", "invalid_value"),
        ({"metadata": {"webhook_url": 7}}, "metadata.webhook_url", "invalid_value"),
        ([], None, "invalid_value"),
    ],
)
async def test_a_wish_that_cannot_be_granted_is_refused_before_anything_is_made(
    served: Served, provider: SandboxProvider, body: Any, param: str | None, code: str
) -> None:
    answer = await served.http.post("/v1/batches", json=body)
    assert error_of(answer) == (400, code)
    assert answer.json()["error"]["param"] == param
    assert provider.calls["create"] == 0


ERRORS = {
    "bad": lambda provider: None,
    "unauthorized": lambda provider: provider.faults.add("unauthorized", times=2),
    "rate_limited": lambda provider: provider.faults.add(
        "rate_limited", times=2, retry_after_seconds=7
    ),
    "broken": lambda provider: provider.faults.add("status", status=503, times=2),
    "html": lambda provider: provider.faults.add("html", status=502, times=2),
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/batches"), ("GET", "/files/file-no"), ("POST", "/files")]
)
async def test_a_providers_errors_come_back_as_they_are(
    served: Served, sandbox: Sandbox, kind: str, method: str, path: str
) -> None:
    ERRORS[kind](sandbox.provider)
    headers = {"Authorization": "Bearer sk-test"}
    direct = await served.http.request(
        method, f"{sandbox.base_url}{path}", json={}, headers=headers
    )
    passed = await served.http.request(method, f"/v1{path}", json={})
    assert (passed.status_code, passed.text) == (direct.status_code, direct.text)
    assert passed.status_code >= 400
    for name in ("content-type", "retry-after"):
        assert passed.headers.get(name) == direct.headers.get(name)
    assert passed.headers["bb-account"] == "openai"


async def test_the_query_goes_on(served: Served, provider: SandboxProvider) -> None:
    await served.http.get("/v1/files?purpose=batch&limit=5&after=%2F..%20&x=%C3%A9")
    assert provider.log[-1] == (
        "GET",
        "/v1/files?purpose=batch&limit=5&after=%2F..%20&x=%C3%A9",
    )


async def test_an_id_cannot_climb_out_of_its_place(
    served: Served, provider: SandboxProvider
) -> None:
    await served.http.get("/v1/files/..%2Fbatches")
    assert [path for _, path in provider.log] in ([], ["/v1/files/..%2Fbatches"])


async def test_a_provider_that_is_away_is_a_502(
    served: Served, sandbox: Sandbox, sdk: openai.AsyncOpenAI
) -> None:
    await sandbox.stop()
    with pytest.raises(openai.InternalServerError) as caught:
        await sdk.files.retrieve("file-x")
    assert (caught.value.status_code, caught.value.code) == (502, "provider_unavailable")
    answer = await served.http.post("/v1/batches", json={})
    assert error_of(answer) == (502, "provider_unavailable")
    assert "x-should-retry" not in answer.headers


async def test_what_may_have_been_made_is_not_made_twice(
    served: Served, provider: SandboxProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK tries most failures again. Nobody has looked for the batch here yet."""
    monkeypatch.setattr(creations, "HOLD_SECONDS", 0.2)
    provider.faults.add("reset", route="create")
    retries = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="bb_any", max_retries=1)
    async with retries as sdk:
        with pytest.raises(openai.InternalServerError, match="may have been made"):
            await created(sdk)
    assert provider.calls["create"] == 1


async def test_an_answer_that_is_cut_off_is_an_error_for_the_caller(
    sdk: openai.AsyncOpenAI, provider: SandboxProvider, logged: Logged
) -> None:
    id = await uploaded(sdk, INPUT * 10_000)
    provider.faults.add("cut_off", route="content")
    with pytest.raises((openai.APIConnectionError, httpx.RemoteProtocolError)):
        await sdk.files.content(id)
    assert "an answer was cut off" in [line["event"] for line in logged()]


async def test_a_caller_who_leaves_takes_the_call_along(
    served: Served, provider: SandboxProvider, logged: Logged
) -> None:
    provider.faults.add("hang", route="file")
    asking = asyncio.create_task(served.http.get("/v1/files/file-x"))
    await provider.faults.until_hanging()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: [line for line in logged() if line.get("status") == 499])


async def test_a_batch_is_made_and_kept_though_the_caller_has_left(
    served: Served, provider: SandboxProvider, sdk: openai.AsyncOpenAI
) -> None:
    id = await uploaded(sdk)
    provider.faults.add("hang", route="create")
    body = {
        "input_file_id": id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "webhook": {"url": HOOK},
    }
    asking = asyncio.create_task(served.http.post("/v1/batches", json=body))
    await provider.faults.until_hanging()
    asking.cancel()
    provider.faults.release()
    await until(lambda: wishes(served))


async def second_account(served: Served, sandbox: Sandbox) -> None:
    body = {
        "name": "second",
        "provider": "openai",
        "api_key": "sk-second-0123456789",
        "base_url": sandbox.base_url,
    }
    assert (await served.http.post("/v1/accounts", json=body)).status_code == 201


async def test_the_account_is_chosen_by_a_header(
    served: Served, sandbox: Sandbox, sdk: openai.AsyncOpenAI
) -> None:
    await second_account(served, sandbox)
    with pytest.raises(openai.AuthenticationError, match="6789") as caught:
        await sdk.files.retrieve("file-x", extra_headers={"bb-account": "second"})
    assert caught.value.response.headers["bb-account"] == "second"
    with pytest.raises(openai.BadRequestError) as refused:
        await sdk.files.retrieve("file-x", extra_headers={"bb-account": "third"})
    assert (refused.value.code, refused.value.param) == ("unknown_account", "bb-account")


async def test_a_batch_is_asked_of_its_own_account(
    served: Served, sandbox: Sandbox, sdk: openai.AsyncOpenAI
) -> None:
    await second_account(served, sandbox)
    id = sandbox.provider.add_batch()
    await served.watch(id, account="second")
    sandbox.provider.api_key = "sk-second-0123456789"
    assert (await sdk.batches.retrieve(id)).status == "in_progress"
    assert (await sdk.batches.cancel(id)).status == "cancelling"
    with pytest.raises(openai.AuthenticationError):
        await sdk.batches.retrieve(id, extra_headers={"bb-account": "openai"})


async def test_without_an_account_there_is_nobody_to_ask(served: Served) -> None:
    ops = (await served.http.post("/v1/keys", json={"name": "ops"})).json()["key"]
    await served.http.post("/v1/projects", json={"name": "blue"}, headers=bearer(ops))
    body = {"name": "team", "project_id": "blue"}
    key = (await served.http.post("/v1/keys", json=body, headers=bearer(ops))).json()["key"]
    for method, path in (("GET", "/v1/files"), ("POST", "/v1/batches/b/cancel")):
        answer = await served.http.request(method, path, headers=bearer(key))
        assert error_of(answer) == (400, "no_account")
    answer = await served.http.get("/v1/batches/b", headers=bearer(key))
    assert error_of(answer) == (404, "not_found")


async def test_a_running_batch_is_as_its_provider_has_it(
    served: Served, sdk: openai.AsyncOpenAI, provider: SandboxProvider
) -> None:
    batch = await created(sdk)
    provider.set_status(batch.id, "in_progress", completed=1)
    seen = await sdk.batches.retrieve(batch.id)
    assert seen.status == "in_progress"
    assert seen.request_counts is not None
    assert seen.request_counts.completed == 1
    assert (seen.model_extra or {})["batchbell"]["status"] == "in_progress"


async def test_an_end_that_somebody_sees_is_told_at_once(
    served: Served, sdk: openai.AsyncOpenAI, provider: SandboxProvider
) -> None:
    batch = await created(sdk, metadata={"webhook_url": HOOK})
    provider.finish(batch.id, "completed")
    stale = await sdk.batches.retrieve(batch.id, extra_query={"fresh": "false"})
    assert stale.status == "in_progress"
    assert (await sdk.batches.retrieve(batch.id)).status == "completed"
    [delivery] = (await served.http.get("/v1/deliveries")).json()["data"]
    assert delivery["event_type"] == "batch.completed"
    provider.forget(batch.id)
    asked = provider.calls["retrieve"]
    assert (await sdk.batches.retrieve(batch.id)).status == "completed"
    assert provider.calls["retrieve"] == asked


async def test_a_batch_that_we_know_is_answered_whatever_the_provider_says(
    sandbox: Sandbox, sdk: openai.AsyncOpenAI
) -> None:
    batch = await created(sdk)
    sandbox.provider.faults.add("rate_limited", route="retrieve")
    assert (await sdk.batches.retrieve(batch.id)).status == "in_progress"
    await sandbox.stop()
    assert (await sdk.batches.retrieve(batch.id)).status == "in_progress"


async def test_a_batch_that_we_do_not_know_is_the_providers(
    sdk: openai.AsyncOpenAI, provider: SandboxProvider
) -> None:
    id = provider.add_batch()
    found = await sdk.batches.retrieve(id)
    assert (found.id, (found.model_extra or {}).get("batchbell")) == (id, None)
    with pytest.raises(openai.NotFoundError, match="No batch found with id 'batch_no'"):
        await sdk.batches.retrieve("batch_no")


async def test_a_cancel_is_the_providers_and_is_written_down(
    served: Served, sdk: openai.AsyncOpenAI, provider: SandboxProvider
) -> None:
    batch = await created(sdk)
    assert (await sdk.batches.cancel(batch.id)).status == "cancelling"
    kept = await served.http.get(f"/v1/batches/{batch.id}", params={"fresh": "false"})
    assert kept.json()["status"] == "cancelling"
    unknown = provider.add_batch()
    assert (await sdk.batches.cancel(unknown)).status == "cancelling"
    with pytest.raises(openai.NotFoundError):
        await sdk.batches.cancel("batch_no")


async def test_the_answer_is_the_providers_though_the_database_fails(
    served: Served, sdk: openai.AsyncOpenAI, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """The batch is there, and must not be made again; it is kept once that can be."""
    adopt = sweeps.adopt_one
    failures = 2

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreUnavailable("no space left")
        return adopt(*args, **kwargs)

    monkeypatch.setattr(sweeps, "adopt_one", failing)
    monkeypatch.setattr(creations, "FIRST_PAUSE_SECONDS", 0.01)
    batch = await created(sdk, metadata={"webhook_url": HOOK})
    assert "batchbell" not in (batch.model_extra or {})
    [line] = [line for line in logged() if line["level"] == "error"]
    assert line["batch"] == batch.id
    assert HOOK not in json.dumps(logged())
    await until(lambda: wishes(served))


async def test_neither_bodies_nor_keys_are_logged(
    served: Served, sdk: openai.AsyncOpenAI, logged: Logged
) -> None:
    await created(sdk, metadata={"webhook_url": HOOK, "secret": "hush"})
    assert logged()
    for word in ("hush", HOOK, "sk-test", "bb_any", "gpt-5"):
        assert word not in json.dumps(logged())


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/files"), ("POST", "/v1/batches")])
async def test_a_provider_that_quotes_the_key_does_not_tell_it(
    served: Served, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    monkeypatch.setattr(api, "bad_key", lambda key: ApiError(401, f"No such key: {key}."))
    served.declare(key="sk-other")
    answer = await served.http.request(method, path, json={})
    assert answer.status_code == 401
    assert "No such key: [key]." in answer.text
