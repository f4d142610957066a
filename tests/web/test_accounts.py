"""Accounts by API: added, tested, paused, removed; their credentials never shown again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from batchbell.client import ApiError, AsyncBatchbell
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.net.guard import AddressRules
from batchbell.sandbox import Sandbox
from batchbell.storage import accounts
from batchbell.storage.masterkeys import MasterKeys

from .conftest import Logged
from .making import HOOK, Served
from .test_keys import error_of

pytestmark = pytest.mark.databases("sqlite")

KEY = "sk-nightly-0123456789abcdef"


async def add(served: Served, name: str = "nightly", **more: Any) -> httpx2.Response:
    body = {"name": name, "provider": "openai", "api_key": KEY, **more}
    return await served.http.post("/v1/accounts", json=body)


async def claim(served: Served, id: str) -> object:
    context = served.context
    return await context.store.write(
        accounts.claim_due, ids=[id], now=context.clock(), lease_seconds=60.0, token="t"
    )


async def test_an_account_is_added_and_its_key_never_shown(served: Served, logged: Logged) -> None:
    made = await add(served)
    assert made.status_code == 201, made.text
    assert (made.json()["source"], made.json()["api_key_hint"]) == ("api", "…cdef")
    listed = await served.http.get("/v1/accounts")
    assert [one["name"] for one in listed.json()["data"]] == ["openai", "nightly"]
    shown = await served.http.get("/v1/accounts/nightly")
    assert shown.json() == made.json()
    for text in (made.text, listed.text, shown.text, str(logged())):
        assert KEY not in text


async def test_it_can_be_named_at_once_and_the_environments_stays_the_default(
    served: Served,
) -> None:
    id = (await add(served)).json()["id"]
    assert (await served.watch("b", account="nightly"))["batch_id"] == "b"
    await served.watch("c")
    found = (await served.http.get("/v1/batches")).json()["data"]
    assert {one["id"]: one["batchbell"]["account"] for one in found} == {
        "b": "nightly",
        "c": "openai",
    }
    assert await claim(served, id) is not None


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a b"),
        ("provider", "mars"),
        ("base_url", "ftp://x.example"),
        ("base_url", "https://u:p@x.example"),
        ("base_url", "https://x.example/v1?key=1"),
        ("api_key", ""),
        ("api_key", "two words"),
        ("api_key", "schlüssel"),
    ],
)
async def test_a_wrong_field_is_named(served: Served, field: str, value: str) -> None:
    error = (await add(served, **{field: value})).json()["error"]
    assert error["param"] == field


async def test_names_are_unique_and_the_environments_is_kept(served: Served) -> None:
    await add(served)
    assert error_of(await add(served)) == (409, "name_taken")
    assert error_of(await add(served, "openai")) == (409, "name_taken")


async def test_without_a_master_key_nothing_is_kept(served: Served) -> None:
    served.context.store.use(MasterKeys())
    answer = await add(served)
    assert error_of(answer) == (400, "not_sealed")
    assert "BATCHBELL_MASTER_KEY" in answer.text


async def test_the_environments_account_can_only_be_paused(served: Served) -> None:
    for answer in (
        await served.http.post("/v1/accounts/openai", json={"api_key": KEY}),
        await served.http.delete("/v1/accounts/openai"),
    ):
        assert error_of(answer) == (409, "account_from_environment")
    paused = await served.http.post("/v1/accounts/openai/pause")
    assert paused.json()["state"] == "paused"
    assert await claim(served, served.account_id) is None
    resumed = await served.http.post("/v1/accounts/openai", json={"state": "active"})
    assert resumed.json()["state"] == "active"
    assert await claim(served, served.account_id) is not None


async def test_a_pause_survives_a_start(served: Served) -> None:
    await served.http.post("/v1/accounts/openai/pause")
    context = served.context
    again = await context.store.write(
        accounts.ensure_account,
        project_id=DEFAULT_PROJECT,
        name="openai",
        provider="openai",
        base_url="https://api.openai.com/v1",
        mint=context.mint,
        now=context.clock(),
    )
    assert again.state == "paused"


async def test_a_change_takes_the_lease_of_the_sweep_that_is_under_way(served: Served) -> None:
    id = (await add(served)).json()["id"]
    assert await claim(served, id) is not None
    await served.http.post(f"/v1/accounts/{id}", json={"api_key": "sk-another-0123456789"})
    assert await claim(served, id) is not None


async def test_an_account_with_open_batches_is_removed_by_force_and_comes_back(
    served: Served,
) -> None:
    id = (await add(served)).json()["id"]
    await served.watch("b", account="nightly")
    assert error_of(await served.http.delete("/v1/accounts/nightly")) == (409, "account_in_use")
    gone = (await served.http.delete("/v1/accounts/nightly?force=true")).json()
    assert (gone["id"], gone["open_batches"]) == (id, 1)
    assert (await served.http.get(f"/v1/accounts/{id}")).status_code == 404
    assert await claim(served, id) is None
    body = {"batch_id": "c", "url": HOOK, "account": "nightly"}
    assert error_of(await served.http.post("/v1/watches", json=body)) == (400, "unknown_account")
    assert (await served.http.get("/v1/batches/b")).status_code == 200
    assert (await add(served)).json()["id"] == id
    assert await claim(served, id) is not None


class TestUnderStrictRules:
    @pytest.fixture
    def rules(self) -> AddressRules:
        return AddressRules()

    @pytest.mark.parametrize(
        "url", ["http://example.com/v1", "https://127.0.0.1/v1", "https://169.254.169.254/v1"]
    )
    async def test_an_address_is_judged_as_a_webhooks(self, served: Served, url: str) -> None:
        error = (await add(served, base_url=url)).json()["error"]
        assert (error["param"], error["code"]) == ("base_url", "address_refused")

    async def test_a_name_that_leads_inside_is_not_called(self, served: Served) -> None:
        """The rules that count are those at the socket."""
        await add(served, base_url="https://localtest.invalid/v1")
        served.context.store.use(served.context.store.keys)
        result = (await served.http.post("/v1/accounts/nightly/test")).json()
        assert (result["ok"], result["error"]) == (False, "unavailable")


class TestAgainstAProvider:
    @pytest.fixture
    async def sandbox(self) -> AsyncIterator[Sandbox]:
        async with Sandbox(api_key=KEY) as sandbox:
            yield sandbox

    async def test_the_client_does_it_all(self, served: Served, sandbox: Sandbox) -> None:
        async with AsyncBatchbell(served.url) as bell:
            await bell.add_account("nightly", KEY, base_url=sandbox.base_url)
            good = await bell.test_account("nightly")
            assert (good.ok, good.error, good.message) == (True, None, None)
            await bell.update_account("nightly", api_key="sk-wrong-0123456789")
            bad = await bell.test_account("nightly")
            assert (bad.ok, bad.error, bad.status) == (False, "auth", 401)
            assert "sk-wrong" not in str(bad)
            assert (await bell.pause_account("nightly")).state == "paused"
            assert (await bell.resume_account("nightly")).state == "active"
            assert (await bell.account("nightly")).api_key_hint == "…6789"
            assert (await bell.remove_account("nightly")).open_batches == 0
            with pytest.raises(ApiError, match="No account found"):
                await bell.account("nightly")
