"""A client that nobody here wrote takes the sandbox for every provider, directly and through us."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from batchwork import BatchRequest, BatchStatus, Batchwork

from batchbell.sandbox import Sandbox, SandboxProvider
from tests.sandbox.making import KEY
from tests.web.making import Served

HOOK = "http://127.0.0.1:9/hook"


@dataclass(frozen=True)
class Judged:
    """A provider, and where the client finds it."""

    account: str
    model: str
    played: Callable[[Sandbox], SandboxProvider]
    own: Callable[[Sandbox], str]
    """The sandbox's base URL, as an account has it."""
    ours: str
    """The same below Batchbell."""
    version: str = ""
    """What the client's base URL has after both."""


PROVIDERS = [
    Judged(
        "anthropic",
        "anthropic/claude-sonnet-5",
        lambda sandbox: sandbox.anthropic,
        lambda sandbox: sandbox.url,
        "/anthropic",
    ),
    Judged(
        "gemini",
        "google/gemini-3.5-flash",
        lambda sandbox: sandbox.gemini,
        lambda sandbox: sandbox.gemini_url,
        "/gemini",
        "/v1beta",
    ),
    Judged(
        "mistral",
        "mistral/mistral-small-latest",
        lambda sandbox: sandbox.mistral,
        lambda sandbox: sandbox.mistral_url,
        "/mistral",
        "/v1",
    ),
]


async def is_satisfied(judged: Judged, sandbox: Sandbox, base_url: str) -> tuple[str, str]:
    """Runs one batch to its end and cancels another; returns their ids."""
    played = judged.played(sandbox)
    wanted = {
        "model": judged.model,
        "api_key": KEY,
        "base_url": f"{base_url}{judged.version}",
        "headers": {"bb-webhook-url": HOOK},
    }
    requests = [
        BatchRequest(custom_id=id, prompt=f"Say {id}.", max_output_tokens=9) for id in "abc"
    ]
    async with Batchwork() as client:
        job = await client.batch(requests=requests, **wanted)  # type: ignore[arg-type]
        played.finish(job.id, "completed", failed=1)
        ended = await job.wait(timeout=30)
        assert ended.status is BatchStatus.COMPLETED
        counts = ended.request_counts
        assert (counts.total, counts.completed, counts.failed) == (3, 2, 1)
        results = await job.collect()
        assert sorted(one.custom_id for one in results) == ["a", "b", "c"]
        good = [one for one in results if one.status == "succeeded"]
        assert len(good) == 2
        for one in good:
            assert one.text is not None
            assert f"Say {one.custom_id}." in one.text
            assert one.usage is not None
            assert (one.usage.input_tokens or 0) > 0
        other = await client.batch(requests=requests[:1], **wanted)  # type: ignore[arg-type]
        stopped = await other.cancel()
        assert stopped.status in (BatchStatus.CANCELLING, BatchStatus.CANCELLED)
    return job.id, other.id


@pytest.mark.parametrize("judged", PROVIDERS, ids=lambda one: one.account)
async def test_it_takes_the_sandbox_for_the_provider(judged: Judged, sandbox: Sandbox) -> None:
    await is_satisfied(judged, sandbox, judged.own(sandbox))


@pytest.mark.parametrize("judged", PROVIDERS, ids=lambda one: one.account)
async def test_its_batches_are_watched_when_it_calls_through_batchbell(
    judged: Judged, sandbox: Sandbox, served: Served
) -> None:
    account = {"name": judged.account, "api_key": KEY, "base_url": judged.own(sandbox)}
    assert (await served.http.post("/v1/accounts", json=account)).status_code == 201
    for id in await is_satisfied(judged, sandbox, f"{served.url}{judged.ours}"):
        answer = await served.http.get("/v1/watches", params={"batch_id": id})
        assert [one["url"] for one in answer.json()["data"]] == [HOOK]
