"""Connections to our own server: uvicorn's, with limits on callers that are slow or send too much.

uvicorn waits for ever for the rest of a head or a body, and for a reader who has stopped reading.
Nothing is timed for a request that comes and goes quickly: `keep_watch` looks at all connections
once a second.

uvicorn also drops the body of a request that offers another protocol (`Upgrade: h2c`, as Java's
clients do over plain HTTP): httptools takes what follows the head for that protocol. We take no
offer, so a second parser reads the body.

And it makes a task, an event and a handful of messages for each request. One that has come whole
is offered to the short way of its path first, if there is one: see `short`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from batchbell.net.pace import Pace
from batchbell.web.errors import Code, error_response
from batchbell.web.short import Direct


@dataclass(frozen=True, slots=True)
class Limits:
    """What one caller may take."""

    head_seconds: float = 20.0
    """From the connection, or the first byte of a later request, to the end of its headers."""
    head_max_bytes: int = 64 * 2**10
    stall_seconds: float = 60.0
    """How long a body that we wait for, or a reader whom we wait for, may stand still."""
    grace_seconds: float = 60.0
    bytes_per_second: float = 1024.0
    """The least that they must move on average, once they were waited for longer than the grace."""
    linger_seconds: float = 2.0
    """How long a refused caller may read why: a socket that is closed while he sends drops it."""
    look_seconds: float = 1.0
    connections_max: int = 10_000


class Connection(HttpToolsProtocol):
    """One connection. `limits` belong to the class: a server with others has a class of its own."""

    limits = Limits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_since: float | None = self.loop.time()
        self._head_bytes = 0
        self._body_bytes = 0
        self._body: _Movement | None = None
        self._reader: _Movement | None = None
        self._unread_bytes = 0
        self._refused = False
        self._idle_since: float | None = None
        """Since the last answer, where nothing has come after it."""
        self._direct: Mapping[bytes, Direct] = getattr(self.app, "direct", {})
        self._held: list[bytes] | None = None
        """The body of a request that has not begun yet: when it is whole, it may go directly."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections_max:
            _make_room(self.connections)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._idle_since = None
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(400, "This is not a valid HTTP request.", Code.INVALID_VALUE)
            return
        if self._held is not None:
            self._begin(self._held)  # a body that is waited for is uvicorn's to wait for
        if self._head_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_max_bytes:
                message = f"The headers are longer than {self.limits.head_max_bytes} bytes."
                self._refuse(431, message, Code.HEADERS_TOO_LARGE)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self.parser = httptools.HttpRequestParser(_Declined(self, self._parse_again))
            self.parser.feed_data(_framing(self.headers))
            if rest := data[offer.args[0] :]:
                self._feed(rest)

    def _parse_again(self) -> None:
        """Parse as usual, from the next request on."""
        # Not while the parser at hand is at work: it is in the middle of a call to us.
        self.loop.call_soon(self._set_parser)

    def _set_parser(self) -> None:
        if self.parser is not None:
            self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_since is None:
            self._head_since = self.loop.time()
            self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._head_since = None
        self._body_bytes, self._body = 0, None
        if self._may_go_directly():
            self._held = []
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._held is not None:
            self._held.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._held is not None and self._goes_directly(b"".join(self._held)):
            self._held = None
            return
        if self._held is not None:
            self._begin(self._held)
        if not self.parser.should_upgrade():  # else the body has not been read yet
            super().on_message_complete()

    def _may_go_directly(self) -> bool:
        """Whether nothing about the head is out of the ordinary, and nothing is under way."""
        cycle, parser = self.cycle, self.parser
        return (
            self.url in self._direct
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused
            and (cycle is None or cycle.response_complete)
        )

    def _goes_directly(self, body: bytes) -> bool:
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope |= {"method": "POST", "path": self.url.decode("ascii"), "query_string": b""}
        cycle = _DirectCycle()
        taken = self._direct[self.url].begin(scope, body, partial(self._reply, cycle))
        if taken:
            self.cycle = cycle  # type: ignore[assignment]
        return taken

    def _begin(self, body: Iterable[bytes]) -> None:
        """Begin the request as uvicorn does."""
        self._held = None
        super().on_headers_complete()
        for part in body:
            super().on_body(part)

    def _reply(
        self, cycle: _DirectCycle, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        cycle.response_complete = True
        if not cycle.disconnected:
            if not cycle.keep_alive:
                headers.append((b"connection", b"close"))
            every = (*self.server_state.default_headers, *headers)
            self.transport.write(_written(STATUS_LINE[status], every, body))
            if not cycle.keep_alive:
                self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """As uvicorn does, without a timer that nearly every next request would stop again."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since = self.loop.time()

    def look(self, now: float, seconds: float) -> None:
        """End what takes too long; `seconds` have passed since the last look."""
        if self.transport is None:
            return
        if self._idle_since is not None and now - self._idle_since > self.timeout_keep_alive:
            self.timeout_keep_alive_handler()
        if self._head_since is not None and now - self._head_since > self.limits.head_seconds:
            if self._head_bytes:
                message = f"The headers did not come within {self.limits.head_seconds:g} s."
                self._refuse(408, message, Code.REQUEST_TIMEOUT)
            else:
                self.transport.close()
        self._look_at_body(seconds)
        self._look_at_reader(seconds)

    def _look_at_body(self, seconds: float) -> None:
        cycle = self.cycle
        if (
            cycle is None
            or not cycle.more_body
            or cycle.response_complete
            or cycle.disconnected
            or cycle.waiting_for_100_continue
            or self.flow.read_paused
        ):
            return
        if self._body is None:
            self._body = _Movement(self.limits)
        moved, self._body_bytes = self._body_bytes, 0
        if self._body.ends(moved, seconds):
            self._refuse(408, f"The body {self._body.reason()}.", Code.BODY_STALLED)

    def _look_at_reader(self, seconds: float) -> None:
        unread = self.transport.get_write_buffer_size()
        if not unread or not (self.flow.write_paused or self.transport.is_closing()):
            self._reader = None
            return
        if self._reader is None:
            self._reader = _Movement(self.limits)
            self._unread_bytes = unread
        moved, self._unread_bytes = max(0, self._unread_bytes - unread), unread
        if self._reader.ends(moved, seconds):
            self.transport.abort()

    def _refuse(self, status: int, message: str, code: Code) -> None:
        """Say no and close; an answer that has begun is cut off."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            begun, cycle.disconnected = cycle.response_started, True
            cycle.message_event.set()
        else:
            begun = False
        self._head_since, self._refused = None, True
        if begun or self.transport.is_closing() or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write(_whole(status, message, code))
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(self.limits.linger_seconds, self.transport.close)


class _DirectCycle:
    """What uvicorn looks at of a request that went directly, as it does of its own cycles."""

    __slots__ = ("disconnected", "keep_alive", "response_complete")

    more_body = False
    response_started = False
    waiting_for_100_continue = False
    message_event = asyncio.Event()
    """Nobody waits for it."""

    def __init__(self) -> None:
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False


class _Declined:
    """Takes the body of a request whose offer of another protocol we do not take."""

    def __init__(self, connection: Connection, ended: Callable[[], None]) -> None:
        self._connection = connection
        self._ended = ended
        self._over = False

    def on_message_begin(self) -> None:
        if self._over:
            raise ValueError("Nothing may follow an offer before it is answered.")

    def on_body(self, body: bytes) -> None:
        self._connection.on_body(body)

    def on_message_complete(self) -> None:
        self._over = True
        self._connection.on_message_complete()
        self._ended()


class _Movement:
    """A body that we wait for, or a reader."""

    def __init__(self, limits: Limits) -> None:
        self._still_seconds = 0.0
        self._pace = Pace(
            stall_seconds=limits.stall_seconds,
            grace_seconds=limits.grace_seconds,
            bytes_per_second=limits.bytes_per_second,
        )
        self._limits = limits

    def ends(self, moved: int, seconds: float) -> bool:
        """Note what has moved within so many seconds; whether it is too slow."""
        self._still_seconds = 0.0 if moved else self._still_seconds + seconds
        self._pace.moved(moved, waited_seconds=seconds)
        still = self._still_seconds > self._limits.stall_seconds
        return still or self._pace.seconds() == 0.0

    def reason(self) -> str:
        return self._pace.reason()


async def keep_watch(connections: Iterable[object], *, seconds: float) -> None:
    """Look at all connections of a server again and again."""
    now = asyncio.get_running_loop().time
    before = now()
    while True:
        await asyncio.sleep(seconds)
        passed, before = now() - before, now()
        for connection in list(connections):
            if isinstance(connection, Connection):
                connection.look(before, passed)


def _make_room(connections: Iterable[object]) -> None:
    """Close the connection that has waited for a head the longest; the newest is among them."""
    waiting = [
        (one._head_since, id(one), one)
        for one in connections
        if isinstance(one, Connection) and one._head_since is not None
    ]
    min(waiting)[2].transport.abort()


def _framing(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A head that announces the same body."""
    known = dict(headers)
    if coding := known.get(b"transfer-encoding"):
        line = b"transfer-encoding: " + coding
    else:
        line = b"content-length: " + known.get(b"content-length", b"0")
    return b"POST / HTTP/1.1\r\n" + line + b"\r\n\r\n"


def _whole(status: int, message: str, code: Code) -> bytes:
    response = error_response(status, message, code=code, headers={"Connection": "close"})
    return _written(STATUS_LINE[status], response.raw_headers, bytes(response.body))


def _written(status_line: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"".join([status_line, *lines, b"\r\n", body])
