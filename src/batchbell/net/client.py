"""The client that calls receivers, whoever they are and whatever they answer."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self, TypedDict

import aiohttp
from aiohttp import AddrInfoType

from batchbell.core.outcome import Outcome
from batchbell.net.answers import Answer
from batchbell.net.exchange import Exchange, Pool
from batchbell.net.faults import CONNECT_TIMEOUT_SECONDS
from batchbell.net.guard import AddressRules
from batchbell.net.names import Lookup, SystemNames, VettedNames
from batchbell.net.timing import TimedConnector

TIMEOUT_SECONDS = 15.0
KEEPALIVE_SECONDS = 4.0
"""Shorter than the 5 s of most servers: a connection that they are about to close is not used."""
NAMES_KEPT_SECONDS = 10


class HeadLimits(TypedDict):
    """The arguments of an aiohttp session that bound the head of an answer."""

    max_line_size: int
    max_field_size: int
    max_headers: int


HEAD_LIMITS = HeadLimits(max_line_size=128 * 2**10, max_field_size=128 * 2**10, max_headers=1000)
"""aiohttp's own limits (8,190 bytes, 128 headers) are below what some hosts send: content security
policies, cookies, a header for each rate limit.
"""


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
    name service and its trusted authorities.
    """

    def __init__(
        self,
        rules: Callable[[], AddressRules],
        *,
        clock: Callable[[], float] = time.time,
        max_connections: int = 200,
        lookup: Lookup | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._max_connections = max_connections
        self._lookup = lookup or SystemNames()
        self._tls = tls or ssl.create_default_context()
        self._pool = self._open_pool(rules())
        self._retired: list[Pool] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; calls that are under way fail."""
        for pool in (self._pool, *self._retired):
            await pool.session.close()

    async def send(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Outcome:
        """POST once, to an address that the rules allow at the moment of connecting.

        The status decides: once it is read, a body that stalls, drips or never ends costs only
        its own text. `timeout_seconds` is of wall clock over the whole exchange.
        """
        pool = self._current_pool()
        exchange = Exchange(pool, url, headers=headers, body=body, clock=self._clock)
        pool.under_way += 1
        try:
            return await exchange.run(timeout_seconds)
        finally:
            pool.under_way -= 1
            if self._retired:
                await self._close_retired()

    def _current_pool(self) -> Pool:
        """The pool for the rules as they are now: no kept connection outlives its rules."""
        rules, pool = self._rules(), self._pool
        if rules is not pool.rules and rules != pool.rules:
            self._retired.append(pool)
            self._pool = pool = self._open_pool(rules)
        return pool

    async def _close_retired(self) -> None:
        idle = [pool for pool in self._retired if pool.under_way == 0]
        self._retired = [pool for pool in self._retired if pool.under_way > 0]
        for pool in idle:
            await pool.session.close()

    def _open_pool(self, rules: AddressRules) -> Pool:
        connector = vetted_connector(
            rules,
            self._lookup,
            kind=TimedConnector,
            ssl=self._tls,
            limit=self._max_connections,
            keepalive_timeout=KEEPALIVE_SECONDS,
        )
        return Pool(rules, webhook_session(connector))


def webhook_session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    """A session that keeps, follows, unpacks and adds nothing.

    Its only timeout is for connecting: the wall clock over the exchange is the caller's.
    """
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        response_class=Answer,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        auto_decompress=False,
        trust_env=False,
        **HEAD_LIMITS,
    )


def vetted_connector(
    rules: AddressRules,
    lookup: Lookup,
    *,
    kind: type[aiohttp.TCPConnector] = aiohttp.TCPConnector,
    **more: Any,
) -> aiohttp.TCPConnector:
    """Connects to addresses only that the rules allow, whatever a name leads to."""
    return kind(
        resolver=VettedNames(rules, lookup),
        socket_factory=vetted_sockets(rules),
        ttl_dns_cache=NAMES_KEPT_SECONDS,
        **more,
    )


def vetted_sockets(rules: AddressRules) -> Callable[[AddrInfoType], socket.socket]:
    """Judge the very address of a socket: aiohttp asks no resolver about IP literals."""

    def open_socket(info: AddrInfoType) -> socket.socket:
        family, type_, proto, _, address = info
        rules.check_address(str(address[0]))
        return socket.socket(family, type_, proto)

    return open_socket
