"""Webhooks of providers: only what is genuine, new and about a batch that is watched counts."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from batchbell.core import signing
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.storage import accounts, hints
from batchbell.storage.masterkeys import MasterKeys

from .conftest import Logged
from .making import Served, a_snapshot
from .test_keys import error_of

SECRET = signing.make_secret(b"o" * 24)
OTHER = signing.make_secret(b"n" * 24)
FAR_SECONDS = 3_600.0


def told(batch_id: str = "batch_1", type_: str = "batch.completed") -> bytes:
    return json.dumps({"type": type_, "data": {"id": batch_id}}).encode()


async def ring(
    served: Served,
    body: bytes,
    *,
    id: str = "evt_1",
    secret: str = SECRET,
    account: str | None = None,
    at: float | None = None,
) -> httpx2.Response:
    now = served.context.clock() if at is None else at
    headers = signing.headers([secret], message_id=id, timestamp=int(now), body=body)
    url = f"/hooks/{account or served.account_id}"
    return await served.http.post(url, content=body, headers=headers)


async def swept(served: Served) -> None:
    """As if a sweep had just ended, and the next were an hour away."""
    context, now = served.context, served.context.clock()
    claimed = await context.store.write(
        accounts.claim_due, ids=[served.account_id], now=now, lease_seconds=60.0, token="t"
    )
    assert claimed is not None
    await context.store.write(
        accounts.finish, account_id=claimed.id, token="t", next_at=now + FAR_SECONDS, now=now
    )


async def due_in(served: Served) -> float:
    due = await served.context.store.read(accounts.next_due, [served.account_id])
    assert due is not None
    return due - served.context.clock()


def counted(served: Served, result: str) -> float:
    found: float = served.context.metrics.hooks.labels("openai", result)._value.get()
    return found


@pytest.fixture(autouse=True)
async def watched(served: Served) -> None:
    """A batch that nobody looks at for an hour."""
    served.declare(hook_secrets=(SECRET,))
    await served.watch("batch_1")
    await swept(served)


async def test_a_check_is_due_at_once(served: Served) -> None:
    assert await due_in(served) == FAR_SECONDS
    answer = await ring(served, told())
    assert (answer.status_code, answer.json()) == (200, {"object": "hook", "result": "accepted"})
    assert await due_in(served) == 0
    found = await served.context.store.read(
        hints.due, served.account_id, now=served.context.clock()
    )
    assert [batch.id for batch in found.known.open] == ["batch_1"]
    assert counted(served, "accepted") == 1


async def test_one_that_comes_again_changes_nothing(served: Served) -> None:
    """Its second signature is fresh: the id alone tells."""
    await ring(served, told())
    found = await served.context.store.read(
        hints.due, served.account_id, now=served.context.clock()
    )
    await served.context.store.write(
        hints.looked, served.account_id, found.hints, now=served.context.clock() + FAR_SECONDS
    )
    before = await due_in(served)
    for at in (served.context.clock(), served.context.clock() + 200):
        answer = await ring(served, told(), at=at)
        assert (answer.status_code, answer.json()["result"]) == (200, "replayed")
    assert await due_in(served) == before > 0
    assert counted(served, "replayed") == 2


async def test_many_at_the_same_time_are_taken_once_each(served: Served) -> None:
    for number in range(2, 12):
        await served.watch(f"batch_{number}")
    twice = [n for n in range(1, 12) for _ in range(2)]
    answers = await asyncio.gather(
        *(ring(served, told(f"batch_{n}"), id=f"evt_{n}") for n in twice)
    )
    results = [answer.json()["result"] for answer in answers]
    assert (results.count("accepted"), results.count("replayed")) == (11, 11)


async def test_nothing_changes_by_one_of_a_batch_that_nobody_watches(served: Served) -> None:
    for body in (told("batch_2"), told("resp_1", "response.completed"), b"{}"):
        answer = await ring(served, body, id=str(len(body)))
        assert (answer.status_code, answer.json()["result"]) == (200, "ignored")
    assert await due_in(served) == FAR_SECONDS
    listed = (await served.http.get("/v1/batches")).json()["data"]
    assert [one["id"] for one in listed] == ["batch_1"]


async def test_an_account_that_discovers_looks_for_a_batch_that_it_does_not_know(
    served: Served,
) -> None:
    context = served.context
    await context.store.write(
        accounts.ensure_account,
        project_id=DEFAULT_PROJECT,
        name="openai",
        provider="openai",
        base_url="https://api.openai.com/v1",
        discover=True,
        mint=context.mint,
        now=context.clock(),
    )
    await swept(served)
    await ring(served, told("resp_1", "response.completed"))
    assert await due_in(served) == FAR_SECONDS
    await ring(served, told("batch_2"), id="evt_2")
    assert await due_in(served) == 0


async def test_one_that_comes_after_the_end_was_seen_changes_nothing(served: Served) -> None:
    await served.see(a_snapshot("batch_1"))
    assert (await ring(served, told())).json()["result"] == "late"
    assert await due_in(served) == FAR_SECONDS


async def test_what_is_forged_or_stale_changes_nothing_and_is_counted(
    served: Served, logged: Logged
) -> None:
    now = served.context.clock()
    for answer in (
        await ring(served, told(), secret=OTHER),
        await ring(served, told(), at=now - 301),
        await ring(served, told(), at=now + 301),
    ):
        assert error_of(answer) == (401, "hook_refused")
    naked = await served.http.post(f"/hooks/{served.account_id}", content=told())
    assert error_of(naked) == (400, "invalid_value")
    assert await due_in(served) == FAR_SECONDS
    assert [counted(served, word) for word in ("forged", "stale", "malformed")] == [1, 2, 1]
    assert [line["reason"] for line in logged() if line["event"] == "hook.refused"] == [
        "forged",
        "stale",
        "stale",
        "malformed",
    ]


async def test_a_large_body_is_refused_before_it_is_read(served: Served) -> None:
    answer = await ring(served, b" " * (64 * 2**10 + 1))
    assert error_of(answer) == (413, "body_too_large")


async def test_only_a_post_is_taken_and_only_at_an_account(served: Served) -> None:
    assert error_of(await ring(served, told(), account="acc_unknown")) == (404, "no_hooks")
    assert error_of(await ring(served, told(), account="openai")) == (404, "no_hooks")
    got = await served.http.get(f"/hooks/{served.account_id}")
    assert error_of(got) == (405, "method_not_allowed")


async def test_no_api_key_is_needed_but_the_secret_is(served: Served) -> None:
    await served.http.post("/v1/keys", json={"name": "k"})
    assert (await served.http.get("/v1/accounts")).status_code == 401
    assert (await ring(served, told())).status_code == 200
    served.declare(hook_secrets=())
    answer = await ring(served, told(), id="evt_2")
    assert error_of(answer) == (404, "no_hooks")
    unknown = await ring(served, told(), account="acc_unknown")
    assert answer.text == unknown.text, "whether there is such an account is not said"
    assert counted(served, "no_secret") == 1


async def add(served: Served, **more: Any) -> httpx2.Response:
    body = {"name": "nightly", "provider": "openai", "api_key": "sk-nightly-0123456789", **more}
    return await served.http.post("/v1/accounts", json=body)


async def test_secrets_of_an_account_are_set_replaced_and_never_shown(served: Served) -> None:
    made = (await add(served, hook_secrets=[SECRET])).json()
    assert made["hooks"] == {
        "url": f"http://127.0.0.1:3000/hooks/{made['id']}",
        "secrets": 1,
        "per_batch": False,
        "received_at": None,
        "announced_in_a_row": 0,
        "missed_at": None,
        "relaxed": False,
    }
    id = made["id"]
    assert (await ring(served, told(), account=id)).json()["result"] == "ignored"
    rotated = await served.http.post(f"/v1/accounts/{id}", json={"hook_secrets": [OTHER, SECRET]})
    assert rotated.json()["hooks"]["secrets"] == 2
    assert rotated.json()["hooks"]["received_at"] == int(served.context.clock())
    for number, secret in enumerate((OTHER, SECRET)):
        answer = await ring(served, told(), account=id, secret=secret, id=f"evt_r{number}")
        assert answer.status_code == 200
    await served.http.post(f"/v1/accounts/{id}", json={"hook_secrets": []})
    answer = await ring(served, told(), account=id, id="evt_3")
    assert error_of(answer) == (404, "no_hooks")
    assert "--new-hook-secret" in answer.text
    for secret in (SECRET, OTHER):
        assert secret not in rotated.text


@pytest.mark.parametrize(
    "secrets", ["whsec_x", ["whsec_x"], ["sk-nightly-0123456789"], [SECRET] * 6, [7], [""]]
)
async def test_what_is_no_secret_is_refused(served: Served, secrets: Any) -> None:
    answer = await add(served, hook_secrets=secrets)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("hook_secrets")


async def test_secrets_are_kept_sealed_only(served: Served) -> None:
    id = (await add(served)).json()["id"]
    served.context.store.use(MasterKeys())
    answer = await served.http.post(f"/v1/accounts/{id}", json={"hook_secrets": [SECRET]})
    assert error_of(answer) == (400, "not_sealed")


async def test_a_provider_that_sends_none_has_no_such_address(served: Served) -> None:
    made = (await add(served, provider="mistral")).json()
    assert made["hooks"] is None
    assert error_of(await ring(served, told(), account=made["id"])) == (404, "no_hooks")


async def test_a_removed_account_takes_none(served: Served) -> None:
    id = (await add(served, hook_secrets=[SECRET])).json()["id"]
    await served.http.delete(f"/v1/accounts/{id}")
    assert error_of(await ring(served, told(), account=id)) == (404, "no_hooks")
