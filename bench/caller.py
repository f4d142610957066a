"""Callers that cost next to nothing themselves: requests are bytes, and answers are counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"content-length: "


def posted(url: str, path: str, body: bytes) -> bytes:
    """The request that posts this body, as JSON."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def call_all(url: str, requests: Sequence[bytes], *, callers: int) -> list[float]:
    """Send them over so many connections, each its next when its last was answered with 201.

    Returns the seconds that each call took.
    """
    loop = asyncio.get_running_loop()
    left, seconds = iter(requests), []
    place = urlsplit(url)
    made = [
        await loop.create_connection(lambda: _Caller(left, seconds), place.hostname, place.port)
        for _ in range(callers)
    ]
    try:
        for _, caller in made:
            caller.next()
        await asyncio.gather(*(caller.done for _, caller in made))
    finally:
        for transport, _ in made:
            transport.close()
    return seconds


class _Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, left: Iterator[bytes], seconds: list[float]) -> None:
        self._left = left
        self._seconds = seconds
        self._begun = 0.0
        self._received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def next(self) -> None:
        """Send the next request, or be done."""
        request = next(self._left, None)
        if request is None:
            self.done.set_result(None)
            return
        self._begun = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(END_OF_HEAD)
        if not found:
            return
        if not head.startswith(b"HTTP/1.1 201 "):
            self.done.set_exception(AssertionError(self._received))
            return
        length = head[head.index(LENGTH) + len(LENGTH) :].partition(b"\r\n")[0]
        if len(body) < int(length):
            return
        self._received = b""
        self._seconds.append(time.perf_counter() - self._begun)
        self.next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionResetError("The server closed."))
