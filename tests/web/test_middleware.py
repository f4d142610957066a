"""What every answer has, whatever it answers; and where a wrong path was meant to lead."""

from __future__ import annotations

import pytest

from batchbell.web.app import ROUTERS, nearest_path
from batchbell.web.middleware import given_id

from .conftest import Logged
from .making import HOOK, Served
from .test_strictness import path_of

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
def database_url(ready_sqlite_url: str) -> str:
    return ready_sqlite_url


async def test_every_answer_has_an_id_that_the_log_has_too(served: Served, logged: Logged) -> None:
    answers = []
    for route in (route for router in ROUTERS for route in router.routes):
        for method in route.methods:
            answers.append(await served.http.request(method, f"{path_of(route)}?zebra=1"))
    answers.append(await served.http.get("/nowhere"))
    answers.append(await served.http.put("/v1/watches"))
    answers.append(await served.http.get("/v1/watches", headers={"Host": "evil.example"}))
    answers.append(await served.http.post("/v1/watches", json={"batch_id": "b", "url": HOOK}))
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert all(id.startswith("req_") for id in ids)
    assert len(set(ids)) == len(ids)
    noted = {line["request_id"] for line in logged() if line["event"] == "http.request"}
    quiet = {answer.headers["x-request-id"] for answer in answers if is_quiet(str(answer.url))}
    assert noted == set(ids) - quiet
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff", answer.url
        assert answer.headers["content-security-policy"], answer.url


def is_quiet(url: str) -> bool:
    return any(path in url for path in ("/healthz", "/readyz", "/metrics"))


async def test_an_id_of_the_callers_own_is_kept_if_it_can_be_shown(served: Served) -> None:
    given = await served.http.get("/v1/nothing", headers={"X-Request-ID": "trace-4f/1"})
    assert given.headers["x-request-id"] == "trace-4f/1"
    for odd in ("", "a b", "x" * 129, "<script>", "a\tb"):
        answer = await served.http.get("/healthz", headers={"X-Request-ID": odd})
        assert answer.headers["x-request-id"].startswith("req_"), odd
    assert given_id([(b"x-request-id", b"a"), (b"x-request-id", b"b")]) is None


async def test_the_reference_runs_its_own_scripts_only(served: Served) -> None:
    page = await served.http.get("/docs")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "http" not in policy
    assert "<script>" not in page.text


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/watch", "/v1/watches"),
        ("/v1/watches/", "/v1/watches"),
        ("//v1//watches", "/v1/watches"),
        ("/watches", "/v1/watches"),
        ("/batches/batch_1/cancel", "/v1/batches/batch_1/cancel"),
        ("/v1/batch-awaiter", "/batch-awaiter"),
        ("/batch_awaiter", "/batch-awaiter"),
        ("/v1/endpoints", "/v1/webhook_endpoints"),
        ("/api/v1/events", "/v1/events"),
        ("/v1/zebra/crossing/long", None),
        ("/wp-login.php", None),
    ],
)
def test_a_wrong_path_names_the_nearest(path: str, meant: str | None) -> None:
    found = nearest_path(path)
    assert found == meant


async def test_wrong_paths_and_methods_are_answered_in_plain_words(served: Served) -> None:
    lost = await served.http.get("/v1/watch")
    assert "Did you mean /v1/watches?" in lost.json()["error"]["message"]
    other = await served.http.post("/v1/chat/completions", json={})
    assert "to the provider itself" in other.json()["error"]["message"]
    wrong = await served.http.put("/v1/watches")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, POST")


async def test_a_cursor_that_is_none_is_said_to_be(served: Served) -> None:
    lists = ("batches", "deliveries", "webhook_endpoints", "events", "replays", "submissions")
    for name in (*lists, "watches"):
        for after in ("", "nothing", "x" * 5000, "é"):
            answer = await served.http.get(f"/v1/{name}", params={"after": after})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (404, "not_found"), (name, after)
            assert error["param"] == "after"
        for limit in ("0", "101", "-1", "1e2", "", "٣0000"):
            answer = await served.http.get(f"/v1/{name}", params={"limit": limit})
            assert answer.json()["error"]["param"] == "limit", (name, limit)
