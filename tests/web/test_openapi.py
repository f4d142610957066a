"""The OpenAPI document: complete, and true."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from batchbell.api.errors import ErrorBody, PassedErrorBody
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.sandbox import Sandbox
from batchbell.storage import results as merged
from batchbell.web import results
from batchbell.web.app import ROUTERS
from batchbell.web.gateway.native import METHODS
from batchbell.web.gateway.natives import NATIVES
from batchbell.web.openapi import schema_of

from .making import HOOK, Served, a_snapshot

pytestmark = pytest.mark.databases("sqlite")

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 12 if "CI" in os.environ else 6
"""For each operation: enough to try every field, few enough to end within seconds."""


@pytest.fixture
def database_url(ready_sqlite_url: str) -> str:
    """What is judged here does not depend on the database."""
    return ready_sqlite_url


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def provider_url(sandbox: Sandbox) -> str:
    """The gateway needs somebody who answers."""
    return sandbox.base_url


async def document(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = (await served.http.get("/openapi.json")).json()
    return found


async def test_every_route_is_described(served: Served) -> None:
    paths = (await document(served))["paths"]
    described = {(method.upper(), path) for path, ops in paths.items() for method in ops}
    routes = {
        (method, route.path_format)
        for router in ROUTERS
        for route in router.routes
        for method in route.methods
    }
    assert routes - described == {
        ("GET", path) for path in ("/docs", "/docs/{name}", "/openapi.json")
    }


async def test_every_route_describes_its_errors_in_openais_shape(served: Served) -> None:
    """But for calls of a provider's own SDK, which get them in that provider's shape."""
    kinds = (ErrorBody, PassedErrorBody)
    native = {f"/{dialect}/{{path}}" for dialect in NATIVES}
    for path, operations in (await document(served))["paths"].items():
        for operation in operations.values():
            for status, told in operation["responses"].items():
                if (status == "default" or int(status) >= 400) and path != "/readyz":
                    shape = told["content"]["application/json"]["schema"]
                    ours = [schema_of(kind) for kind in kinds]
                    own = [{"type": "object"}]
                    assert shape in (own if path in native else ours), (path, status)


async def some_of_everything(served: Served) -> dict[str, str]:
    """A batch that ended, what came of it, a replay and a submission: what they are called."""
    watch = await served.watch("batch_1")
    await served.see(a_snapshot("batch_1"))
    [delivery] = (await served.http.get("/v1/deliveries")).json()["data"]
    wanted = {"name": "n", "url": HOOK, "event_types": ["batch.completed"]}
    endpoint = (await served.http.post("/v1/webhook_endpoints", json=wanted)).json()
    replay = (await served.http.post("/v1/replays", json={})).json()
    upload = {"files": {"file": ("in.jsonl", b"{}")}, "data": {"purpose": "batch"}}
    file = (await served.http.post("/v1/files", **upload)).json()
    requests = [{"body": {"model": "m"}}]
    body = {"endpoint": "/v1/responses", "requests": requests}
    submission = (await served.http.post("/v1/submissions", json=body)).json()
    store = served.context.store
    return {
        "results_id": (await store.read(merged.of_batch, DEFAULT_PROJECT, "batch_1")).id,
        "file_id": file["id"],
        "submission_id": submission["id"],
        "replay_id": replay["id"],
        "webhook_endpoint_id": endpoint["id"],
        "watch_id": watch["id"],
        "batch_id": "batch_1",
        "event_id": delivery["event_id"],
        "delivery_id": delivery["id"],
    }


def try_operation(operation: APIOperation[Any, Any, Any, Any, Any, Any], url: str, key: str) -> int:
    """Send generated requests, right ones and wrong ones; returns how many were answered."""
    answered = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(operation.as_strategy(mode) for mode in GenerationMode))
    def run(case: Case) -> None:
        nonlocal answered
        case.call_and_validate(
            base_url=url, checks=CHECKS, headers={"Authorization": f"Bearer {key}"}
        )
        answered += 1

    run()
    return answered


@pytest.mark.long
async def test_no_request_is_answered_by_what_the_document_does_not_say(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 10: missing fields answered 500. Whatever is sent, the answer is a documented one."""
    monkeypatch.setattr(results, "WAIT_SECONDS", 0.0)  # nobody merges here
    names = await some_of_everything(served)
    key = (await served.http.post("/v1/keys", json={"name": "judge"})).json()["key"]
    schema = schemathesis.openapi.from_dict(with_examples(await document(served), names))
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 67 + len(METHODS) * len(NATIVES)
    for operation in operations:
        if operation.path == "/v1/stream":
            continue  # it has no end
        assert await asyncio.to_thread(try_operation, operation, served.url, key) > 0


def with_examples(described: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The document, in which path parameters may also be ids that there are."""
    for operations in described["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in names and parameter["in"] == "path":
                    known = {"type": "string", "enum": [names[parameter["name"]]]}
                    parameter["schema"] = {"anyOf": [known, parameter["schema"]]}
    return described
