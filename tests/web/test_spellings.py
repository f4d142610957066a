"""A destination is `url`, `webhook_url` or `webhookUrl`: the same everywhere, one in a request."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from typing import Any

import httpx2
import pytest

from batchbell.api.fields import SPELLINGS, Request
from batchbell.client import AsyncBatchbell
from batchbell.sandbox import Sandbox, SandboxProvider

from .making import HOOK, Served

pytestmark = pytest.mark.databases("sqlite")

LINE = {"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {"model": "m"}}
LINES = json.dumps(LINE, separators=(",", ":")).encode() + b"\n"
JSONL = {"content-type": "application/jsonl"}

Pairs = dict[str, Any]
Send = Callable[[Pairs], dict[str, Any]]
"""What a client is given to send these pairs, beside all else that the route needs."""


def _form(pairs: Pairs) -> dict[str, Any]:
    return {"data": pairs, "files": {"file": ("in.jsonl", LINES, "application/jsonl")}}


ROUTES: dict[str, tuple[str, str, Send]] = {
    "awaiter": ("/batch-awaiter", "", lambda pairs: {"json": {"id": "b", **pairs}}),
    "watch": ("/v1/watches", "", lambda pairs: {"json": {"batch_id": "b", **pairs}}),
    "list": ("/v1/watches", "[0].", lambda pairs: {"json": [{"batch_id": "b", **pairs}]}),
    "watches": (
        "/v1/watches",
        "watches[0].",
        lambda pairs: {"json": {"watches": [{"batch_id": "b", **pairs}]}},
    ),
    "endpoint": ("/v1/webhook_endpoints", "", lambda pairs: {"json": {"name": "n", **pairs}}),
    "change": ("/v1/webhook_endpoints/{endpoint}", "", lambda pairs: {"json": pairs}),
    "submission": ("/v1/submissions", "", lambda pairs: {"json": {"requests": [LINE], **pairs}}),
    "query": (
        "/v1/submissions",
        "",
        lambda pairs: {"params": pairs, "content": LINES, "headers": JSONL},
    ),
    "form": ("/v1/submissions", "", _form),
    "batch": ("/v1/batches", "webhook.", lambda pairs: {"json": a_batch(webhook=pairs)}),
}
WITH_ENDPOINTS = ("watch", "list", "watches", "submission", "query", "form", "batch")


def a_batch(**more: Any) -> dict[str, Any]:
    return {
        "input_file_id": "file-1",
        "endpoint": "/v1/responses",
        "completion_window": "24h",
        **more,
    }


@pytest.fixture
def database_url(ready_sqlite_url: str) -> str:
    """What is judged here does not depend on the database."""
    return ready_sqlite_url


@pytest.fixture
def provider_url(sandbox: Sandbox) -> str:
    return sandbox.base_url


async def an_endpoint(served: Served) -> str:
    body = {"name": "there", "url": f"{HOOK}/there", "event_types": ["batch.completed"]}
    made = (await served.http.post("/v1/webhook_endpoints", json=body)).json()
    id: str = made["id"]
    return id


async def sent(served: Served, route: str, endpoint: str, pairs: Pairs) -> httpx2.Response:
    path, _, send = ROUTES[route]
    return await served.http.post(path.format(endpoint=endpoint), **send(pairs))


async def called(served: Served) -> set[str]:
    """The URLs that watches and endpoints name."""
    watches = (await served.http.get("/v1/watches")).json()["data"]
    endpoints = (await served.http.get("/v1/webhook_endpoints")).json()["data"]
    return {one["url"] for one in [*watches, *endpoints]}


@pytest.mark.parametrize("route", ROUTES)
async def test_each_spelling_means_the_same(
    served: Served, provider: SandboxProvider, route: str
) -> None:
    endpoint = await an_endpoint(served)
    for name in SPELLINGS:
        url = f"{HOOK}/{name}"
        answer = await sent(served, route, endpoint, {name: url})
        if route == "batch":
            assert answer.json()["error"]["param"] != f"webhook.{name}"  # the file is not there
            continue
        assert answer.status_code < 300, (name, answer.text)
        assert url in await called(served), name


@pytest.mark.parametrize("route", ROUTES)
async def test_two_spellings_in_one_request_are_refused_and_named(
    served: Served, route: str
) -> None:
    endpoint = await an_endpoint(served)
    before = await called(served)
    for one, other in permutations(SPELLINGS, 2):
        for value in (HOOK, f"{HOOK}/other"):
            answer = await sent(served, route, endpoint, {one: HOOK, other: value})
            error = answer.json()["error"]
            where = ROUTES[route][1]
            assert (answer.status_code, error["code"]) == (400, "duplicate_parameter"), error
            assert {f"{where}{one}", f"{where}{other}"} <= set(error["message"].split()), error
    assert await called(served) == before


@pytest.mark.parametrize("route", ROUTES)
async def test_what_is_wrong_with_it_is_said_in_the_callers_own_spelling(
    served: Served, route: str
) -> None:
    endpoint = await an_endpoint(served)
    for name in SPELLINGS:
        error = (await sent(served, route, endpoint, {name: "ftp://a.example"})).json()["error"]
        assert error["param"] == f"{ROUTES[route][1]}{name}", error
        error = (await sent(served, route, endpoint, {name: "x" * 3000})).json()["error"]
        assert error["message"].startswith(f"{ROUTES[route][1]}{name} must have at most"), error


@pytest.mark.parametrize("route", WITH_ENDPOINTS)
async def test_a_url_beside_an_endpoint_is_refused(served: Served, route: str) -> None:
    endpoint = await an_endpoint(served)
    for name in SPELLINGS:
        pairs = {name: HOOK, "endpoint_id": endpoint}
        answer = await sent(served, route, endpoint, pairs)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, f"{ROUTES[route][1]}endpoint_id")
        assert "url" in error["message"]
    assert HOOK not in await called(served)


async def test_two_spellings_of_the_query_and_the_body_are_refused(served: Served) -> None:
    body = {"requests": [LINE], "webhookUrl": HOOK}
    answer = await served.http.post("/v1/submissions", params={"url": HOOK}, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "duplicate_parameter")
    assert {"url", "webhookUrl"} <= set(error["message"].split())


async def test_another_spelling_is_the_same_request(served: Served) -> None:
    """An idempotency key tells two requests apart by what they ask for, not by how they say it."""
    ids = set()
    for route in ("submission", "query", "form"):
        for name in SPELLINGS:
            path, _, send = ROUTES[route]
            request = send({name: HOOK})
            headers = {**request.pop("headers", {}), "idempotency-key": "night"}
            answer = await served.http.post(path, **request, headers=headers)
            assert answer.status_code == 201, answer.text
            ids.add(answer.json()["id"])
    assert len(ids) == 1


@pytest.mark.parametrize("name", ["webhook_url", "webhookUrl"])
async def test_metadata_names_a_webhook_in_both_spellings_and_goes_on_as_it_is(
    served: Served, provider: SandboxProvider, name: str
) -> None:
    upload = {"files": {"file": ("in.jsonl", LINES)}, "data": {"purpose": "batch"}}
    file = (await served.http.post("/v1/files", **upload)).json()
    pairs = {name: HOOK, "url": "https://example.com/the-users-own"}
    body = a_batch(input_file_id=file["id"], metadata=pairs)
    made = await served.http.post("/v1/batches", json=body)
    assert made.status_code == 200, made.text
    assert provider.retrieve(made.json()["id"])["metadata"] == pairs
    assert await called(served) == {HOOK}


async def test_metadata_with_both_spellings_is_refused(served: Served) -> None:
    pairs = {"webhook_url": HOOK, "webhookUrl": HOOK}
    answer = await served.http.post("/v1/batches", json=a_batch(metadata=pairs))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "duplicate_parameter")
    assert {"metadata.webhook_url", "metadata.webhookUrl"} <= set(error["message"].split())


async def test_the_client_takes_each_spelling_and_one_of_them(served: Served) -> None:
    async with AsyncBatchbell(served.url) as bell:
        for name in SPELLINGS:
            url: Any = {name: f"{HOOK}/{name}"}
            assert (await bell.watch("batch_1", **url)).url == url[name]
            assert (await bell.create_endpoint(name="n", **url)).url == url[name]
            submitted = await bell.submit([LINE], **url)
            [watch] = [one async for one in bell.list_watches(batch_id=submitted.id)]
            assert watch.url == url[name]
        both: Any = {"webhook_url": HOOK, "webhookUrl": HOOK}
        with pytest.raises(TypeError, match="webhook_url and webhookUrl mean the same"):
            await bell.watch("batch_1", **both)


def test_every_request_with_a_destination_is_tried_here() -> None:
    def below(kind: type[Request]) -> set[str]:
        found = {kind.__name__} if kind.destination() else set()
        return found.union(*map(below, kind.__subclasses__()))

    assert below(Request) == {
        "AwaiterRequest",
        "WatchRequest",
        "Webhook",
        "EndpointRequest",
        "EndpointChanges",
        "SubmissionOptions",
        "SubmissionRequest",
        "MetadataWebhook",
    }
