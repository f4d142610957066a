"""Receivers on real sockets that do exactly what a test tells them, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Receiver:
    """A listening socket; every request that was read is kept."""

    port: int
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    def url(self, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}/hook"


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request, head and body; empty when the caller has gone."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    return head + await reader.readexactly(length)


def answering(answer: bytes) -> Handler:
    """Read a request, say this, close."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    return handle


Receive = Callable[..., Awaitable[Receiver]]


@pytest.fixture
async def receive() -> AsyncIterator[Receive]:
    """Start receivers: `await receive(handler)`; all are gone when the test ends."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            handler: Handler, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
        ) -> Receiver:
            return await stack.enter_async_context(_serving(handler, host, tls))

        yield start


@contextlib.asynccontextmanager
async def _serving(
    handler: Handler, host: str, tls: ssl.SSLContext | None
) -> AsyncIterator[Receiver]:
    receiver = Receiver(port=0)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        receiver.connections += 1
        original = reader.readuntil

        async def recording(separator: bytes = b"\n") -> bytes:
            head = await original(separator)
            receiver.requests.append(head)
            return head

        reader.readuntil = recording  # type: ignore[method-assign]
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, host, 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
