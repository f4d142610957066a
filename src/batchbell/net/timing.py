"""How long each stage of a call took.

aiohttp's trace hooks do not part the TCP connection from the TLS handshake, and cost every call;
here a call that is sent over a kept connection pays for one mark only.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any

import aiohttp

from batchbell.core.outcome import Timings


class Stopwatch:
    """Marks of one call, in seconds of the performance counter; None is what was not reached."""

    __slots__ = (
        "answered",
        "begun",
        "connect_begun",
        "connected",
        "lookup_begun",
        "opened",
        "secure",
    )

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.answered: float | None = None
        self._forget_connection()

    def _forget_connection(self) -> None:
        self.lookup_begun: float | None = None
        self.connect_begun: float | None = None
        self.connected: float | None = None
        self.opened: float | None = None
        self.secure = False

    def look_up(self) -> None:
        """A connection is being made; one that was tried before counts no more."""
        self._forget_connection()
        self.lookup_begun = time.perf_counter()

    def connect(self, *, secure: bool) -> None:
        """The addresses are known. Called again where the first of them could not be used."""
        if self.connect_begun is None:
            self.connect_begun = time.perf_counter()
        self.connected, self.secure = None, secure

    def answer(self) -> None:
        """Status and headers are there."""
        self.answered = time.perf_counter()

    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self.begun) * 1000

    def timings(self) -> Timings:
        """What was reached until now; a stage that did not end has lasted until now."""
        first_byte = _milliseconds(self.begun, self.answered)
        if self.lookup_begun is None:
            return Timings(first_byte_ms=first_byte)
        now = time.perf_counter()
        return Timings(
            dns_ms=_milliseconds(self.lookup_begun, self.connect_begun or now),
            connect_ms=_milliseconds(self.connect_begun, self.connected or now),
            tls_ms=_milliseconds(self.connected, self.opened or now) if self.secure else None,
            first_byte_ms=first_byte,
        )


def _milliseconds(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else (end - begin) * 1000


STOPWATCH: ContextVar[Stopwatch] = ContextVar("stopwatch")
"""That of the call which the running task makes."""


class TimedConnector(aiohttp.TCPConnector):
    """Marks the stages of a new connection on the stopwatch of the call it is made for.

    These are aiohttp's own inner steps, passed through whole. Should a release of aiohttp drop
    one, its stage is not timed any more, and nothing else changes.
    """

    async def _resolve_host(self, *args: Any, **kwargs: Any) -> Any:
        STOPWATCH.get().look_up()
        return await super()._resolve_host(*args, **kwargs)

    async def _wrap_create_connection(self, *args: Any, **kwargs: Any) -> Any:
        protocol, *others = args
        watch = STOPWATCH.get()
        watch.connect(secure=kwargs.get("ssl") is not None)

        def connected() -> Any:
            """The loop asks for a protocol when the socket is connected, before it speaks TLS."""
            watch.connected = time.perf_counter()
            return protocol()

        made = await super()._wrap_create_connection(connected, *others, **kwargs)
        watch.opened = time.perf_counter()
        return made
