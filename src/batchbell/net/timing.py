"""How long each stage of a call took."""

from __future__ import annotations

import time

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

    def connect(self) -> None:
        """The addresses are known."""
        self.connect_begun = time.perf_counter()

    def handshake(self) -> None:
        """The TCP connection is there, and speaks TLS next."""
        self.connected, self.secure = time.perf_counter(), True

    def open(self) -> None:
        """The connection may be used."""
        self.opened = time.perf_counter()
        if not self.secure:
            self.connected = self.opened

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
