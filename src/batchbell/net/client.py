"""The client that calls receivers, whoever they are and whatever they answer.

Between the socket and the outcome there are only calls back: over a kept connection a call takes no
task and no timer of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, Self

from batchbell.core import backoff, sent_headers
from batchbell.core.errors import InvalidRequest
from batchbell.core.outcome import Outcome, Timings
from batchbell.net.answer import Answer, body_text, location
from batchbell.net.connection import Connection, ConnectionLost
from batchbell.net.deadlines import Deadlines
from batchbell.net.dialer import Dialer
from batchbell.net.faults import fault_of
from batchbell.net.guard import AddressRules
from batchbell.net.names import Lookup, SystemNames
from batchbell.net.pool import Pool, Target
from batchbell.net.proxy import Proxy
from batchbell.net.timing import Stopwatch

TIMEOUT_SECONDS = 15.0
CLOSE_SECONDS = 1.0

Done = Callable[[Outcome], None]


class Sender(Protocol):
    """What whoever waits for a call needs."""

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


class Caller(Protocol):
    """What a dispatcher needs to deliver."""

    def begin(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_seconds: float,
        done: Done,
    ) -> object:
        """POST once. `done` is called once, later, with the outcome; it must raise nothing."""
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
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self._rules = rules
        self._most = self._slots = max_connections
        self._lookup = lookup or SystemNames()
        self._tls = tls or ssl.create_default_context()
        self._proxy = proxy
        self._pool = self._open_pool(rules())
        self._deadlines: Deadlines[Call] = Deadlines(self.loop)
        """Of all calls that were begun and have not ended."""
        self._waiting: deque[Call] = deque()
        """Begun without a slot; those that have ended meanwhile are passed over."""
        self._dialing: set[asyncio.Task[None]] = set()
        self.closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; calls that are under way fail."""
        self.closed = True
        calls = list(self._deadlines)
        used = [call.connection for call in calls if call.connection is not None]
        for call in calls:
            call.fail(ConnectionLost(kept=False))
        self._deadlines.close()
        # A loop that ends before its TLS connections have ended may hang (uvloop 0.23).
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*self._dialing, return_exceptions=True)
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
        """As `begin`, for whoever waits for the outcome; who waits no more gives the call up."""
        outcome: asyncio.Future[Outcome] = self.loop.create_future()

        def done(said: Outcome) -> None:
            if not outcome.done():
                outcome.set_result(said)

        call = self.begin(
            url, headers=headers, body=body, timeout_seconds=timeout_seconds, done=done
        )
        try:
            return await outcome
        finally:
            call.cancel()

    def begin(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_seconds: float = TIMEOUT_SECONDS,
        done: Done,
    ) -> Call:
        """POST once, to an address that the rules allow at the moment of connecting.

        The status decides: once its line is read, whatever else is odd about the answer costs only
        what could be shown of it. `timeout_seconds` is of wall clock over the whole call. `done`
        is called once, after this has returned, and must raise nothing.
        """
        call = Call(
            self, url, headers=headers, body=body, timeout_seconds=timeout_seconds, done=done
        )
        self._deadlines.begin(call, timeout_seconds)
        if self._slots > 0:
            self._slots -= 1
            call.start(self._current_pool())
        else:
            self._waiting.append(call)
        return call

    def end(self, call: Call) -> None:
        """The call has ended; its slot goes to the next that waits."""
        self._deadlines.end(call, call.timeout_seconds)
        if not call.started:
            return
        self._slots += 1
        while self._waiting and self._slots > 0:
            waiting = self._waiting.popleft()
            if not waiting.ended:
                self._slots -= 1
                waiting.start(self._current_pool())

    def dial(self, call: Call) -> asyncio.Task[None]:
        """Have the call make a connection; `aclose` waits until that has ended."""
        task = self.loop.create_task(call.connect())
        self._dialing.add(task)
        task.add_done_callback(self._dialing.discard)
        return task

    def _current_pool(self) -> Pool:
        """The pool for the rules as they are now: no kept connection outlives its rules."""
        rules, pool = self._rules(), self._pool
        if rules is not pool.rules and rules != pool.rules:
            pool.close()
            self._pool = pool = self._open_pool(rules)
        return pool

    def _open_pool(self, rules: AddressRules) -> Pool:
        dialer = Dialer(rules, lookup=self._lookup, tls=self._tls, proxy=self._proxy)
        return Pool(rules, dialer, most=self._most)


class Call:
    """One POST, from the URL to the outcome."""

    __slots__ = (
        "_again",
        "_answer",
        "_begun",
        "_body",
        "_dialing",
        "_done",
        "_headers",
        "_pool",
        "_request",
        "_sender",
        "_started_at",
        "_target",
        "_url",
        "_watch",
        "connection",
        "started",
        "timeout_seconds",
    )
    _pool: Pool
    _target: Target
    _request: bytes

    def __init__(
        self,
        sender: WebhookSender,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_seconds: float,
        done: Done,
    ) -> None:
        self._begun = time.perf_counter()
        self._started_at = sender.clock()
        self._sender = sender
        self._url = url
        self._headers = headers
        self._body = body
        self._done: Done | None = done
        self._answer: Answer | None = None
        self._watch: Stopwatch | None = None
        self._dialing: asyncio.Task[None] | None = None
        self._again = False
        self.timeout_seconds = timeout_seconds
        self.connection: Connection | None = None
        self.started = False
        """Whether it has a slot."""

    @property
    def ended(self) -> bool:
        return self._done is None

    def start(self, pool: Pool) -> None:
        """Send over a kept connection, or begin to make one."""
        self.started, self._pool = True, pool
        try:
            self._target = target = pool.target(self._url)
            self._request = self._whole(target)
            connection = pool.take(target)
            if connection is None:
                self._dial()
            else:
                self._post(connection)
        except Exception as error:
            self._sender.loop.call_soon(self.fail, error)

    def late(self) -> None:
        """The time is over."""
        self.fail(TimeoutError())

    def cancel(self) -> None:
        """Nobody waits for the outcome any more."""
        if not self.ended:
            self._done = None
            self._let_go()
            self._sender.end(self)

    def fail(self, error: Exception) -> None:
        """End it as it stands: with its status, if that has come, else with this error."""
        if not self.ended:
            self._let_go()
            self._finish(error)

    async def connect(self) -> None:
        """Make a connection, and send over it."""
        try:
            connection = await self._pool.open(self._target, self._stopwatch())
            self._dialing = None
            self._post(connection)
        except Exception as error:
            self._dialing = None
            self.fail(error)

    def _dial(self) -> None:
        if self._sender.closed:
            raise ConnectionLost(kept=False)
        self._dialing = self._sender.dial(self)

    def _stopwatch(self) -> Stopwatch:
        self._watch = watch = Stopwatch()
        return watch

    def _whole(self, target: Target) -> bytes:
        """Head and body: one write."""
        headers, body = self._headers, self._body
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
            raise InvalidRequest("A header must not hold the end of a line.", param="headers")
        return f"{target.begin}{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def _post(self, connection: Connection) -> None:
        self.connection = connection
        self._answer = answer = Answer()
        connection.post(self._request, answer, self._posted)

    def _posted(self, error: Exception | None) -> None:
        """The answer has ended.

        A kept connection that had died unseen is no fault of the receiver's: one more try. Should
        the receiver have had the message after all, its id tells it so.
        """
        connection = self.connection
        assert connection is not None
        self._pool.put(self._target, connection)
        if isinstance(error, ConnectionLost) and error.kept and not self._again:
            self._again, self.connection = True, None
            try:
                self._dial()
            except ConnectionLost as lost:
                self._finish(lost)
            return
        self._finish(error)

    def _let_go(self) -> None:
        if self._dialing is not None:
            self._dialing.cancel()
        elif self.connection is not None:
            self.connection.give_up()

    def _finish(self, error: Exception | None) -> None:
        done, self._done = self._done, None
        assert done is not None
        outcome = self._outcome(error)
        self._sender.end(self)
        done(outcome)

    def _outcome(self, error: Exception | None) -> Outcome:
        answer = self._answer
        status = None if answer is None else answer.status
        if answer is not None and status is not None:
            try:
                return self._answered(answer, status)
            except Exception as odd:
                error = odd
        assert error is not None
        return self._failed(error)

    def _failed(self, error: Exception) -> Outcome:
        fault, detail = fault_of(error, timeout_seconds=self.timeout_seconds)
        return Outcome(
            fault=fault,
            detail=detail,
            request_headers=sent_headers.shown(self._headers),
            started_at=self._started_at,
            duration_ms=(time.perf_counter() - self._begun) * 1000,
            timings=self._timings(),
        )

    def _answered(self, answer: Answer, status: int) -> Outcome:
        wait = (answer.headers or {}).get("retry-after")
        address = self.connection.address if self.connection is not None else None
        return Outcome(
            status=status,
            retry_after_seconds=backoff.retry_after(wait, now=self._sender.clock())
            if wait
            else None,
            location=location(answer) if 300 <= status < 400 else None,
            remote_address=address,
            response_headers=answer.head.shown if answer.head is not None else {},
            response_body=self._shown_body(answer, address),
            request_headers=sent_headers.shown(self._headers),
            started_at=self._started_at,
            duration_ms=(time.perf_counter() - self._begun) * 1000,
            timings=self._timings(),
        )

    def _shown_body(self, answer: Answer, address: str | None) -> str | None:
        if address is None or not self._pool.shows_answers_of(address):
            return None
        return body_text(answer)

    def _timings(self) -> Timings:
        answered_at = self.connection.answered_at if self.connection is not None else None
        first_byte = None if answered_at is None else (answered_at - self._begun) * 1000
        if self._watch is None:
            return Timings(first_byte_ms=first_byte)
        return self._watch.timings(first_byte_ms=first_byte)
