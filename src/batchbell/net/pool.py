"""The connections made under one set of rules, and the URLs judged by them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from yarl import URL

from batchbell.net.connection import Connection
from batchbell.net.dialer import Dialer, Origin
from batchbell.net.guard import AddressRules
from batchbell.net.timing import Stopwatch

KEEPALIVE_SECONDS = 4.0
"""Shorter than the 5 s of most servers: a connection that they are about to close is not used."""
TARGETS_MAX = 10_000
ADDRESSES_MAX = 10_000


@dataclass(slots=True, eq=False)
class Target:
    """A URL that was judged, and what every request to it begins with."""

    origin: Origin
    begin: str
    kept: list[Connection]
    """Connections to the origin that nobody uses, the latest last. Its targets share them."""


class Pool:
    """See the module. At most `most` connections are kept while nobody uses them."""

    def __init__(self, rules: AddressRules, dialer: Dialer, *, most: int) -> None:
        self.rules = rules
        self._loop = asyncio.get_running_loop()
        self._dialer = dialer
        self._most = most
        self._closed = False
        self._targets: dict[str, Target] = {}
        self._shown: dict[str, bool] = {}
        self._kept: dict[Origin, list[Connection]] = {}
        self._oldest: dict[Connection, Target] = {}
        """All that are kept, in the order in which they were put back."""
        self._tidying: asyncio.TimerHandle | None = None

    def target(self, url: str) -> Target:
        """What to call; raises as `AddressRules.check_url` does."""
        target = self._targets.get(url)
        if target is None:
            if len(self._targets) >= TARGETS_MAX:
                self._targets.clear()
                self._kept.clear()  # whoever still has a target has its connections
            target = self._targets[url] = self._judged(self.rules.target(url))
        return target

    def _judged(self, url: URL) -> Target:
        host, port = url.raw_host or "", url.port or 0
        origin = Origin(url.scheme, host, port)
        where = url.raw_path_qs or "/"
        credentials = ""
        proxy = self._dialer.proxy_for(host)
        if proxy is not None and not origin.secure:
            where, credentials = f"{url.scheme}://{url.raw_authority}{where}", proxy.credentials()
        begin = f"POST {where} HTTP/1.1\r\nHost: {_host(url)}\r\n{credentials}"
        return Target(origin, begin, self._kept.setdefault(origin, []))

    def shows_answers_of(self, address: str) -> bool:
        """As `AddressRules.shows_answers_of`, remembered: receivers come from few addresses."""
        shown = self._shown.get(address)
        if shown is None:
            if len(self._shown) >= ADDRESSES_MAX:
                self._shown.clear()
            shown = self._shown[address] = self.rules.shows_answers_of(address)
        return shown

    async def open(self, target: Target, watch: Stopwatch) -> Connection:
        """A new connection. Raises as `Dialer.open`."""
        return await self._dialer.open(target.origin, watch)

    def take(self, target: Target) -> Connection | None:
        """The connection that was kept last, if there is one that may be used."""
        kept = target.kept
        if not kept:
            return None
        latest = self._loop.time() - KEEPALIVE_SECONDS
        while kept:
            connection = kept.pop()
            del self._oldest[connection]
            if connection.usable and connection.idle_since >= latest:
                return connection
            connection.close()
        return None

    def put(self, target: Target, connection: Connection) -> None:
        """Keep the connection if it may be used again, else close it."""
        if self._closed or not connection.usable:
            connection.close()
            return
        connection.idle_since = self._loop.time()
        target.kept.append(connection)
        self._oldest[connection] = target
        if len(self._oldest) > self._most:
            self._drop(next(iter(self._oldest)))
        if self._tidying is None:
            self._tidying = self._loop.call_later(KEEPALIVE_SECONDS, self._tidy)

    def close(self) -> list[Connection]:
        """Close what is kept, and keep no more; the connections that are being closed."""
        self._closed = True
        if self._tidying is not None:
            self._tidying.cancel()
        kept = list(self._oldest)
        for connection in kept:
            self._drop(connection)
        return kept

    def _tidy(self) -> None:
        """Close what has been idle for too long."""
        latest = self._loop.time() - KEEPALIVE_SECONDS
        self._tidying = None
        while self._oldest:
            connection = next(iter(self._oldest))
            if connection.idle_since > latest:
                after = connection.idle_since - latest
                self._tidying = self._loop.call_later(after, self._tidy)
                return
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._oldest.pop(connection).kept.remove(connection)
        connection.close()


def _host(url: URL) -> str:
    host = url.raw_host or ""
    host = f"[{host}]" if ":" in host else host
    return host if url.is_default_port() else f"{host}:{url.port}"
