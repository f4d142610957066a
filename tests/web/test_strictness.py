"""Strict where we are spoken to: whatever a route does not know is refused, on every route."""

from __future__ import annotations

from typing import Any

import pytest

from batchbell.web.app import ROUTERS
from batchbell.web.gateway.natives import NATIVES
from batchbell.web.parameters import FREE, taken_by

from .making import HOOK, Served

pytestmark = pytest.mark.databases("sqlite")

ROUTES = [route for router in ROUTERS for route in router.routes]
PASSING = {
    "/v1/batches",
    "/v1/batches/{batch_id}",
    "/v1/batches/{batch_id}/cancel",
    "/v1/files",
    "/v1/files/{file_id}",
    "/v1/files/{file_id}/content",
    *(f"/{dialect}/{{path}}" for dialect in NATIVES),
}
"""Routes that pass on what they do not know; a list of batches is our own."""


@pytest.fixture
def database_url(ready_sqlite_url: str) -> str:
    """What is judged here does not depend on the database."""
    return ready_sqlite_url


FOREIGN = {"/hooks/{account_id}"}
"""Their bodies are not written for us."""


def path_of(route: Any) -> str:
    path: str = route.path_format
    for name in route.param_convertors:
        path = path.replace(f"{{{name}}}", "x")
    return path


def is_strict(route: Any, method: str) -> bool:
    passes = route.path_format in PASSING and (method, route.path_format) != ("GET", "/v1/batches")
    return route.path not in FREE and not passes


async def test_every_route_refuses_a_query_parameter_that_it_does_not_know(served: Served) -> None:
    judged = set()
    for route in ROUTES:
        for method in route.methods:
            answer = await served.http.request(method, f"{path_of(route)}?zebra=1", json=None)
            judged.add(is_strict(route, method))
            if not is_strict(route, method):
                assert "zebra" not in answer.text, (method, route.path)
                continue
            assert answer.status_code == 400, (method, route.path, answer.text)
            if method == "HEAD":
                continue
            error = answer.json()["error"]
            assert (error["code"], error["param"]) == ("unknown_parameter", "zebra"), route.path
            assert error["type"] == "invalid_request_error"
    assert judged == {True, False}


async def test_every_route_refuses_a_field_that_it_does_not_know(served: Served) -> None:
    """Also where it takes no body at all: whoever sends one believes that it does something."""
    for route in ROUTES:
        for method in set(route.methods) - {"HEAD"}:
            if not is_strict(route, method) or method == "GET" or route.path in FOREIGN:
                continue
            answer = await served.http.request(method, path_of(route), json={"zebra": 1})
            assert answer.status_code == 400, (method, route.path, answer.text)
            error = answer.json()["error"]
            found = {(one["code"], one["param"]) for one in error.get("problems", [error])}
            if route.path == "/v1/submissions":
                assert error["param"] == "requests"  # judged first; see below
            else:
                assert ("unknown_parameter", "zebra") in found, (route.path, error)
    body = {"requests": [{"body": {"model": "m"}}], "zebra": 1}
    answer = await served.http.post("/v1/submissions", json=body)
    assert answer.json()["error"]["param"] == "zebra"


async def test_every_declared_parameter_of_every_route_is_known(served: Served) -> None:
    """What the document lists must not be refused as unknown."""
    described = (await served.http.get("/openapi.json")).json()["paths"]
    for route in ROUTES:
        for method in route.methods:
            operation = described.get(route.path_format, {}).get(method.lower(), {})
            listed = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"}
            assert listed == taken_by(route).names - {"zebra"}, (method, route.path)


MEANT: list[tuple[str, str, Any, str, str]] = [
    ("POST", "/v1/replays", {"status": "failed", "dryrun": True}, "dryrun", "dry_run"),
    ("POST", "/v1/replays?dry_run=true", {}, "dry_run", ""),
    ("POST", "/batch-awaiter", {"id": "b", "hook_url": HOOK}, "hook_url", "webhook_url"),
    ("POST", "/v1/watches", {"batch_id": "b", "webhookURL": HOOK}, "webhookURL", "webhook_url"),
    ("POST", "/v1/watches", {"batch_id": "b", "url": HOOK, "Events": []}, "Events", "events"),
    ("POST", "/v1/watches", {"watches": [], "url": HOOK}, "url", ""),
    ("POST", "/v1/keys", {"name": "n", "project": "p"}, "project", "project_id"),
    ("GET", "/v1/batches?Status=failed", None, "Status", "status"),
    ("GET", "/v1/deliveries?status=exhausted", None, "status", "state"),
    ("GET", "/v1/watches?cursor=x", None, "cursor", "after"),
    ("DELETE", "/v1/accounts/x?forced=true", None, "forced", "force"),
    ("POST", "/v1/submissions?webhook=x", {"requests": [{}]}, "webhook", "webhook_url"),
    ("POST", "/v1/submissions", {"requests": [{}], "webhook": HOOK}, "webhook", "webhook_url"),
    ("POST", "/v1/batches", {"webhook": {"URL": HOOK}}, "webhook.URL", "url"),
]


async def test_the_error_names_the_nearest_right_word(served: Served) -> None:
    for method, path, body, param, right in MEANT:
        answer = await served.http.request(method, path, json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "unknown_parameter"), answer.text
        assert error["param"] == param, path
        assert (f"Did you mean '{right}'?" in error["message"]) is bool(right), error


async def test_a_typo_starts_nothing(served: Served) -> None:
    await served.http.post("/v1/replays", json={"dryrun": True})
    assert (await served.http.get("/v1/replays")).json()["data"] == []


async def test_all_that_is_wrong_comes_together(served: Served) -> None:
    answer = await served.http.get("/v1/deliveries?limit=x&stat=1&limit=2&sate=pending")
    error = answer.json()["error"]
    assert [(one["param"], one["code"]) for one in error["problems"]] == [
        ("limit", "duplicate_parameter"),
        ("stat", "unknown_parameter"),
        ("sate", "unknown_parameter"),
    ]
    answer = await served.http.get("/v1/deliveries?limit=x&stat=1")
    assert [one["param"] for one in answer.json()["error"]["problems"]] == ["stat", "limit"]
    wrong = {"batch_id": 7, "url": HOOK, "evnts": [], "results": "all"}
    answer = await served.http.post("/v1/watches", json=[wrong])
    assert [one["param"] for one in answer.json()["error"]["problems"]] == [
        "[0].evnts",
        "[0].results",
        "[0].batch_id",
    ]


async def test_a_list_may_be_given_more_than_once(served: Served) -> None:
    answer = await served.http.get("/v1/stream?types=batch.completed&types=nonsense")
    assert answer.json()["error"]["param"] == "types"


async def test_an_option_of_a_submission_is_given_once(served: Served) -> None:
    body = {"requests": [{"body": {"model": "m"}}], "endpoint": "/v1/responses"}
    answer = await served.http.post("/v1/submissions?endpoint=/v1/embeddings", json=body)
    assert answer.json()["error"]["code"] == "duplicate_parameter"
    form = [("endpoint", (None, "/v1/responses")), ("endpoint", (None, "/v1/embeddings"))]
    file = ("file", ("in.jsonl", b"{}"))
    answer = await served.http.post("/v1/submissions", files=[*form, file])
    assert answer.json()["error"]["code"] == "duplicate_parameter"
    answer = await served.http.post("/v1/submissions", files=[file, ("requests", (None, "[]"))])
    assert answer.json()["error"]["param"] == "requests"


BODIES: list[tuple[bytes, dict[str, str], int, str, str]] = [
    (b'{"name":"a","name":"b"}', {}, 400, "duplicate_parameter", "'name' twice"),
    (b'{"name":"a"} {}', {}, 400, "invalid_json", "one JSON value"),
    (b"[" * 100_000 + b"]" * 100_000, {}, 400, "invalid_json", "nested too deeply"),
    (b'{"name":' + b"9" * 5_000 + b"}", {}, 400, "invalid_json", "out of range"),
    (b'{"name":' + b"9" * 400 + b"}", {}, 400, "invalid_value", "must be a string"),
    (b'{"name":1e999}', {}, 400, "invalid_json", "out of range"),
    (b'{"name":NaN}', {}, 400, "invalid_json", "invalid character"),
    (b'{"name":"\xff"}', {}, 400, "invalid_json", "The body is not JSON"),
    ('{"name":"a"}'.encode("utf-16"), {}, 400, "invalid_json", "UTF-16"),
    (b"", {}, 400, "invalid_json", "it is empty"),
    (b"name=a", {}, 400, "invalid_json", "not JSON"),
    (b"--x\r\n\r\n--x--", {}, 400, "invalid_json", "it is a form"),
    (b"\x1f\x8b", {"Content-Encoding": "gzip"}, 415, "unsupported_body", "'gzip'"),
    (
        b"{}",
        {"Content-Type": "application/json; charset=utf-16"},
        415,
        "unsupported_body",
        "send UTF-8",
    ),
]


async def test_a_body_that_is_not_plain_json_is_refused_in_plain_words(served: Served) -> None:
    for body, headers, status, code, says in BODIES:
        answer = await served.http.post("/v1/keys", content=body, headers=headers)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code), answer.text
        assert says in error["message"], error


async def test_json_is_taken_whatever_its_kind_is_called(served: Served) -> None:
    """As `curl -d` sends it, and Windows with a byte order mark."""
    bodies: list[tuple[bytes, str | None]] = [
        (b'{"name":"a"}', None),
        (b'{"name":"a"}', "application/x-www-form-urlencoded"),
        (b'{"name":"a"}', "application/json; charset=UTF-8"),
        (b'\xef\xbb\xbf{"name":"a"}\r\n', "text/plain"),
    ]
    for body, kind in bodies:
        headers = {} if kind is None else {"Content-Type": kind}
        answer = await served.http.post("/v1/projects", content=body, headers=headers)
        assert answer.status_code in (201, 409), answer.text


async def test_twins_in_a_long_body_are_found_too(served: Served) -> None:
    long = b'{"name":"a","x":"' + b"y" * 100_000 + b'","name":"b"}'
    answer = await served.http.post("/v1/keys", content=long)
    assert answer.json()["error"]["code"] == "duplicate_parameter"


HUGE = b'{"keep_old_secret_active_seconds":' + b"9" * 400 + b"}"


async def test_numbers_of_any_size_are_judged(served: Served) -> None:
    answer = await served.http.post("/v1/replays", content=b'{"since":' + b"9" * 400 + b"}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "since")
    answer = await served.http.post("/v1/webhook_endpoints/x/rotate_secret", content=HUGE)
    assert answer.status_code == 400, answer.text
