"""Nothing of one project can be read, guessed or inferred by the key of another.

Every route of the application is walked: one that is new and not covered here fails the test.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from batchbell.sandbox import Sandbox
from batchbell.storage import results
from batchbell.web.auth import OPEN_PATHS
from batchbell.web.gateway.natives import NATIVES

from .making import HOOK, Served, a_snapshot
from .test_keys import bearer

NEVER = "never_there"
OPERATORS = {("GET", "/v1/projects"), ("POST", "/v1/projects"), ("GET", "/metrics")}
"""Not there for other projects."""
OWN = {("GET", "/v1/secret"), ("GET", "/v1/webhook_event_types")}
"""They name nothing of anybody but the caller."""
REFERENCE = "/docs/{name}"
"""Scripts and style sheets of the page `/docs`, the same for everybody."""
NATIVE_PATHS = {f"/{dialect}/{{path}}" for dialect in NATIVES}
"""Calls that are passed on: the batch that one names may be known."""
STREAMS = {("GET", "/v1/stream")}
"""They have no end, and follow what the caller's project records."""
CURSORS = {
    "/v1/watches": "watch_id",
    "/v1/batches": "batch_id",
    "/v1/events": "event_id",
    "/v1/deliveries": "delivery_id",
    "/v1/webhook_endpoints": "webhook_endpoint_id",
    "/v1/replays": "replay_id",
    "/v1/submissions": "submission_id",
}
"""Lists whose `after` takes the id of one of theirs."""
LISTS = {*CURSORS, "/v1/keys", "/v1/accounts", "/v1/files"}
FILTERS = {
    "/v1/watches": ["batch_id"],
    "/v1/events": ["batch_id"],
    "/v1/deliveries": ["event_id", "batch_id"],
}
A_BATCH = {"batch_id": "batch_new", "account": "mine"}
SOME_REQUESTS = {"endpoint": "/v1/responses", "requests": [{"body": {"model": "m"}}]}
AN_ACCOUNT = {
    "provider": "openai",
    "api_key": "sk-mine-0123456789",
    "base_url": "http://127.0.0.1:9/v1",
}
BODIES: dict[tuple[str, str], list[tuple[dict[str, Any], str, str]]] = {
    ("POST", "/batch-awaiter"): [({"id": "b", "webhookUrl": HOOK}, "account", "account_name")],
    ("POST", "/v1/watches"): [
        (A_BATCH, "endpoint_id", "webhook_endpoint_id"),
        ({"batch_id": "b", "url": HOOK}, "account", "account_name"),
    ],
    ("POST", "/v1/webhook_endpoints"): [({"name": "n", "url": HOOK}, "accounts", "account_name")],
    ("POST", "/v1/replays"): [
        ({}, "endpoint_id", "webhook_endpoint_id"),
        ({}, "event_id", "event_id"),
        ({"dry_run": True, "status": "all"}, "event_id", "event_id"),
    ],
    ("POST", "/v1/keys"): [({"name": "n"}, "project_id", "project_id")],
    ("POST", "/v1/accounts"): [],
    ("POST", "/v1/files"): [],
    ("POST", "/v1/batches"): [
        ({"webhook": {"endpoint_id": "{}"}}, "input_file_id", "webhook_endpoint_id"),
        ({}, "input_file_id", "file_id"),
    ],
    ("POST", "/v1/events"): [],
    ("POST", "/v1/submissions"): [
        (SOME_REQUESTS, "account", "account_name"),
        (SOME_REQUESTS, "endpoint_id", "webhook_endpoint_id"),
    ],
}
"""What a body may name of another project: the rest of it, the field, whose id; may be nothing."""


async def project(
    served: Served, operator: dict[str, str], name: str, **account_wishes: str
) -> dict[str, Any]:
    """A new project with a key and an account, and what they are called."""
    made = (await served.http.post("/v1/projects", json={"name": name}, headers=operator)).json()
    body = {"name": name, "project_id": made["id"]}
    key = (await served.http.post("/v1/keys", json=body, headers=operator)).json()
    headers = bearer(key["key"])
    account = await served.http.post(
        "/v1/accounts", json={**AN_ACCOUNT, "name": name, **account_wishes}, headers=headers
    )
    assert account.status_code == 201, account.text
    return {
        "headers": headers,
        "project_id": made["id"],
        "key_id": key["id"],
        "account_id": account.json()["id"],
        "account_name": name,
    }


async def something_of_everything(served: Served, theirs: dict[str, Any]) -> dict[str, Any]:
    """A batch that ended, with all that comes of it."""
    http, headers = served.http, theirs["headers"]
    wishes = {"name": "n", "url": HOOK}
    endpoint = (await http.post("/v1/webhook_endpoints", json=wishes, headers=headers)).json()
    body = {"batch_id": "batch_1", "url": HOOK}
    watch = (await http.post("/v1/watches", json=body, headers=headers)).json()
    await served.see(a_snapshot("batch_1"), account_id=theirs["account_id"])
    delivery = (await http.get("/v1/deliveries", headers=headers)).json()["data"][0]
    replay = (await http.post("/v1/replays", json={}, headers=headers)).json()
    upload = {"files": {"file": ("in.jsonl", b"{}")}, "data": {"purpose": "batch"}}
    named = {**headers, "bb-account": theirs["account_name"]}  # so that the file is remembered
    file = (await http.post("/v1/files", **upload, headers=named)).json()
    submission = await http.post("/v1/submissions", json=SOME_REQUESTS, headers=headers)
    merged = await served.context.store.read(results.of_batch, theirs["project_id"], "batch_1")
    return {
        **theirs,
        "results_id": merged.id,
        "file_id": file.get("id"),
        "submission_id": submission.json()["id"],
        "batch_id": "batch_1",
        "watch_id": watch["id"],
        "event_id": delivery["event_id"],
        "delivery_id": delivery["id"],
        "webhook_endpoint_id": endpoint["id"],
        "replay_id": replay["id"],
    }


@pytest.fixture
async def providers() -> AsyncIterator[tuple[str, str]]:
    """Two, that know nothing of each other, as accounts of two users do."""
    async with Sandbox() as first, Sandbox() as second:
        yield first.base_url, second.base_url


class Stranger:
    """Calls with a key of its own project, and compares with ids that never were."""

    def __init__(self, served: Served, headers: dict[str, str]) -> None:
        self._served = served
        self._headers = headers

    async def ask(self, method: str, path: str, **how: Any) -> httpx2.Response:
        return await self._served.http.request(method, path, headers=self._headers, **how)

    async def follows_nothing(self, path: str, *, after: str) -> None:
        """The events that are told from one of theirs on are those of the caller: none."""
        how: dict[str, Any] = {"headers": self._headers, "params": {"after": after}}
        async with self._served.http.stream("GET", path, **how) as answer:
            assert answer.status_code == 200
            first = await anext(answer.aiter_text())
            assert "evt_" not in first.replace(after, "")

    async def same(self, method: str, path: str, id: str, **how: Any) -> httpx2.Response:
        """Both answers must be the same but for the id. `{}` in path and body stands for it."""
        answers = []
        for word in (id, NEVER):
            body = {"json": filled(how["json"], word)} if "json" in how else {}
            answers.append(await self.ask(method, path.replace("{}", word), **body))
        told, never = answers
        assert told.status_code == never.status_code, (method, path, told.text)
        assert told.text.replace(id, NEVER) == never.text, (method, path)
        return told


def filled(value: Any, word: str) -> Any:
    if isinstance(value, dict):
        return {name: filled(inner, word) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, word) for inner in value]
    return word if value == "{}" else value


async def test_every_route_keeps_projects_apart(served: Served, providers: tuple[str, str]) -> None:
    made = (await served.http.post("/v1/keys", json={"name": "ops"})).json()
    operator = bearer(made["key"])
    first, second = providers
    made = await project(served, operator, "theirs", base_url=first)
    theirs = await something_of_everything(served, made)
    mine = await project(served, operator, "mine", base_url=second)
    before = await all_of(served, theirs["headers"])
    stranger = Stranger(served, mine["headers"])
    for method, path in routes(served):
        await walk(stranger, method, path, theirs)
    assert await all_of(served, theirs["headers"]) == before


def routes(served: Served) -> list[tuple[str, str]]:
    from batchbell.web.app import ROUTERS

    return [
        (method, route.path_format)  # type: ignore[attr-defined]
        for router in ROUTERS
        for route in router.routes
        for method in sorted(route.methods)  # type: ignore[attr-defined]
    ]


async def walk(stranger: Stranger, method: str, path: str, theirs: dict[str, Any]) -> None:
    """Try one route with ids of theirs; a route that nobody thought of is an error."""
    if path == REFERENCE:
        return
    if path in OPEN_PATHS or (method, path) in OWN:
        answer = await stranger.ask(method, path)
        assert not [id for id in ids_of(theirs) if id in answer.text], path
    elif (method, path) in STREAMS:
        await stranger.follows_nothing(path, after=theirs["event_id"])
    elif (method, path) in OPERATORS:
        answer = await stranger.ask(method, path, json={"name": "x"})
        never = await stranger.ask(method, "/v1/never")
        assert (answer.status_code, answer.text.replace(path, "/v1/never")) == (404, never.text)
    elif path in NATIVE_PATHS:
        asked = path.replace("{path}", "v1/messages/batches/{}")
        answer = await stranger.same(method, asked, theirs["batch_id"], **body_of(method))
        assert answer.status_code in (400, 404), (method, path, answer.text)
    elif names := re.findall(r"{(\w+)}", path):
        [name] = names
        asked = path.replace(f"{{{name}}}", "{}")
        answer = await stranger.same(method, asked, theirs[name], **body_of(method))
        assert answer.status_code == 404, (method, path, answer.text)
    elif method == "GET":
        assert path in LISTS, f"{path} is new: say here what it may show"
        await walk_list(stranger, path, theirs)
    else:
        assert (method, path) in BODIES, f"{method} {path} is new: say here what it may name"
        for rest, field, whose in BODIES[method, path]:
            named: Any = ["{}"] if field == "accounts" else "{}"
            body = {**rest, field: named}
            answer = await stranger.same(method, path, theirs[whose], json=body)
            assert 400 <= answer.status_code < 500 or empty(answer), (path, answer.text)


def body_of(method: str) -> dict[str, Any]:
    return {"json": {}} if method == "POST" else {}


def empty(answer: httpx2.Response) -> bool:
    return bool(answer.json().get("total") == 0)


async def walk_list(stranger: Stranger, path: str, theirs: dict[str, Any]) -> None:
    answer = await stranger.ask("GET", path)
    assert answer.status_code == 200, answer.text
    assert not [id for id in ids_of(theirs) if id in answer.text], path
    if path in CURSORS:
        cursor = await stranger.same("GET", f"{path}?after={{}}", theirs[CURSORS[path]])
        assert cursor.status_code == 404
    for name in FILTERS.get(path, []):
        filtered = await stranger.same("GET", f"{path}?{name}={{}}", theirs[name])
        assert filtered.json()["data"] == []


def ids_of(theirs: dict[str, Any]) -> list[str]:
    return [id for name, id in theirs.items() if name.endswith("_id")]


async def all_of(served: Served, headers: dict[str, str]) -> dict[str, Any]:
    return {path: (await served.http.get(path, headers=headers)).json() for path in sorted(LISTS)}


async def test_the_same_batch_id_stays_apart(served: Served) -> None:
    made = (await served.http.post("/v1/keys", json={"name": "ops"})).json()
    operator = bearer(made["key"])
    one = await something_of_everything(served, await project(served, operator, "one"))
    two = await project(served, operator, "two")
    body = {"batch_id": "batch_1", "url": HOOK}
    again = await served.http.post("/v1/watches", json=body, headers=two["headers"])
    assert again.status_code == 201

    async def batch(headers: dict[str, str]) -> Any:
        return (await served.http.get("/v1/batches/batch_1", headers=headers)).json()["batchbell"]

    mine, theirs = await batch(two["headers"]), await batch(one["headers"])
    assert (mine["account"], mine["status"]) == ("two", "validating")
    assert (theirs["account"], theirs["status"]) == ("one", "completed")
    events = await served.http.get("/v1/events", headers=two["headers"])
    assert events.json()["data"] == []


async def test_an_account_of_another_project_is_one_that_never_was(served: Served) -> None:
    made = (await served.http.post("/v1/keys", json={"name": "ops"})).json()
    operator = bearer(made["key"])
    await project(served, operator, "theirs")
    mine = (await project(served, operator, "mine"))["headers"]

    async def named(name: str) -> httpx2.Response:
        return await served.http.get("/v1/files", headers={**mine, "bb-account": name})

    told, never = await named("theirs"), await named(NEVER)
    assert (told.status_code, never.status_code) == (400, 400)
    assert told.text.replace("theirs", NEVER) == never.text
