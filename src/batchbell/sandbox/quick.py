"""A receiver that only counts: for benches, where the receiver must not be the limit."""

from __future__ import annotations

import asyncio
import re
from types import TracebackType
from typing import cast

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


class QuickReceiver:
    """Answers 200 to everything with a content-length, and counts: nothing else is looked at.

    It answers at once, or after `delay_seconds`. Chunked request bodies are not understood.
    """

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, delay_seconds: float = 0.0
    ) -> None:
        self.host = host
        self.port = port
        self.delay_seconds = delay_seconds
        self.total = 0
        self._server: asyncio.Server | None = None
        self._connections: set[_Counting] = set()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def url(self, path: str = "/hook") -> str:
        return f"http://{self.host}:{self.port}{path}"

    async def wait_for(self, number: int, timeout: float = 60.0) -> None:
        """Wait until so many requests have come. Raises TimeoutError."""
        if self.total >= number:
            return
        arrived = asyncio.get_running_loop().create_future()
        self._waiters.append((number, arrived))
        try:
            await asyncio.wait_for(arrived, timeout)
        finally:
            self._waiters = [w for w in self._waiters if w[1] is not arrived]

    def count(self, requests: int) -> None:
        self.total += requests
        for number, arrived in self._waiters:
            if self.total >= number and not arrived.done():
                arrived.set_result(None)

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Counting(self, self._connections), self.host, self.port, backlog=4096
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        while self._connections:
            gone = [connection.gone for connection in self._connections]
            for connection in list(self._connections):
                connection.transport.abort()
            await asyncio.gather(*gone)
        await server.wait_closed()

    async def __aenter__(self) -> QuickReceiver:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()


class _Counting(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, receiver: QuickReceiver, family: set[_Counting]) -> None:
        self._receiver = receiver
        self._family = family
        self._buffer = b""
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._family.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._family.discard(self)
        self.gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        requests = 0
        while (end := _request_end(buffer)) is not None:
            requests += 1
            buffer = buffer[end:]
        self._buffer = buffer
        if requests and self._receiver.delay_seconds:
            loop = asyncio.get_running_loop()
            loop.call_later(self._receiver.delay_seconds, self._answer, requests)
        elif requests:
            self._answer(requests)

    def _answer(self, requests: int) -> None:
        if not self.transport.is_closing():
            self.transport.write(OK * requests)
            self._receiver.count(requests)


def _request_end(buffer: bytes) -> int | None:
    """Where the first request of the buffer ends; None while it is not whole."""
    headers_end = buffer.find(b"\r\n\r\n")
    if headers_end < 0:
        return None
    length = LENGTH.search(buffer, 0, headers_end + 2)
    end = headers_end + 4 + (int(length[1]) if length else 0)
    return end if len(buffer) >= end else None
