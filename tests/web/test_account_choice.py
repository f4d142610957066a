"""Which account a call means that names none, where accounts are of several providers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchbell.core.model import DEFAULT_PROJECT
from batchbell.storage import batches

from .making import HOOK, Served
from .test_keys import error_of

ID = "msgbatch_01XPZPiH1ni3dsLAD9cBDeew"
LINE = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/responses",
    "body": {"model": "gpt-5-mini", "input": "Hello"},
}


async def add(served: Served, *names: str, provider: str = "anthropic") -> None:
    for name in names:
        body = {"name": name, "provider": provider, "api_key": f"sk-{name}-0123456789"}
        answer = await served.http.post("/v1/accounts", json=body)
        assert answer.status_code == 201, answer.text


async def account_of(served: Served, batch_id: str) -> str:
    found = await served.context.store.read(batches.get_batch, DEFAULT_PROJECT, batch_id)
    return found.account


@pytest.mark.parametrize("path", ["/batch-awaiter", "/v1/watches"])
async def test_an_id_finds_the_one_account_that_can_have_it(served: Served, path: str) -> None:
    await add(served, "claude")
    await add(served, "nightly", provider="openai")
    for batch_id, expected in ((ID, "claude"), ("batch_1", "openai"), ("msgbatch-1", "openai")):
        name = "id" if path == "/batch-awaiter" else "batch_id"
        answer = await served.http.post(path, json={name: batch_id, "webhookUrl": HOOK})
        assert answer.status_code == 201, answer.text
        assert await account_of(served, batch_id) == expected


async def test_an_id_that_several_accounts_may_have_is_refused_with_their_names(
    served: Served,
) -> None:
    await add(served, "claude", "claude-eu")
    asked: dict[str, Any] = {"id": ID, "webhookUrl": HOOK}
    answer = await served.http.post("/batch-awaiter", json=asked)
    assert error_of(answer) == (400, "ambiguous_account")
    error = answer.json()["error"]
    assert error["param"] == "account"
    assert "claude, claude-eu" in error["message"]
    assert "openai" not in error["message"]
    answer = await served.http.post("/batch-awaiter", json={**asked, "account": "claude-eu"})
    assert answer.status_code == 201
    assert await account_of(served, ID) == "claude-eu"


async def test_a_list_of_watches_says_which_of_them_is_in_doubt(served: Served) -> None:
    await add(served, "claude", "claude-eu")
    items = [{"batch_id": "batch_1", "url": HOOK}, {"batch_id": ID, "url": HOOK}]
    answer = await served.http.post("/v1/watches", json={"watches": items})
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == ("watches[1].account", "ambiguous_account")
    items += [{"batch_id": ID, "url": "nonsense"}, {"batch_id": ID, "url": HOOK}]
    answer = await served.http.post("/v1/watches", json={"watches": items})
    assert [one["param"] for one in answer.json()["error"]["problems"]] == [
        "watches[1].account",
        "watches[2].url",
        "watches[3].account",
    ]


async def test_submissions_go_where_they_are_taken(served: Served) -> None:
    await add(served, "claude")
    body, headers = json.dumps(LINE) + "\n", {"content-type": "application/jsonl"}
    refused = await served.http.post(
        "/v1/submissions", params={"account": "claude"}, content=body, headers=headers
    )
    assert error_of(refused) == (400, "no_submissions")
    taken = await served.http.post("/v1/submissions", content=body, headers=headers)
    assert (taken.status_code, taken.json()["account"]) == (201, "openai")


async def test_calls_of_the_sdk_are_not_passed_on_there(served: Served) -> None:
    await add(served, "claude")
    answer = await served.http.get("/v1/files", headers={"bb-account": "claude"})
    assert error_of(answer) == (400, "no_gateway")
    assert "POST /v1/submissions" not in answer.json()["error"]["message"]
