"""Credentials are written once: whoever may use them must not be able to read them.

The attack on each: lead what has secrets to a server of one's own, and have it called.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from batchbell.sandbox import Receiver

from .making import Served
from .test_keys import error_of

pytestmark = pytest.mark.databases("sqlite")

KEY = "sk-nightly-0123456789abcdef"
SECRET_HEADER = {"Authorization": "Bearer receivers-own-secret"}


@pytest.fixture
def database_url(ready_sqlite_url: str) -> str:
    return ready_sqlite_url


@pytest.fixture
async def spy() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def add_account(served: Served) -> None:
    body = {"name": "nightly", "provider": "openai", "api_key": KEY}
    body["base_url"] = "http://127.0.0.1:9/v1"
    answer = await served.http.post("/v1/accounts", json=body)
    assert answer.status_code == 201, answer.text


async def test_an_accounts_key_is_not_sent_to_another_address(
    served: Served, spy: Receiver
) -> None:
    await add_account(served)
    for url in (spy.url("/v1"), "http://127.0.0.1:9/other", "http://localhost:9/v1"):
        for more in ({}, {"state": "active", "discover": True}, {"api_key": None}):
            answer = await served.http.post("/v1/accounts/nightly", json={"base_url": url, **more})
            assert error_of(answer) == (400, "credentials_required"), answer.text
            assert answer.json()["error"]["param"] == "api_key"
    await served.http.post("/v1/accounts/nightly/test")
    assert spy.received == []
    shown = (await served.http.get("/v1/accounts/nightly")).json()
    assert (shown["base_url"], shown["discover"]) == ("http://127.0.0.1:9/v1", False)


async def test_an_accounts_key_goes_where_it_was_given_for(served: Served, spy: Receiver) -> None:
    await add_account(served)
    same = {"base_url": "http://127.0.0.1:9/v1/", "state": "active"}
    assert (await served.http.post("/v1/accounts/nightly", json=same)).status_code == 200
    moved = {"base_url": spy.url("/v1"), "api_key": "sk-mine-0123456789"}
    assert (await served.http.post("/v1/accounts/nightly", json=moved)).status_code == 200
    await served.http.post("/v1/accounts/nightly/test")
    [seen] = spy.received
    assert "sk-mine" in seen.headers["authorization"]
    assert KEY not in str(seen.headers)


async def made_endpoint(served: Served, **more: Any) -> str:
    body = {"name": "n", "url": "http://127.0.0.1:9/a", "event_types": ["batch.completed"], **more}
    answer = await served.http.post("/v1/webhook_endpoints", json=body)
    assert answer.status_code == 200, answer.text
    return f"/v1/webhook_endpoints/{answer.json()['id']}"


async def test_an_endpoints_headers_are_not_sent_to_another_url(
    served: Served, spy: Receiver
) -> None:
    path = await made_endpoint(served, headers=SECRET_HEADER)
    for url in (spy.url("/hook"), "http://127.0.0.1:9/b"):
        answer = await served.http.post(path, json={"url": url, "name": "mine"})
        assert error_of(answer) == (400, "credentials_required")
        assert answer.json()["error"]["param"] == "headers"
    masked = {"url": spy.url("/hook"), "headers": {"Authorization": "***"}}
    assert error_of(await served.http.post(path, json=masked)) == (400, "invalid_value")
    await served.http.post(f"{path}/test")
    assert spy.received == []
    assert (await served.http.get(path)).json()["name"] == "n"


async def test_an_endpoint_moves_with_headers_given_anew_or_dropped(
    served: Served, spy: Receiver
) -> None:
    for headers in (None, {}, {"X-Mine": "1"}):
        path = await made_endpoint(served, headers=SECRET_HEADER)
        moved = await served.http.post(path, json={"url": spy.url("/hook"), "headers": headers})
        assert moved.status_code == 200, moved.text
        await served.http.post(f"{path}/test")
        assert "receivers-own-secret" not in str(spy.received[-1].headers)
    path = await made_endpoint(served)
    assert (await served.http.post(path, json={"url": spy.url("/hook")})).status_code == 200
