"""How long each stage of a call took."""

from __future__ import annotations

import time

from batchbell.core.outcome import Timings


class Stopwatch:
    """Marks of one connection being made, in seconds of the performance counter.

    None is what was not reached.
    """

    __slots__ = ("_connect_begun", "_connected", "_lookup_begun", "_opened", "_secure")

    def __init__(self) -> None:
        self._lookup_begun = time.perf_counter()
        self._connect_begun: float | None = None
        self._connected: float | None = None
        self._opened: float | None = None
        self._secure = False

    def connect(self) -> None:
        """The addresses are known."""
        self._connect_begun = time.perf_counter()

    def handshake(self) -> None:
        """The TCP connection is there, and speaks TLS next."""
        self._connected, self._secure = time.perf_counter(), True

    def open(self) -> None:
        """The connection may be used."""
        self._opened = time.perf_counter()
        if not self._secure:
            self._connected = self._opened

    def timings(self, *, first_byte_ms: float | None) -> Timings:
        """What was reached until now; a stage that did not end has lasted until now."""
        now = time.perf_counter()
        return Timings(
            dns_ms=_milliseconds(self._lookup_begun, self._connect_begun or now),
            connect_ms=_milliseconds(self._connect_begun, self._connected or now),
            tls_ms=_milliseconds(self._connected, self._opened or now) if self._secure else None,
            first_byte_ms=first_byte_ms,
        )


def _milliseconds(begin: float | None, end: float) -> float | None:
    return None if begin is None else (end - begin) * 1000
