"""One connection to the receiver: HTTP read by httptools, answers written by a behaviour.

On the bare transport, because half of what a receiver must be able to do is not HTTP, and because
a receiver must be faster than what is measured with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Owner(Protocol):
    """Whose connection it is."""

    def joined(self, connection: ReceiverConnection) -> None: ...

    def left(self, connection: ReceiverConnection) -> None: ...

    def arrived(self, connection: ReceiverConnection) -> None:
        """A request is whole: answer it."""
        ...

    def hold(self, call: Callable[[], None]) -> None:
        """Keep this for the moment of release."""
        ...


class ReceiverConnection(asyncio.Protocol):
    """Collects one request at a time and hands itself over when the request is whole."""

    transport: asyncio.Transport

    def __init__(self, owner: Owner) -> None:
        self.method = ""
        self.path = ""
        self.headers: dict[str, str] = {}
        self.body = b""
        self.peer = ("", 0)
        self._owner = owner
        self._keep_alive = True
        self._chunks: list[bytes] = []
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._source: Callable[[], bytes] | None = None
        self._can_write = True
        self.gone = self._loop.create_future()
        """Done when the connection is over."""

    # asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer = (str(peer[0]), int(peer[1])) if peer else ("", 0)
        self._owner.joined(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.transport.close()
        except httptools.HttpParserCallbackError:
            raise  # a test's own function failed: not the peer's fault
        except httptools.HttpParserError:
            self.write(BAD_REQUEST)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._source = None
        self._owner.left(self)
        self.gone.set_result(None)

    def pause_writing(self) -> None:
        self._can_write = False

    def resume_writing(self) -> None:
        self._can_write = True
        self._pour_on()

    # httptools ---------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.headers = {}
        self._chunks = []
        self.path = ""

    def on_url(self, url: bytes) -> None:
        self.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._keep_alive = self._parser.should_keep_alive()
        if self.headers.get("expect", "").lower() == "100-continue":
            self.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        self.method = self._parser.get_method().decode("latin-1")
        self.body = b"".join(self._chunks)
        self._owner.arrived(self)

    # Connection, as behaviours see it ----------------------------------------------------

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self._timer = self._loop.call_later(seconds, call)

    def pour(self, next_chunk: Callable[[], bytes]) -> None:
        self._source = next_chunk
        self._pour_on()

    def hold(self, call: Callable[[], None]) -> None:
        self._owner.hold(call)

    def finished(self) -> None:
        if not self._keep_alive:
            self.transport.close()

    def _pour_on(self) -> None:
        # A peer that reads fast keeps the buffer empty: give the loop back after every chunk.
        if self._source is None or not self._can_write or self.transport.is_closing():
            return
        chunk = self._source()
        if not chunk:
            self._source = None
            return
        self.write(chunk)
        if self._can_write:
            self.later(0, self._pour_on)
