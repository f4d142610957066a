"""Calls of Mistral's SDK: what is its own, beside what test_native.py says of every provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from batchbell.core.model import Mint
from batchbell.net.api import ApiClient
from batchbell.providers.mistral import Mistral
from batchbell.providers.profiles import MISTRAL
from batchbell.sandbox import Sandbox, SandboxProvider

from ..conftest import Clock
from .making import HOOK, Served, seeking

pytestmark = pytest.mark.databases("sqlite")

JOBS = "/mistral/v1/batch/jobs"
CHAT = "/v1/chat/completions"


@pytest.fixture
def provider(sandbox: Sandbox) -> SandboxProvider:
    return sandbox.mistral


@pytest.fixture(autouse=True)
async def account(served: Served, sandbox: Sandbox) -> None:
    body = {"name": "mistral", "provider": "mistral", "api_key": "sk-test"}
    body["base_url"] = sandbox.mistral_url
    assert (await served.http.post("/v1/accounts", json=body)).status_code == 201


def requests(number: int) -> list[dict[str, Any]]:
    return [{"custom_id": f"r{n}", "body": {"messages": []}} for n in range(number)]


async def create(served: Served, headers: Any = None, **asked: Any) -> httpx2.Response:
    return await served.http.post(JOBS, json={"endpoint": CHAT, **asked}, headers=headers)


async def uploaded(served: Served) -> str:
    answer = await served.http.post(
        "/mistral/v1/files",
        files={"file": ("in.jsonl", b'{"custom_id": "a", "body": {}}')},
        data={"purpose": "batch"},
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def urls_of(served: Served, id: str) -> list[str]:
    answer = await served.http.get("/v1/watches", params={"batch_id": id})
    return sorted(one["url"] for one in answer.json()["data"])


@pytest.mark.parametrize("name", ["webhook_url", "webhookUrl"])
async def test_the_metadata_and_a_header_say_whom_to_call(served: Served, name: str) -> None:
    other = f"{HOOK}/2"
    made = await create(
        served, {"bb-webhook-url": other}, requests=requests(2), metadata={name: HOOK, "job": "a"}
    )
    assert made.status_code == 200, made.text
    assert made.json()["metadata"]["job"] == "a"
    assert await urls_of(served, made.json()["id"]) == sorted([HOOK, other])


@pytest.mark.parametrize("url", ["ftp://a.example", 7])
async def test_a_hook_that_is_none_is_refused_in_mistrals_shape(
    served: Served, provider: SandboxProvider, url: Any
) -> None:
    answer = await create(served, requests=requests(1), metadata={"webhook_url": url})
    assert answer.status_code == 400
    error = answer.json()
    assert set(error) == {"object", "message", "type", "param", "code"}
    assert (error["object"], error["type"]) == ("error", "invalid_request_error")
    assert "metadata.webhook_url" in error["message"]
    assert provider.calls["create"] == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/mistral{CHAT}"),
        ("GET", "/mistral/v1/models"),
        ("GET", "/mistral/batch/jobs"),
        ("GET", "/mistral/v1/v1/batch/jobs"),
        ("GET", f"{JOBS}/%2E%2E"),
        ("GET", f"{JOBS}/a/content"),
        ("POST", "/mistral/v1/files/a/cancel"),
        ("DELETE", "/mistral/v1/files"),
    ],
)
async def test_nothing_else_is_passed_on(
    served: Served, provider: SandboxProvider, method: str, path: str
) -> None:
    before = provider.calls.copy()
    answer = await served.http.request(method, path)
    assert (answer.status_code, answer.json()["type"]) == (404, "not_found")
    assert "Send other calls to the provider itself" in answer.json()["message"]
    assert provider.calls == before


@pytest.fixture
async def seeker(served: Served, sandbox: Sandbox, clock: Clock, mint: Mint) -> AsyncIterator[None]:
    headers = {"authorization": "Bearer sk-test"}
    client = ApiClient(f"{sandbox.mistral_url}/v1", headers)
    way = Mistral(MISTRAL, client, "sk-test", clock)
    async with seeking(served, way, clock=clock, mint=mint):
        yield
    await client.aclose()


@pytest.mark.parametrize("inline", [False, True], ids=["files", "inline"])
async def test_a_job_whose_answer_was_lost_is_found_and_answered(
    served: Served, provider: SandboxProvider, seeker: None, inline: bool
) -> None:
    """Others of the same requests, with other metadata, are left alone."""
    asked: dict[str, Any] = (
        {"requests": requests(2)} if inline else {"input_files": [await uploaded(served)]}
    )
    other = await create(served, **asked, metadata={"job": "b"})
    provider.faults.add("reset", route="create", carried_out=True)
    found = await create(served, **asked, metadata={"webhook_url": HOOK, "job": "a"})
    assert found.status_code == 200, found.text
    assert found.headers["idempotent-replayed"] == "true"
    assert found.json()["metadata"]["job"] == "a"
    assert found.json()["id"] != other.json()["id"]
    assert await urls_of(served, found.json()["id"]) == [HOOK]
    assert len(provider.page(limit=9)[0]) == 2


async def test_many_requests_in_a_call_go_by_the_disk(served: Served) -> None:
    text = "x" * 2**20
    rows = [{"custom_id": f"r{n}", "body": {"prompt": text}} for n in range(5)]
    made = await create(served, requests=rows)
    assert made.json()["total_requests"] == 5, made.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"requests": 1}', b'{"endpoint": 1}'])
async def test_what_a_body_says_is_the_providers_to_judge(served: Served, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = await served.http.post(JOBS, content=body, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["bb-account"] == "mistral"
