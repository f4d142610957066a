"""Which account a call means that names none, where accounts are of several providers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchbell.core.errors import InvalidRequest
from batchbell.core.model import DEFAULT_PROJECT, Account
from batchbell.storage import batches
from batchbell.web.watches import account_of_batch

from .making import HOOK, Served
from .test_keys import error_of

pytestmark = pytest.mark.databases("sqlite")

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


UUID = "5c24e1ef-0ce4-4ef6-8a5e-f2e3c1f2a0d1"


async def test_an_id_that_other_hosts_may_have_too_is_refused(served: Served) -> None:
    """A UUID is a job of Mistral's, but hosts that speak OpenAI's dialect may have some as well."""
    await add(served, "mistral", provider="mistral")
    await add(served, "claude")
    asked: dict[str, Any] = {"id": UUID, "webhookUrl": HOOK}
    answer = await served.http.post("/batch-awaiter", json=asked)
    assert error_of(answer) == (400, "ambiguous_account")
    assert "openai, mistral" in answer.json()["error"]["message"]
    for batch_id, expected in ((ID, "claude"), ("batch_1", "openai"), ("b-1", "openai")):
        answer = await served.http.post("/batch-awaiter", json={**asked, "id": batch_id})
        assert answer.status_code == 201, answer.text
        assert await account_of(served, batch_id) == expected
    answer = await served.http.post("/batch-awaiter", json={**asked, "account": "mistral"})
    assert answer.status_code == 201
    assert await account_of(served, UUID) == "mistral"


def test_an_id_is_of_the_account_that_alone_may_have_it() -> None:
    """OpenAI itself has no UUIDs; a host that speaks its dialect may."""

    def account(name: str, provider: str, base_url: str) -> Account:
        return Account(id=name, project_id="prj", name=name, provider=provider, base_url=base_url)

    openai = account("openai", "openai", "https://api.openai.com/v1")
    vllm = account("vllm", "openai", "https://vllm.example/v1")
    mistral = account("mistral", "mistral", "https://api.mistral.ai/v1")

    def chosen(batch_id: str, *accounts: Account) -> str:
        return account_of_batch({one.name: one for one in accounts}, None, batch_id).name

    assert chosen(UUID, openai, mistral) == "mistral"
    assert chosen("batch_1", mistral, openai) == "openai"
    assert chosen("other", mistral, vllm) == "vllm"
    assert chosen("other", mistral, openai) == "openai", "it has no such ids now, and may once"
    with pytest.raises(InvalidRequest, match="vllm, mistral"):
        chosen(UUID, openai, vllm, mistral)


CLAUDE = {"custom_id": "a", "params": {"model": "claude-sonnet-5", "max_tokens": 9, "messages": []}}


async def submit(served: Served, *lines: Any, **options: str) -> Any:
    return await served.http.post(
        "/v1/submissions",
        params=options,
        content="".join(json.dumps(line) + "\n" for line in lines),
        headers={"content-type": "application/jsonl"},
    )


async def test_requests_are_written_as_the_accounts_provider_has_them(served: Served) -> None:
    await add(served, "claude")
    taken = await submit(served, LINE)
    assert (taken.status_code, taken.json()["account"]) == (201, "openai")
    other = {**CLAUDE, "custom_id": "b", "params": {**CLAUDE["params"], "model": "claude-haiku-5"}}
    taken = await submit(served, CLAUDE, other, account="claude")
    assert taken.status_code == 201, taken.text
    assert (taken.json()["endpoint"], taken.json()["model"]) == ("/v1/messages", "claude-sonnet-5")


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (LINE, "unknown_field", "custom_id and params on a line, not 'method'"),
        ({"custom_id": "a", "body": {}}, "unknown_field", "not 'body'"),
        ({"custom_id": "a"}, "missing_params", "There is no params"),
        ({"custom_id": "a", "params": []}, "invalid_params", "params must be an object"),
        ({"custom_id": "a b", "params": {}}, "invalid_custom_id", "[a-zA-Z0-9_-]{1,64}"),
        ({"custom_id": "a" * 65, "params": {}}, "invalid_custom_id", "1 to 64 characters"),
        ({"params": {"model": 7}}, "invalid_model", "params.model must be a string"),
    ],
)
async def test_what_is_wrong_with_a_line_of_another_form_is_said(
    served: Served, line: Any, code: str, words: str
) -> None:
    await add(served, "claude")
    answer = await submit(served, {**CLAUDE, "custom_id": "b"}, line, account="claude")
    assert answer.status_code == 422, answer.text
    problem = answer.json()["error"]["problems"][0]
    assert (problem["line"], problem["code"]) == (2, code)
    assert words in problem["message"]


async def test_an_endpoint_that_no_batch_asks_there_is_refused(served: Served) -> None:
    await add(served, "claude")
    answer = await submit(served, CLAUDE, account="claude", endpoint="/v1/responses")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "endpoint"
    answer = await submit(served, CLAUDE, account="claude", model="claude-haiku-5")
    assert answer.json()["error"]["problems"][0]["code"] == "mismatched_model"


async def test_a_job_of_mistral_has_one_model_beside_its_requests(served: Served) -> None:
    await add(served, "mistral", provider="mistral")
    line = {"custom_id": "a", "body": {"messages": []}}
    nameless = await submit(served, line, account="mistral")
    assert error_of(nameless) == (422, "invalid_requests")
    assert "No model is named" in nameless.json()["error"]["message"]
    taken = await submit(served, line, account="mistral", model="mistral-small-latest")
    assert taken.status_code == 201, taken.text
    shown = taken.json()
    assert (shown["endpoint"], shown["model"]) == ("/v1/chat/completions", "mistral-small-latest")
    named = {"custom_id": "b", "body": {"model": "mistral-embed", "input": "x"}}
    taken = await submit(served, named, account="mistral", endpoint="/v1/embeddings")
    assert taken.status_code == 201, taken.text
    assert (taken.json()["endpoint"], taken.json()["model"]) == ("/v1/embeddings", "mistral-embed")
    mixed = await submit(served, named, account="mistral", model="mistral-small-latest")
    assert mixed.json()["error"]["problems"][0]["code"] == "mismatched_model"


async def test_calls_of_the_sdk_are_not_passed_on_there(served: Served) -> None:
    await add(served, "claude")
    answer = await served.http.get("/v1/files", headers={"bb-account": "claude"})
    assert error_of(answer) == (400, "no_gateway")
    assert "POST /v1/submissions" in answer.json()["error"]["message"]


async def test_an_id_in_two_accounts_is_answered_with_their_names(served: Served) -> None:
    await add(served, "nightly", provider="openai")
    for account in ("openai", "nightly"):
        body = {"batch_id": "batch_1", "url": HOOK, "account": account}
        assert (await served.http.post("/v1/watches", json=body)).status_code == 201
    for path in ("/v1/batches/batch_1", "/v1/batches/batch_1/results"):
        answer = await served.http.get(path)
        assert error_of(answer) == (409, "ambiguous_account")
        assert "openai, nightly" in answer.json()["error"]["message"]
    answer = await served.http.post("/v1/batches/batch_1/cancel")
    assert error_of(answer) == (409, "ambiguous_account")
    for account in ("openai", "nightly"):
        which = {"account": account, "fresh": "false"}
        found = await served.http.get("/v1/batches/batch_1", params=which)
        assert found.json()["batchbell"]["account"] == account
        by_header = await served.http.get(
            "/v1/batches/batch_1", params={"fresh": "false"}, headers={"bb-account": account}
        )
        assert by_header.json() == found.json()
        answer = await served.http.get(f"/v1/batches/batch_1/results?account={account}")
        assert error_of(answer) == (409, "not_ended")
    answer = await served.http.get("/v1/batches/batch_1?account=nobody")
    assert error_of(answer) == (400, "unknown_account")
