"""Webhooks that a token signs, as those that single batches ask for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchbell.sandbox import Sandbox
from batchbell.sandbox.hooks import token
from batchbell.storage import hints

from .making import Served
from .test_hooks import told
from .test_keys import error_of


@pytest.fixture
def database_url(ready_sqlite_url: str) -> str:
    """What is judged here does not depend on the database."""
    return ready_sqlite_url


GEMINI = {"name": "gemini", "provider": "gemini", "api_key": "sk-test"}


async def of_gemini(served: Served, base_url: str, **more: Any) -> str:
    made = await served.http.post("/v1/accounts", json={**GEMINI, "base_url": base_url, **more})
    assert made.status_code == 201, made.text
    assert made.json()["hooks"]["per_batch"] is True
    id: str = made.json()["id"]
    return id


async def test_a_batch_that_asks_for_its_own_webhook_needs_no_secret(
    served: Served, sandbox: Sandbox
) -> None:
    """The keys are fetched from the provider. A token that comes again is a replay."""
    account = await of_gemini(served, sandbox.gemini_url)
    url = f"{served.url}/hooks/{account}"
    requests = {"requests": {"requests": [{"request": {"contents": []}}]}}
    batch = {"inputConfig": requests, "webhookConfig": {"uris": [url]}}
    id = sandbox.gemini.begin("m", {"batch": batch}, embeds=False)["name"]
    await served.watch(id, account="gemini")
    sandbox.gemini.finish(id)
    (one,) = sandbox.gemini.to_announce()
    assert await sandbox.ring() == [200]
    found = await served.context.store.read(hints.due, account, now=served.context.clock())
    assert [batch.id for batch in found.known.open] == [id]
    again = await served.http.post(url, content=one.body, headers=dict(one.headers))
    assert again.json()["result"] == "replayed"
    renamed = {**one.headers, "webhook-id": "evt_another"}
    assert (await served.http.post(url, content=one.body, headers=renamed)).json()["result"] == (
        "replayed"
    )


def by_token(served: Served, audience: str, **changes: Any) -> dict[str, str]:
    now = int(served.context.clock())
    event = json.loads(told("batches/a", "batch.succeeded"))
    claims = {**event, "aud": audience, "iat": now, "exp": now + 60, **changes}
    return {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": token(claims),
    }


async def test_a_token_must_be_for_this_account(served: Served, sandbox: Sandbox) -> None:
    """By the path of its address; or by what the provider calls it, where that is set."""
    account = await of_gemini(served, sandbox.gemini_url)
    url = f"/hooks/{account}"
    ours = by_token(served, f"https://tunnel.example{url}")
    assert (await served.http.post(url, headers=ours)).json()["result"] == "ignored"
    for audience in ("https://tunnel.example/hooks/acc_other", "project-7", "https://[", ""):
        answer = await served.http.post(url, headers=by_token(served, audience))
        assert error_of(answer) == (401, "hook_refused")
    await served.http.post(f"/v1/accounts/{account}", json={"hook_audience": "project-7"})
    answer = await served.http.post(url, headers=by_token(served, "project-7"))
    assert answer.json()["result"] == "ignored"
    assert error_of(await served.http.post(url, headers=ours)) == (401, "hook_refused")


async def test_keys_are_fetched_when_they_are_needed_and_not_at_a_forgers_pace(
    served: Served, sandbox: Sandbox
) -> None:
    account = await of_gemini(served, sandbox.gemini_url)
    url = f"/hooks/{account}"
    good = by_token(served, f"https://x.example{url}")
    assert (await served.http.post(url, headers=good)).status_code == 200
    await sandbox.stop()
    forged = token({}, kid="another")
    for seconds in (0, 61, 3_600):
        served.context.clock.advance(seconds)  # type: ignore[attr-defined]
        fresh = by_token(served, f"https://x.example{url}", jti=str(seconds))
        answer = await served.http.post(url, headers={**fresh, "webhook-signature": forged})
        assert error_of(answer) == (401, "hook_refused")
        assert (await served.http.post(url, headers=fresh)).status_code == 200, "old keys count"


async def test_where_no_keys_are_to_be_had_the_provider_is_to_try_again(served: Served) -> None:
    account = await of_gemini(served, "http://127.0.0.1:9")
    url = f"/hooks/{account}"
    for _ in range(2):
        answer = await served.http.post(url, headers=by_token(served, f"https://x.example{url}"))
        assert error_of(answer) == (502, "provider_unavailable")
    naked = await served.http.post(url, content=told())
    assert error_of(naked) == (404, "no_hooks")
