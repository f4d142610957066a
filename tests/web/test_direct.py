"""Registrations that go from bytes to bytes, over raw sockets: nothing that callers do is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.types import Scope

from batchbell.core.errors import InvalidRequest, StoreUnavailable
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.storage import keys, watches
from batchbell.web.short import Direct, Reply

from .conftest import Logged
from .making import HOOK, Served

pytestmark = pytest.mark.databases("sqlite")

AWAITER, WATCHES = "/batch-awaiter", "/v1/watches"
KEY = "bb_0123456789abcdefghijklmnop"


@pytest.fixture
def database_url(ready_sqlite_url: str) -> str:
    return ready_sqlite_url


def body_of(batch_id: str) -> bytes:
    return json.dumps({"id": batch_id, "webhookUrl": HOOK}).encode()


def request(body: bytes, *lines: str, path: str = AWAITER, version: str = "1.1") -> bytes:
    length = [] if any("chunked" in line for line in lines) else [f"Content-Length: {len(body)}"]
    head = [f"POST {path} HTTP/{version}", "Host: localhost", *length, *lines, "", ""]
    return "\r\n".join(head).encode() + body


@dataclass
class Counted:
    """A direct way, and what it said of each request that it was offered."""

    way: Direct
    taken: list[bool]

    def begin(self, scope: Scope, body: bytes, reply: Reply) -> bool:
        taken = self.way.begin(scope, body, reply)
        self.taken.append(taken)
        return taken


@pytest.fixture
async def taken(served: Served) -> list[bool]:
    """Of each request that was offered so far, whether it went directly."""
    noted: list[bool] = []
    counted: Any = {path: Counted(way, noted) for path, way in served.app.direct.items()}
    served.app.direct = counted
    await served.watch("batch_0")  # on a connection of its own; the accounts are known now
    noted.clear()
    return noted


@dataclass
class Caller:
    served: Served
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def connection(self) -> Any:
        """The server's side; None before it has accepted it."""
        own = self.writer.get_extra_info("sockname")
        return next((one for one in self.served.connections if one.client == own), None)

    async def begun(self) -> None:
        """Wait until the server has begun with the first request."""
        await until(lambda: "path" in (getattr(self.connection(), "scope", None) or {}))

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, json.loads(body)

    async def say(self, sent: bytes) -> tuple[int, dict[str, str], Any]:
        self.writer.write(sent)
        return await self.answer()

    async def ended(self) -> bool:
        return await self.reader.read() == b""


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - the server's own tasks change it
            await asyncio.sleep(0)


@asynccontextmanager
async def calling(served: Served) -> AsyncIterator[Caller]:
    host, port = served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    yield Caller(served, reader, writer)
    writer.close()


async def test_one_connection_carries_many(served: Served, taken: list[bool]) -> None:
    async with calling(served) as caller:
        for batch_id in ("batch_1", "batch_2", "batch_1"):
            status, _, said = await caller.say(request(body_of(batch_id)))
            assert (status, said["batchId"]) == (201, batch_id)
        watch = json.dumps({"batch_id": "batch_3", "url": HOOK}).encode()
        status, _, said = await caller.say(request(watch, path=WATCHES))
        assert (status, said["object"], said["batch_id"]) == (201, "watch", "batch_3")
    assert taken == [True] * 4


async def test_several_in_one_packet_are_answered_in_their_order(
    served: Served, taken: list[bool]
) -> None:
    ids = [f"batch_{n}" for n in range(1, 6)]
    async with calling(served) as caller:
        caller.writer.write(b"".join(request(body_of(one)) for one in ids))
        answers = [await caller.answer() for _ in ids]
        assert [said["batchId"] for _, _, said in answers] == ids
        assert (await caller.say(request(body_of("batch_6"))))[0] == 201
    assert taken == [True, True]


PIECES: dict[str, Sequence[bytes]] = {
    "in two pieces": (request(body_of("batch_1"))[:-9], body_of("batch_1")[-9:]),
    "after its head": (request(body_of("batch_1"))[: -len(body_of("batch_1"))], body_of("batch_1")),
    "asked for": (request(body_of("batch_1"), "Expect: 100-continue"),),
    "offering h2c": (request(body_of("batch_1"), "Connection: Upgrade", "Upgrade: h2c"),),
}


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES.keys())
async def test_what_has_not_come_whole_goes_the_other_way(
    served: Served, taken: list[bool], pieces: Sequence[bytes]
) -> None:
    async with calling(served) as caller:
        for piece in pieces:
            caller.writer.write(piece)
            await caller.begun()
        if b"Expect" in pieces[0]:
            assert await caller.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        status, _, said = await caller.answer()
        assert (status, said["batchId"]) == (201, "batch_1")
        assert taken == []
        assert (await caller.say(request(body_of("batch_2"))))[0] == 201
        assert taken == [True]


async def test_a_body_in_chunks_may_go_directly(served: Served, taken: list[bool]) -> None:
    body = body_of("batch_1")
    chunks = b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])
    async with calling(served) as caller:
        said = await caller.say(request(chunks, "Transfer-Encoding: chunked"))
    assert (said[0], said[2]["batchId"], taken) == (201, "batch_1", [True])


@pytest.mark.parametrize(("line", "version"), [("Connection: close", "1.1"), ("X: y", "1.0")])
async def test_who_wants_the_connection_closed_has_it_closed(
    served: Served, taken: list[bool], line: str, version: str
) -> None:
    async with calling(served) as caller:
        status, headers, _ = await caller.say(request(body_of("b"), line, version=version))
        assert (status, headers["connection"], taken) == (201, "close", [])
        assert await caller.ended()


async def test_with_keys_only_a_good_one_goes_directly(served: Served, taken: list[bool]) -> None:
    await served.context.store.write(
        keys.create_key, DEFAULT_PROJECT, name="k", key=KEY, mint=served.context.mint, now=1.0
    )
    served.app.state.surface.keyring.forget()
    good = f"Authorization: Bearer {KEY}"
    async with calling(served) as caller:
        assert (await caller.say(request(body_of("batch_1"), good)))[0] == 201  # it is looked up
        assert (await caller.say(request(body_of("batch_2"), good)))[0] == 201
        assert (await caller.say(request(body_of("batch_3"))))[0] == 401
        assert (await caller.say(request(body_of("batch_4"), good + "x")))[0] == 401
    assert taken == [False, True, False, False]


async def test_a_failure_is_answered_and_logged(
    served: Served, taken: list[bool], logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(watches, "register", fail)
    async with calling(served) as caller:
        status, headers, said = await caller.say(request(body_of("batch_1")))
        assert (status, said["error"]["code"]) == (503, "store_unavailable")
        assert headers["retry-after"]
        monkeypatch.undo()
        assert (await caller.say(request(body_of("batch_1"))))[0] == 201
    assert taken == [True, True]
    line = logged()[0]
    assert (line["level"], line["status"], line["error"]) == ("warning", 503, "gone")
    assert line["request_id"] == headers["x-request-id"]


async def test_what_another_has_spoilt_is_written_alone(
    served: Served, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = watches.register

    def picky(connection: Any, project_id: str, wanted: Any, **more: Any) -> Any:
        if any(one.batch_id == "batch_bad" for one in wanted):
            raise InvalidRequest("There is no such account.", param="account", code="no_account")
        return real(connection, project_id, wanted, **more)

    monkeypatch.setattr(watches, "register", picky)
    async with calling(served) as one, calling(served) as other:
        one.writer.write(request(body_of("batch_bad")))
        other.writer.write(request(body_of("batch_good")))
        assert (await one.answer())[0] == 400
        assert (await other.answer())[0] == 201
    assert taken == [True, True]


async def test_it_is_registered_though_the_caller_has_left(
    served: Served, taken: list[bool], logged: Logged
) -> None:
    async with calling(served) as caller:
        caller.writer.write(request(body_of("batch_1")))
    await until(logged)
    assert (taken, logged()[0]["status"]) == ([True], 201)
    found = await served.http.get(WATCHES, params={"batch_id": "batch_1"})
    assert len(found.json()["data"]) == 1


async def test_a_server_that_stops_answers_first(served: Served, taken: list[bool]) -> None:
    async with calling(served) as caller:
        caller.writer.write(request(body_of("batch_1")))
        await until(lambda: taken)
        caller.connection().shutdown()
        status, headers, _ = await caller.answer()
        assert (status, headers["connection"]) == (201, "close")
        assert await caller.ended()
