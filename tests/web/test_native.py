"""Calls of a provider's own SDK, below the name of its dialect, as they go over the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from batchbell.core.model import DEFAULT_PROJECT, Mint
from batchbell.net.api import ApiClient
from batchbell.providers.anthropic import Anthropic
from batchbell.providers.profiles import ANTHROPIC
from batchbell.sandbox import Sandbox, SandboxProvider
from batchbell.storage import batches
from batchbell.storage import creations as stored
from batchbell.web.gateway import creations

from ..conftest import Clock
from .making import HOOK, Served, seeking
from .test_keys import make_key

pytestmark = pytest.mark.databases("sqlite")

BATCHES = "/anthropic/v1/messages/batches"
VERSION = {"anthropic-version": "2023-06-01"}
REQUEST = {"custom_id": "a", "params": {"model": "claude-sonnet-5", "max_tokens": 9}}


@pytest.fixture
def provider(sandbox: Sandbox) -> SandboxProvider:
    return sandbox.anthropic


@pytest.fixture(autouse=True)
async def claude(served: Served, sandbox: Sandbox) -> None:
    await add(served, "claude", sandbox.url)


async def add(served: Served, name: str, base_url: str, **more: Any) -> None:
    body = {"name": name, "provider": "anthropic", "api_key": "sk-test", "base_url": base_url}
    assert (await served.http.post("/v1/accounts", json=body, **more)).status_code == 201


async def create(served: Served, *, number: int = 2, **headers: str) -> httpx2.Response:
    requests = [{**REQUEST, "custom_id": f"r{n}"} for n in range(number)]
    return await served.http.post(BATCHES, json={"requests": requests}, headers=VERSION | headers)


async def kept(served: Served, id: str) -> Any:
    return await served.context.store.read(batches.get_batch, DEFAULT_PROJECT, id)


async def urls_of(served: Served, id: str) -> list[str]:
    answer = await served.http.get("/v1/watches", params={"batch_id": id})
    return [one["url"] for one in answer.json()["data"]]


async def test_a_batch_that_is_made_is_watched(served: Served, provider: SandboxProvider) -> None:
    made = await create(served, **{"bb-webhook-url": HOOK})
    assert made.status_code == 200, made.text
    assert made.headers["bb-account"] == "claude"
    assert made.json()["type"] == "message_batch"
    id = made.json()["id"]
    assert [row["id"] for row in provider.page(limit=9)[0]] == [id]
    assert (await kept(served, id)).account == "claude"
    assert await urls_of(served, id) == [HOOK]
    silent = await create(served, number=1)
    assert await urls_of(served, silent.json()["id"]) == []
    assert (await kept(served, silent.json()["id"])).status == "in_progress"
    shown = await served.http.get(f"/v1/batches/{id}")
    assert shown.json()["batchbell"]["provider_status"] == "in_progress"


async def test_every_call_for_batches_is_passed_on(
    served: Served, provider: SandboxProvider
) -> None:
    id = (await create(served)).json()["id"]
    http = served.http
    found = await http.get(BATCHES, params={"limit": "1"}, headers=VERSION)
    assert [row["id"] for row in found.json()["data"]] == [id]
    stopped = await http.post(f"{BATCHES}/{id}/cancel", headers=VERSION)
    assert stopped.json()["processing_status"] == "canceling"
    assert (await kept(served, id)).status == "cancelling"
    provider.finish(id, "completed", failed=1)
    ended = await http.get(f"{BATCHES}/{id}", headers=VERSION)
    results = f"{served.url}{BATCHES}/{id}/results"
    assert ended.json()["results_url"] == results, "the SDK comes back through us"
    assert (await kept(served, id)).status == "completed"
    lines = (await http.get(results, headers=VERSION)).text.splitlines()
    assert sorted(json.loads(line)["custom_id"] for line in lines) == ["r0", "r1"]
    gone = await http.delete(f"{BATCHES}/{id}", headers=VERSION)
    assert gone.json()["type"] == "message_batch_deleted"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/anthropic/v1/messages"),
        ("GET", "/anthropic/v1/models"),
        ("GET", "/anthropic/"),
        ("DELETE", BATCHES),
        ("POST", f"{BATCHES}/msgbatch_1/results"),
        ("GET", f"{BATCHES}/%2E%2E"),
        ("GET", f"{BATCHES}/a/b"),
        ("GET", f"{BATCHES}/"),
        ("GET", f"/anthropic/x{BATCHES.removeprefix('/anthropic')}"),
    ],
)
async def test_nothing_else_is_and_the_error_is_the_providers(
    served: Served, provider: SandboxProvider, method: str, path: str
) -> None:
    before = provider.calls.copy()
    answer = await served.http.request(method, path, headers=VERSION)
    assert answer.status_code == 404, answer.text
    error = answer.json()
    assert (error["type"], error["error"]["type"]) == ("error", "not_found_error")
    assert "Send other calls to the provider itself" in error["error"]["message"]
    assert provider.calls == before


async def test_wrong_keys_and_hooks_are_refused_in_the_providers_shape(served: Served) -> None:
    key = (await make_key(served))["key"]
    refused = await create(served)
    assert refused.status_code == 401
    assert refused.json()["error"]["type"] == "authentication_error"
    for header in ("x-api-key", "x-goog-api-key", "api-key"):
        assert (await create(served, **{header: key})).status_code == 200
    bad = await create(served, **{"x-api-key": key, "bb-webhook-url": "ftp://a.example"})
    assert bad.status_code == 400
    assert bad.json()["error"]["type"] == "invalid_request_error"
    assert "bb-webhook-url" in bad.json()["error"]["message"]


async def test_a_providers_own_error_is_passed_on(
    served: Served, provider: SandboxProvider
) -> None:
    provider.faults.add("rate_limited", route="retrieve", retry_after_seconds=7)
    answer = await served.http.get(f"{BATCHES}/msgbatch_1", headers=VERSION)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.headers["bb-account"] == "claude"
    answer = await served.http.get(f"{BATCHES}/msgbatch_1", headers=VERSION)
    assert answer.json()["error"]["message"] == "Could not find message batch with id msgbatch_1."


@pytest.fixture
async def seeker(served: Served, sandbox: Sandbox, clock: Clock, mint: Mint) -> AsyncIterator[None]:
    client = ApiClient(sandbox.url, {"x-api-key": "sk-test", **VERSION})
    way = Anthropic(ANTHROPIC, client, "sk-test", clock)
    async with seeking(served, way, clock=clock, mint=mint):
        yield
    await client.aclose()


async def test_a_batch_whose_answer_was_lost_is_found_and_answered(
    served: Served, provider: SandboxProvider, seeker: None
) -> None:
    """By its number of requests: others of the account are left alone."""
    await create(served, number=3)
    provider.faults.add("reset", route="create", carried_out=True)
    found = await create(served, **{"bb-webhook-url": HOOK})
    row = provider.page(limit=9)[0][0]
    assert (found.status_code, found.json()["id"]) == (200, row["id"]), found.text
    assert found.headers["idempotent-replayed"] == "true"
    assert found.json()["type"] == "message_batch"
    assert await urls_of(served, row["id"]) == [HOOK]
    assert len(provider.page(limit=9)[0]) == 2


async def test_what_cannot_be_said_is_said_in_the_providers_shape(
    served: Served, provider: SandboxProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creations, "HOLD_SECONDS", 0.0)
    provider.faults.add("reset", route="create", carried_out=True)
    lost = await create(served)
    assert (lost.status_code, lost.headers["x-should-retry"]) == (502, "true")
    assert "The same call again is answered with what was found" in lost.json()["error"]["message"]
    assert (await create(served)).status_code == 502
    assert len(provider.page(limit=9)[0]) == 1


async def test_the_account_is_named_or_known_or_the_first(
    served: Served, sandbox: Sandbox, provider: SandboxProvider
) -> None:
    await add(served, "claude-eu", sandbox.url)
    made = await create(served, **{"bb-account": "claude-eu"})
    assert made.headers["bb-account"] == "claude-eu"
    found = await served.http.get(f"{BATCHES}/{made.json()['id']}", headers=VERSION)
    assert found.headers["bb-account"] == "claude-eu", "it has the batch"
    assert (await create(served)).headers["bb-account"] == "claude"
    wrong = await create(served, **{"bb-account": "openai"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "unknown_account")
    assert "claude, claude-eu" in wrong.json()["error"]["message"]


async def test_a_large_body_goes_by_the_disk(served: Served, provider: SandboxProvider) -> None:
    text = "x" * 2**20
    requests = [{"custom_id": f"r{n}", "params": {"model": "m", "system": text}} for n in range(5)]
    made = await served.http.post(BATCHES, json={"requests": requests}, headers=VERSION)
    assert made.json()["request_counts"]["processing"] == 5


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"requests": 1}', b'{"requests": []}'])
async def test_what_a_body_says_is_the_providers_to_judge(served: Served, body: bytes) -> None:
    answer = await served.http.post(
        BATCHES, content=body, headers=VERSION | {"content-type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    assert answer.headers["bb-account"] == "claude"
    assert await served.context.store.read(stored.next_due) is None, "nothing is in doubt"


async def test_our_own_cancel_reaches_every_provider(
    served: Served, provider: SandboxProvider
) -> None:
    id = (await create(served)).json()["id"]
    stopped = await served.http.post(f"/v1/batches/{id}/cancel")
    assert (stopped.status_code, stopped.json()["status"]) == (200, "cancelling"), stopped.text
    provider.finish(id, "cancelled")
    late = await served.http.post(f"/v1/batches/{id}/cancel")
    assert (late.status_code, late.json()["error"]["code"]) == (409, "conflict")
    assert "already ended" in late.json()["error"]["message"]
    unknown = await served.http.post("/v1/batches/msgbatch_0/cancel?account=claude")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
    provider.faults.add("unauthorized", times=None)
    denied = await served.http.post(f"/v1/batches/{id}/cancel")
    assert (denied.status_code, denied.json()["error"]["code"]) == (502, "provider_unavailable")
