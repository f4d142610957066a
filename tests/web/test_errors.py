"""Every failure in OpenAI's shape."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from batchbell.core.errors import StoreUnavailable
from batchbell.storage.engine import P, Query, Store, T

from .conftest import Logged
from .making import HOOK, Served

pytestmark = pytest.mark.databases("sqlite")

LISTS = ("/v1/watches", "/v1/batches", "/v1/events", "/v1/deliveries")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", ["0", "101", "-1", "many", ""])
async def test_a_limit_out_of_range_is_refused_by_name(
    served: Served, path: str, limit: str
) -> None:
    answer = await served.http.get(path, params={"limit": limit})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")


@pytest.mark.parametrize("path", LISTS)
async def test_an_unknown_cursor_is_not_found(served: Served, path: str) -> None:
    answer = await served.http.get(path, params={"after": "gone"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", LISTS)
async def test_an_empty_list_is_a_page(served: Served, path: str) -> None:
    assert (await served.http.get(path)).json() == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


@pytest.mark.parametrize(
    "path",
    [
        "/v1/batches?after=%00",
        "/v1/batches/a%00b",
        "/v1/watches?batch_id=a%00",
        "/v1/deliveries?event_id=%00",
    ],
)
async def test_a_nul_character_is_refused(served: Served, path: str) -> None:
    """PostgreSQL cannot store one, and would answer with an error of its own."""
    answer = await served.http.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


@pytest.mark.parametrize("path", [*LISTS, "/v1/keys"])
async def test_nothing_of_that_id_is_404(served: Served, path: str) -> None:
    method = "DELETE" if path == "/v1/keys" else "GET"
    fresh = "?fresh=false" if path == "/v1/batches" else ""
    answer = await served.http.request(method, f"{path}/%F0%9F%94%94{fresh}")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (404, "not_found")
    assert "🔔" in error["message"]


@pytest.mark.parametrize("path", ["/nope", "/v1", "/v1/watches/", "/v1/batches/a//b", "//"])
async def test_an_unknown_url_is_404(served: Served, path: str) -> None:
    answer = await served.http.get(served.url + path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


async def test_a_wrong_method_is_405_and_says_which_are_right(served: Served) -> None:
    answer = await served.http.put("/v1/watches")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")
    assert answer.json()["error"]["code"] == "method_not_allowed"


class NoStore(Store):
    """A database that does not answer, or that meets a bug of ours."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        raise self.error

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        raise self.error

    def _dialects(self) -> tuple[()]:
        return ()

    async def close(self) -> None:
        """Nothing is held."""


class TestWhileTheDatabaseIsGone:
    @pytest.fixture
    def store(self) -> Store:
        return NoStore(StoreUnavailable("PostgreSQL did not answer: db.internal:5432"))

    @pytest.fixture
    def accounts(self) -> dict[str, object]:
        return {}

    @pytest.mark.parametrize("path", [*LISTS, "/v1/keys", "/v1/secret"])
    async def test_callers_are_told_to_come_back(self, served: Served, path: str) -> None:
        """Pitfall 3: the process dies on a locked database."""
        answer = await served.http.get(path)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.json()["error"]["code"] == "store_unavailable"
        assert "db.internal" not in answer.text

    async def test_the_process_is_alive_and_not_ready(self, served: Served) -> None:
        assert (await served.http.get("/healthz")).status_code == 200
        answer = await served.http.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {
            "status": "not_ready",
            "reasons": ["The database does not answer."],
            "warnings": [],
        }


class TestABug:
    @pytest.fixture
    def store(self) -> Store:
        return NoStore(ZeroDivisionError("the password is hush"))

    @pytest.fixture
    def accounts(self) -> dict[str, object]:
        return {}

    async def test_is_logged_and_not_explained(self, served: Served, logged: Logged) -> None:
        answer = await served.http.get("/v1/batches")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
        assert answer.json()["error"]["type"] == "server_error"
        assert "hush" not in answer.text
        [line] = logged()
        assert line["level"] == "error"
        assert "ZeroDivisionError" in line["exception"]


async def test_one_bad_write_does_not_end_the_next(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registrations share a transaction; a failure of one must not stop those that follow."""
    body = {"id": "batch_1", "webhookUrl": HOOK}
    write: Callable[..., object] = served.context.store.write

    async def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable("locked")

    monkeypatch.setattr(served.context.store, "write", fail)
    assert (await served.http.post("/batch-awaiter", json=body)).status_code == 503
    monkeypatch.setattr(served.context.store, "write", write)
    assert (await served.http.post("/batch-awaiter", json=body)).status_code == 201


async def test_a_caller_who_leaves_halfway_is_no_bug(served: Served, logged: Logged) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /batch-awaiter HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\n{{"
    writer.write(head.encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    while not logged():
        await served.http.get("/healthz")
    [line] = logged()
    assert (line["route"], line["status"], line["level"]) == ("/batch-awaiter", 499, "info")
