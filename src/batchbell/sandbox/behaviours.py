"""How a webhook receiver may behave: politely, late, or with ill will.

A behaviour writes to the raw connection of one request. It holds no task: what goes on for ever
is a timer, or the connection's own flow control, and ends with the connection.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Protocol

from batchbell.sandbox.mischief import reset

MEGABYTE = 2**20


class Connection(Protocol):
    """What a behaviour may do with the connection whose request it answers."""

    transport: asyncio.Transport

    def write(self, data: bytes) -> None:
        """Write unless the peer has gone."""
        ...

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call in a while, unless the connection ends before."""
        ...

    def pour(self, next_chunk: Callable[[], bytes]) -> None:
        """Write chunk after chunk as fast as the peer reads, until an empty one."""
        ...

    def hold(self, call: Callable[[], None]) -> None:
        """Call when the receiver is to release."""
        ...

    def finished(self) -> None:
        """The answer is whole: the next request of this connection may come."""
        ...


class Behaviour(Protocol):
    """Anything that can answer one request."""

    def answer(self, connection: Connection) -> None: ...


@dataclass(frozen=True, slots=True)
class Respond:
    """A whole answer, after `delay_seconds`."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_seconds: float = 0.0

    def answer(self, connection: Connection) -> None:
        if self.delay_seconds > 0:
            connection.later(self.delay_seconds, lambda: self._send(connection))
        else:
            self._send(connection)

    def _send(self, connection: Connection) -> None:
        headers = {**self.headers, "content-length": str(len(self.body))}
        connection.write(head(self.status, headers) + self.body)
        connection.finished()


def redirect(to: str, status: int = 307) -> Respond:
    """Ask the caller to go elsewhere."""
    return Respond(status, {"location": to})


@dataclass(frozen=True, slots=True)
class Hold:
    """No answer until `receiver.release()`, then this one."""

    then: Respond = field(default_factory=Respond)

    def answer(self, connection: Connection) -> None:
        connection.hold(lambda: self.then.answer(connection))


@dataclass(frozen=True, slots=True)
class Hang:
    """Never an answer."""

    def answer(self, connection: Connection) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Drip:
    """A byte every `seconds`, for ever: of the body, or of the headers themselves."""

    seconds: float = 0.2
    status: int = 200
    headers_too: bool = False

    def answer(self, connection: Connection) -> None:
        opening = head(self.status, {"content-length": "1000000000"})
        if self.headers_too:
            self._drip(connection, opening[:-2] + b"x-slow: ")
        else:
            connection.write(opening)
            self._drip(connection, b"")

    def _drip(self, connection: Connection, left: bytes) -> None:
        connection.write(left[:1] or b".")
        connection.later(self.seconds, lambda: self._drip(connection, left[1:]))


@dataclass(frozen=True, slots=True)
class Stall:
    """Headers, and not a byte of the body that they announce."""

    status: int = 200
    announced_bytes: int = 100

    def answer(self, connection: Connection) -> None:
        connection.write(head(self.status, {"content-length": str(self.announced_bytes)}))


@dataclass(frozen=True, slots=True)
class Endless:
    """A chunked body that never ends, as fast as it is read."""

    status: int = 200
    chunk_bytes: int = 65_536

    def answer(self, connection: Connection) -> None:
        connection.write(head(self.status, {"transfer-encoding": "chunked"}))
        chunk = b"%x\r\n%s\r\n" % (self.chunk_bytes, b"x" * self.chunk_bytes)
        connection.pour(lambda: chunk)


@dataclass(frozen=True, slots=True)
class GzipBomb:
    """A small body that unpacks to `megabytes` of zeros."""

    megabytes: int = 256
    status: int = 200

    def answer(self, connection: Connection) -> None:
        body = _bomb(self.megabytes)
        headers = {"content-encoding": "gzip", "content-length": str(len(body))}
        connection.write(head(self.status, headers) + body)
        connection.finished()


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset, before the answer or (with a status) after its headers."""

    status: int | None = None

    def answer(self, connection: Connection) -> None:
        if self.status is None:
            reset(connection.transport)
            return
        connection.write(head(self.status, {"content-length": "100"}))
        # Not at once: a reset may overtake bytes that the peer has not read yet.
        connection.later(0.05, lambda: reset(connection.transport))


@dataclass(frozen=True, slots=True)
class Garbage:
    """Bytes that are not HTTP."""

    body: bytes = b"220 mail.example ESMTP ready\r\n"

    def answer(self, connection: Connection) -> None:
        connection.write(self.body)
        connection.transport.close()


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Status line and headers, up to and with the empty line."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


@cache
def _bomb(megabytes: int) -> bytes:
    """One packed megabyte, again and again: a gzip file may have many members."""
    return gzip.compress(bytes(MEGABYTE)) * megabytes
