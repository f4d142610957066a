"""`POST /batch-awaiter`, the contract that Batchbell was first asked for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from batchbell.core.model import Account
from batchbell.net.guard import AddressRules

from .making import HOOK, Served, a_snapshot

BODY = {"id": "batch_1", "webhookUrl": HOOK}


async def test_a_batch_is_registered(served: Served) -> None:
    answer = await served.http.post("/batch-awaiter", json=BODY)
    assert answer.status_code == 201
    assert answer.json()["batchId"] == "batch_1"
    assert set(answer.json()) == {"message", "batchId"}
    [watch] = (await served.http.get("/v1/watches")).json()["data"]
    assert (watch["batch_id"], watch["url"], watch["dialect"]) == ("batch_1", HOOK, "awaiter")


async def test_the_same_pair_again_is_the_same_watch_and_rings_once(served: Served) -> None:
    """Pitfall 6: the same id registered twice brought two webhooks."""
    answers = await asyncio.gather(
        *(served.http.post("/batch-awaiter", json=BODY) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert sum("already" in answer.json()["message"] for answer in answers) == 4
    await served.see(a_snapshot("batch_1"))
    assert len((await served.http.get("/v1/watches")).json()["data"]) == 1
    assert len((await served.http.get("/v1/deliveries")).json()["data"]) == 1


async def test_another_url_is_a_second_watch(served: Served) -> None:
    await served.http.post("/batch-awaiter", json=BODY)
    await served.http.post("/batch-awaiter", json={**BODY, "webhookUrl": HOOK + "/2"})
    assert len((await served.http.get("/v1/watches")).json()["data"]) == 2
    assert len((await served.http.get("/v1/batches")).json()["data"]) == 1


async def test_a_batch_that_has_ended_is_told_of_at_once(served: Served) -> None:
    await served.http.post("/batch-awaiter", json=BODY)
    await served.see(a_snapshot("batch_1"))
    await served.http.post("/batch-awaiter", json={**BODY, "webhookUrl": HOOK + "/late"})
    told = (await served.http.get("/v1/deliveries")).json()["data"]
    assert {one["url"] for one in told} == {HOOK, HOOK + "/late"}


WRONG: dict[str, tuple[Any, str, str]] = {
    "no id": ({"webhookUrl": HOOK}, "id", "missing_field"),
    "no url": ({"id": "b"}, "webhookUrl", "missing_field"),
    "null id": ({"id": None, "webhookUrl": HOOK}, "id", "missing_field"),
    "id is a number": ({"id": 7, "webhookUrl": HOOK}, "id", "invalid_value"),
    "empty id": ({"id": "", "webhookUrl": HOOK}, "id", "invalid_value"),
    "id walks": ({"id": "../files/x", "webhookUrl": HOOK}, "id", "invalid_value"),
    "id too long": ({"id": "x" * 513, "webhookUrl": HOOK}, "id", "invalid_value"),
    "id ends a line": ({"id": "x\n", "webhookUrl": HOOK}, "id", "invalid_value"),
    "id with NUL": ({"id": "x\x00", "webhookUrl": HOOK}, "id", "invalid_value"),
    "no url at all": ({"id": "b", "webhookUrl": "not a url"}, "webhookUrl", "invalid_value"),
    "another scheme": ({"id": "b", "webhookUrl": "ftp://x.org/"}, "webhookUrl", "invalid_value"),
    "url is a list": ({"id": "b", "webhookUrl": [HOOK]}, "webhookUrl", "invalid_value"),
    "unknown account": ({**BODY, "account": "azure"}, "account", "unknown_account"),
}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_field_is_named(served: Served, case: str) -> None:
    """Pitfall 10: missing fields answered 500, and "not a url" was accepted."""
    body, param, code = WRONG[case]
    answer = await served.http.post("/batch-awaiter", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert (await served.http.get("/v1/batches")).json()["data"] == []


async def test_everything_that_is_wrong_is_told_at_once(served: Served) -> None:
    answer = await served.http.post("/batch-awaiter", json={})
    assert [p["param"] for p in answer.json()["error"]["problems"]] == ["id", "webhookUrl"]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"id": "b", "webhookUrl": "\xff"}',
        rb'{"id": "b", "webhookUrl": "\ud800"}',
        b"[" * 100_000,
        b'{"id": NaN}',
    ],
)
async def test_what_is_no_json_is_refused(served: Served, body: bytes) -> None:
    answer = await served.http.post("/batch-awaiter", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("body", ["[]", '"text"', "7", "null"])
async def test_what_is_no_object_is_refused_in_one_sentence(served: Served, body: str) -> None:
    error = (await served.http.post("/batch-awaiter", content=body)).json()["error"]
    assert error["message"].startswith("The body must be a JSON object")
    assert "problems" not in error


async def test_json_is_read_whatever_the_content_type_says(served: Served) -> None:
    answer = await served.http.post(
        "/batch-awaiter", content=json.dumps(BODY), headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 201


async def test_fields_that_nobody_knows_are_refused(served: Served) -> None:
    answer = await served.http.post("/batch-awaiter", json={**BODY, "priority": "high"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "priority")
    assert (await served.http.get("/v1/watches")).json()["data"] == []


@pytest.mark.parametrize("told", [True, False], ids=["by its length", "as it streams in"])
async def test_a_huge_body_is_refused(served: Served, told: bool) -> None:
    body = b" " * (2**20 + 1)

    async def stream():  # type: ignore[no-untyped-def]
        yield body

    answer = await served.http.post("/batch-awaiter", content=body if told else stream())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


async def test_many_at_once_are_all_registered_and_counted(served: Served) -> None:
    bodies = [{"id": f"batch_{i}", "webhookUrl": HOOK} for i in range(60)]
    answers = await asyncio.gather(*(served.http.post("/batch-awaiter", json=b) for b in bodies))
    assert [a.json()["batchId"] for a in answers] == [b["id"] for b in bodies]
    text = (await served.http.get("/metrics")).text
    assert 'batchbell_registrations_total{created="true"} 60.0' in text
    assert 'batchbell_open_batches{status="validating"} 60.0' in text


class TestWithoutAccounts:
    @pytest.fixture
    def accounts(self) -> dict[str, Account]:
        return {}

    async def test_it_is_said_what_to_set(self, served: Served) -> None:
        error = (await served.http.post("/batch-awaiter", json=BODY)).json()["error"]
        assert error["code"] == "no_account"
        assert "OPENAI_API_KEY" in error["message"]


class TestUnderStrictRules:
    @pytest.fixture
    def rules(self) -> AddressRules:
        return AddressRules()

    @pytest.mark.databases("sqlite")
    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("http://example.com/hook", "BATCHBELL_ALLOW_HTTP"),
            ("https://127.0.0.1/hook", "loopback"),
            ("https://169.254.169.254/latest", "metadata"),
            ("https://localhost/hook", "loopback"),
        ],
    )
    async def test_a_forbidden_address_is_refused_with_its_reason(
        self, served: Served, url: str, reason: str
    ) -> None:
        """Pitfall 27: blocked addresses without an explanation."""
        answer = await served.http.post("/batch-awaiter", json={**BODY, "webhookUrl": url})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, "webhookUrl")
        assert error["code"] == "address_refused"
        assert reason in error["message"]
