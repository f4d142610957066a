"""Our own server against callers that are slow, greedy or odd, over raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from batchbell.web.connections import Connection, Limits, keep_watch

pytestmark = pytest.mark.databases("sqlite")

LIMITS = Limits(
    head_seconds=0.4,
    head_max_bytes=2**16,
    stall_seconds=0.4,
    grace_seconds=0.8,
    bytes_per_second=100_000.0,
    look_seconds=0.05,
    connections_max=8,
)


@dataclass
class App:
    """Says how long the body was, or answers without end at `/endless`."""

    bodies: list[bytes] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(
        self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]
    ) -> None:
        if scope["path"] == "/endless":
            await self._endless(receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        self.bodies.append(body)
        said = str(len(body)).encode()
        headers = [(b"content-length", str(len(said)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})

    async def _endless(self, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

        async def pour() -> None:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                await asyncio.sleep(0)

        pouring = asyncio.create_task(pour())
        while (await receive())["type"] != "http.disconnect":
            pass
        pouring.cancel()
        self.ended.set()


@dataclass
class Server:
    port: int
    app: App
    connections: set[Any]

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, *parts: bytes, pause: float = 0.0) -> bytes:
        """Send the parts until there is an answer; all that comes until it has ended."""
        reader, writer = await self.open()
        answer = asyncio.create_task(reader.read())
        for part in parts:
            if answer.done():
                break
            writer.write(part)
            await asyncio.wait([answer], timeout=pause)
        said = await answer
        writer.close()
        return said


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    class Hasty(Connection):
        limits = LIMITS

    app = App()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=Hasty,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=1,
        timeout_graceful_shutdown=1,
    )
    running = uvicorn.Server(config)
    running.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    serving = asyncio.create_task(running.serve(sockets=[listener]))
    connections = running.server_state.connections
    watching = asyncio.create_task(keep_watch(connections, seconds=LIMITS.look_seconds))
    yield Server(listener.getsockname()[1], app, connections)
    watching.cancel()
    running.should_exit = True
    await serving


def post(body: bytes, *headers: bytes, length: int | None = None) -> list[bytes]:
    announced = len(body) if length is None else length
    lines = [
        b"POST / HTTP/1.1",
        b"Host: localhost",
        b"Content-Length: %d" % announced,
        *headers,
        b"",
        b"",
    ]
    return [b"\r\n".join(lines), body]


H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAAB")
OTHERS = {
    "h2c": H2C,
    "websocket": (b"Connection: Upgrade", b"Upgrade: websocket"),
    "a word that nobody knows": (b"Connection: keep-alive, upgrade", b"Upgrade: foo/2, bar"),
}


async def test_a_connection_is_kept_for_its_time_after_an_answer(server: Server) -> None:
    reader, writer = await server.open()
    head, body = post(b"hello")
    for _ in range(2):
        writer.write(head + body)
        assert (await reader.readuntil(b"\r\n\r\n5")).startswith(b"HTTP/1.1 200 ")
        (connection,) = server.connections
        assert connection._idle_since is not None
        connection.look(connection._idle_since + 0.9, 0.05)
    assert await reader.read() == b""  # nobody says anything more
    writer.close()


@pytest.mark.parametrize("offer", OTHERS.values(), ids=OTHERS.keys())
async def test_an_offer_of_another_protocol_is_ignored(
    server: Server, offer: tuple[bytes, ...]
) -> None:
    """Java's clients offer h2c over plain HTTP (uvicorn#2722): the body was dropped."""
    chunks = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    head, body = post(b"hello", *offer)
    coded = head.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")
    ways = {
        "with the head": [head + body],
        "after the head": [head, body],
        "byte by byte": [bytes([byte]) for byte in head + body],
        "in chunks": [coded + chunks],
        "in chunks, after the head": [coded, chunks[:5], chunks[5:]],
        "no body": [head.replace(b"Content-Length: 5", b"Content-Length: 0")],
        "a GET": [head.replace(b"POST", b"GET").replace(b"Content-Length: 5\r\n", b"")],
        "large": [post(b"x" * 300_000, *offer)[0], b"x" * 300_000],
    }
    for name, parts in ways.items():
        reader, writer = await server.open()
        for twice in range(2):  # the connection serves on
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 "), (name, twice, answer)
            size = int(answer.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(size)
        writer.close()
    sizes = [len(body) for body in server.app.bodies]
    assert sizes == [5, 5] * 5 + [0, 0] * 2 + [300_000] * 2


async def test_an_offer_may_be_followed_by_a_usual_request(server: Server) -> None:
    reader, writer = await server.open()
    for headers in (H2C, (), H2C, (b"Connection: close",)):
        writer.write(b"".join(post(b"hello", *headers)))
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(1) == b"5"
    assert await reader.read() == b""
    writer.close()


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split(b" ")[1]), json.loads(body)["error"]["code"]


async def test_headers_that_do_not_end_are_refused(server: Server) -> None:
    head = post(b"")[0]
    assert error_of(await server.say(head[:-2])) == (408, "request_timeout")
    assert error_of(await server.say(b"G")) == (408, "request_timeout")
    slow = [bytes([byte]) for byte in head]
    assert error_of(await server.say(*slow, pause=0.03)) == (408, "request_timeout")
    assert await server.say() == b""  # who says nothing is told nothing


async def test_headers_that_are_too_large_are_refused(server: Server) -> None:
    line = b"X-Large: " + b"x" * 1000 + b"\r\n"
    parts = [b"GET / HTTP/1.1\r\n", *[line] * 200]
    assert error_of(await server.say(*parts)) == (431, "headers_too_large")


async def test_what_is_not_http_is_refused(server: Server) -> None:
    assert error_of(await server.say(b"nonsense\r\n\r\n")) == (400, "invalid_value")


async def test_a_body_that_stands_still_is_refused(server: Server) -> None:
    assert error_of(await server.say(*post(b"half", length=100))) == (408, "body_stalled")


async def test_a_body_that_drips_is_refused(server: Server) -> None:
    head, _ = post(b"", length=1_000_000)
    drops = [b"x" * 100] * 200
    answer = await server.say(head, *drops, pause=0.02)
    assert error_of(answer) == (408, "body_stalled")


async def test_a_long_body_at_an_honest_pace_goes_on(server: Server) -> None:
    head, _ = post(b"", b"Connection: close", length=600_000)
    answer = await server.say(head, *[b"x" * 20_000] * 30, pause=0.06)
    assert answer.endswith(b"\r\n\r\n600000")


async def test_a_reader_who_stops_reading_is_cut_off(server: Server) -> None:
    reader, writer = await server.open()
    writer.write(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(20):
        await server.app.ended.wait()
    writer.transport.abort()


async def test_who_says_nothing_gives_way_when_there_are_too_many(server: Server) -> None:
    silent = [await server.open() for _ in range(LIMITS.connections_max)]
    answer = await server.say(b"".join(post(b"hello", b"Connection: close")))
    assert answer.endswith(b"5")
    assert await silent[0][0].read() == b""  # the oldest
    assert len(server.connections) <= LIMITS.connections_max
    for _, writer in silent:
        writer.close()
