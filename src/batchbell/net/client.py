"""The client that calls receivers, whoever they are and whatever they answer."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Protocol, Self

from batchbell.core import backoff, sent_headers
from batchbell.core.errors import InvalidRequest
from batchbell.core.outcome import Outcome
from batchbell.net.answer import Answer, body_text, location, shown_headers
from batchbell.net.connection import Connection, ConnectionLost
from batchbell.net.dialer import Dialer
from batchbell.net.faults import fault_of
from batchbell.net.guard import AddressRules
from batchbell.net.names import Lookup, SystemNames
from batchbell.net.pool import Pool, Target
from batchbell.net.proxy import Proxy
from batchbell.net.timing import Stopwatch

TIMEOUT_SECONDS = 15.0
CLOSE_SECONDS = 1.0


class Sender(Protocol):
    """What a dispatcher needs to deliver."""

    async def send(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Outcome:
        """POST once. Never raises for anything a receiver does: that is the outcome."""
        ...


class WebhookSender:
    """Sends webhooks under address rules, which may change while it runs.

    Use it as an async context manager, or `aclose()` it; make it inside a running loop. `rules`
    is asked before each call. At most `max_connections` calls are under way at once; others
    wait within their time. `clock` gives epoch seconds. `lookup` and `tls` replace the system's
    name service and its trusted authorities. Calls go through `proxy`, but for the hosts that it
    does not serve.
    """

    def __init__(
        self,
        rules: Callable[[], AddressRules],
        *,
        clock: Callable[[], float] = time.time,
        max_connections: int = 200,
        lookup: Lookup | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._most = max_connections
        self._slots = asyncio.Semaphore(max_connections)
        self._lookup = lookup or SystemNames()
        self._tls = tls or ssl.create_default_context()
        self._proxy = proxy
        self._used: set[Connection] = set()
        self._pool = self._open_pool(rules())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; calls that are under way fail."""
        used = list(self._used)
        for connection in used:
            connection.close()
        # A loop that ends before its TLS connections have ended may hang (uvloop 0.23).
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                for connection in (*self._pool.close(), *used):
                    await connection.gone.wait()

    async def send(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Outcome:
        """POST once, to an address that the rules allow at the moment of connecting.

        The status decides: once its line is read, whatever else is odd about the answer costs only
        what could be shown of it. `timeout_seconds` is of wall clock over the whole call.
        """
        call = Call(self._current_pool(), url, headers=headers, body=body, clock=self._clock)
        return await call.run(self._slots, timeout_seconds)

    def _current_pool(self) -> Pool:
        """The pool for the rules as they are now: no kept connection outlives its rules."""
        rules, pool = self._rules(), self._pool
        if rules is not pool.rules and rules != pool.rules:
            pool.close()
            self._pool = pool = self._open_pool(rules)
        return pool

    def _open_pool(self, rules: AddressRules) -> Pool:
        dialer = Dialer(rules, lookup=self._lookup, tls=self._tls, proxy=self._proxy)
        return Pool(rules, dialer, most=self._most, used=self._used)


class Call:
    """One POST, from the URL to the outcome."""

    def __init__(
        self,
        pool: Pool,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        clock: Callable[[], float],
    ) -> None:
        self._pool = pool
        self._url = url
        self._headers = headers
        self._body = body
        self._clock = clock
        self._started_at = clock()
        self._watch = Stopwatch()
        self._answer = Answer()
        self._address: str | None = None

    async def run(self, slots: asyncio.Semaphore, timeout_seconds: float) -> Outcome:
        """Send and read within the time. Raises nothing but cancellation."""
        try:
            async with asyncio.timeout(timeout_seconds), slots:
                await self._post_again_if_stale(self._pool.target(self._url))
        except Exception as error:
            status = self._answer.status
            if status is None:
                return self._failed(error, timeout_seconds)
            return self._answered(status)
        status = self._answer.status
        assert status is not None
        return self._answered(status)

    async def _post_again_if_stale(self, target: Target) -> None:
        """A kept connection that had died unseen is no fault of the receiver's: one more try.

        Should the receiver have had the message after all, its id tells it so.
        """
        try:
            await self._post(target, fresh=False)
        except ConnectionLost as lost:
            if not lost.kept:
                raise
            await self._post(target, fresh=True)

    async def _post(self, target: Target, *, fresh: bool) -> None:
        head = self._head(target)
        connection = await self._pool.take(target.origin, self._watch, fresh=fresh)
        self._address = connection.address
        self._answer = Answer()
        try:
            await connection.post([head, self._body], self._answer, self._watch)
        finally:
            self._pool.put(target.origin, connection)

    def _head(self, target: Target) -> bytes:
        lines = "".join([f"{name}: {value}\r\n" for name, value in self._headers.items()])
        if lines.count("\n") != len(self._headers) or lines.count("\r") != len(self._headers):
            raise InvalidRequest("A header must not hold the end of a line.", param="headers")
        return f"{target.begin}{lines}Content-Length: {len(self._body)}\r\n\r\n".encode()

    def _failed(self, error: Exception, timeout_seconds: float) -> Outcome:
        fault, detail = fault_of(error, timeout_seconds=timeout_seconds)
        return Outcome(
            fault=fault,
            detail=detail,
            request_headers=sent_headers.shown(self._headers),
            started_at=self._started_at,
            duration_ms=self._watch.elapsed_ms(),
            timings=self._watch.timings(),
        )

    def _answered(self, status: int) -> Outcome:
        answer = self._answer
        wait = (answer.headers or {}).get("retry-after")
        return Outcome(
            status=status,
            retry_after_seconds=backoff.retry_after(wait, now=self._clock()) if wait else None,
            location=location(answer) if 300 <= status < 400 else None,
            remote_address=self._address,
            response_headers=shown_headers(answer),
            response_body=self._shown_body(),
            request_headers=sent_headers.shown(self._headers),
            started_at=self._started_at,
            duration_ms=self._watch.elapsed_ms(),
            timings=self._watch.timings(),
        )

    def _shown_body(self) -> str | None:
        if self._address is None or not self._pool.shows_answers_of(self._address):
            return None
        return body_text(self._answer)
