"""A batch made through the gateway is made once, whatever became of the provider's answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest

from batchbell.core import twins
from batchbell.core.model import Mint
from batchbell.net.api import ApiClient
from batchbell.providers.openai import OpenAI
from batchbell.providers.profiles import OPENAI
from batchbell.sandbox import Sandbox, SandboxProvider
from batchbell.web.gateway import creations
from batchbell.workers.seeker import Seeker

from ..conftest import Clock
from .making import HOOK, Served, seeking

LINE = b'{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"m"}}\n'
LOST: dict[str, dict[str, Any]] = {
    "reset": {"kind": "reset"},
    "a proxy gave up": {"kind": "html", "status": 504},
    "failed after all": {"kind": "status", "status": 500},
    "unreadable": {"kind": "html", "status": 200},
}


@pytest.fixture
def provider_url(sandbox: Sandbox) -> str:
    return sandbox.base_url


@pytest.fixture
async def seeker(
    served: Served, sandbox: Sandbox, clock: Clock, mint: Mint
) -> AsyncIterator[Seeker]:
    client = ApiClient(sandbox.base_url, {"Authorization": "Bearer sk-test"})
    way = OpenAI(OPENAI, client, "sk-test", clock)
    async with seeking(served, way, clock=clock, mint=mint) as seeker:
        yield seeker
    await client.aclose()


@pytest.fixture
async def sdk(served: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    """With the retries that it makes by itself."""
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="bb_any") as client:
        yield client


async def asked(served: Served, file_id: str, **more: Any) -> httpx2.Response:
    body = {"input_file_id": file_id, "endpoint": "/v1/responses", "completion_window": "24h"}
    headers = more.pop("headers", None)
    return await served.http.post("/v1/batches", json=body | more, headers=headers)


def uploaded(provider: SandboxProvider) -> str:
    row = provider.upload(LINE, filename="a.jsonl", purpose="batch")
    return str(row["id"])


def rows(provider: SandboxProvider) -> list[dict[str, Any]]:
    return provider.page(limit=100)[0]


async def urls(served: Served) -> list[str]:
    page = (await served.http.get("/v1/watches")).json()
    return [one["url"] for one in page["data"]]


@pytest.mark.parametrize("lost", LOST)
async def test_a_batch_whose_answer_was_lost_is_found_and_answered(
    served: Served, provider: SandboxProvider, seeker: Seeker, lost: str
) -> None:
    provider.faults.add(route="create", carried_out=True, **LOST[lost])
    answer = await asked(served, uploaded(provider), metadata={"webhook_url": HOOK})
    [row] = rows(provider)
    assert (answer.status_code, answer.json()["id"]) == (200, row["id"])
    assert answer.headers["idempotent-replayed"] == "true"
    assert await urls(served) == [HOOK]


async def test_the_sdks_own_retry_makes_no_twin(
    served: Served,
    provider: SandboxProvider,
    seeker: Seeker,
    sdk: openai.AsyncOpenAI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The batch comes into the list only after the first answer."""
    monkeypatch.setattr(creations, "HOLD_SECONDS", 0.0)
    file_id = uploaded(provider)
    provider.faults.add("reset", route="create", carried_out=True)
    batch = await sdk.batches.create(
        input_file_id=file_id,
        endpoint="/v1/responses",
        completion_window="24h",
        extra_body={"webhook": {"url": HOOK}},
    )
    assert [row["id"] for row in rows(provider)] == [batch.id]
    assert await urls(served) == [HOOK]


@pytest.mark.databases("sqlite")
async def test_what_was_not_made_may_be_made_again(
    served: Served, provider: SandboxProvider, seeker: Seeker, clock: Clock
) -> None:
    file_id = uploaded(provider)
    provider.faults.add("reset", route="create")
    begun = clock()
    first = await asked(served, file_id)
    assert first.status_code == 502
    assert clock() - begun >= twins.LOST_LOOK_FOR_SECONDS or (
        first.headers["x-should-retry"] == "true"
    )
    while (again := await asked(served, file_id)).status_code == 502:
        assert not rows(provider)
    assert [row["id"] for row in rows(provider)] == [again.json()["id"]]
    assert clock() - begun >= twins.LOST_LOOK_FOR_SECONDS
    assert "idempotent-replayed" not in again.headers


async def test_a_provider_without_a_list_is_not_to_be_asked_again(
    served: Served,
    provider: SandboxProvider,
    seeker: Seeker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(creations, "HOLD_SECONDS", 1.0)
    provider.faults.add("status", route="list", status=501, times=None, message="No list.")
    provider.faults.add("reset", route="create", carried_out=True)
    answer = await asked(served, uploaded(provider))
    assert (answer.status_code, answer.headers["x-should-retry"]) == (502, "false")
    assert "may have been made" in answer.json()["error"]["message"]


async def test_a_batch_that_was_there_before_is_not_taken_for_the_lost_one(
    served: Served,
    provider: SandboxProvider,
    seeker: Seeker,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(creations, "HOLD_SECONDS", 0.5)
    file_id = uploaded(provider)
    first = (await asked(served, file_id)).json()["id"]
    clock.advance(1.0)
    provider.faults.add("reset", route="create", carried_out=True)
    second = (await asked(served, file_id)).json()["id"]
    assert sorted([first, second]) == sorted(row["id"] for row in rows(provider))
    third = (await asked(served, file_id, headers={"Idempotency-Key": "b"})).json()["id"]
    assert third == second, "the lost call had no key: this may be its retry"


@pytest.mark.parametrize("status", [400, 404, 429])
async def test_a_clear_refusal_is_passed_on_and_nothing_is_looked_for(
    served: Served, provider: SandboxProvider, seeker: Seeker, status: int
) -> None:
    file_id = uploaded(provider)
    provider.faults.add("status", route="create", status=status, message="No.")
    assert (await asked(served, file_id)).status_code == status
    assert (await asked(served, file_id)).status_code == 200
    assert provider.calls["list"] == 0
