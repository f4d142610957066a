"""Opens connections to receivers: name, address, socket, TLS, and a proxy where one is set.

Addresses are judged twice: all that a name leads to, so that a name with one bad address is refused
whole, and the very address of each socket before it is opened.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from aiohappyeyeballs import AddrInfoType, start_connection

from batchbell.core.outcome import Fault
from batchbell.net.answer import Answer, NotHttp
from batchbell.net.connection import Connection
from batchbell.net.faults import (
    CONNECT_TIMEOUT_SECONDS,
    CallFailed,
    not_connected,
    not_resolved,
    not_secure,
)
from batchbell.net.guard import AddressRules
from batchbell.net.names import Lookup, addresses_of
from batchbell.net.proxy import Proxy
from batchbell.net.timing import Stopwatch

NAMES_KEPT_SECONDS = 10.0
NAMES_MAX = 10_000
NEXT_ADDRESS_SECONDS = 0.25
"""When the next address of a name is tried beside the one before (RFC 8305)."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a connection is made to."""

    scheme: str
    host: str
    port: int

    @property
    def secure(self) -> bool:
        return self.scheme == "https"


class Dialer:
    """Opens connections under one set of rules."""

    def __init__(
        self, rules: AddressRules, *, lookup: Lookup, tls: ssl.SSLContext, proxy: Proxy | None
    ) -> None:
        self._rules = rules
        self._lookup = lookup
        self._tls = tls
        self._proxy = proxy
        self._names: dict[str, tuple[float, Sequence[str]]] = {}

    def proxy_for(self, host: str) -> Proxy | None:
        """The proxy that this host is called through."""
        proxy = self._proxy
        return proxy if proxy is not None and proxy.serves(host) else None

    async def open(self, origin: Origin, watch: Stopwatch) -> Connection:
        """A connection to the origin. Raises CallFailed, and AddressRefused as the rules do."""
        proxy = self.proxy_for(origin.host)
        if proxy is not None:
            return await self._open_by_proxy(proxy, origin, watch)
        addresses = await self._addresses(origin.host)
        watch.connect()
        sock = await connected(addresses, origin.port, name=origin.host, rules=self._rules)
        connection = Connection()
        connection.address = str(sock.getpeername()[0])
        if origin.secure:
            watch.handshake()
            await self._secure(connection, sock, origin.host)
        else:
            await asyncio.get_running_loop().create_connection(lambda: connection, sock=sock)
        watch.open()
        return connection

    async def _addresses(self, host: str) -> Sequence[str]:
        """All addresses of a host, each of which the rules allow."""
        known = self._names.get(host)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        try:
            found = await addresses_of(host, self._lookup)
        except OSError as error:
            raise not_resolved(host, error) from error
        for address in found:
            self._rules.check_address(address)
        if len(self._names) >= NAMES_MAX:
            self._names.clear()
        self._names[host] = (time.monotonic() + NAMES_KEPT_SECONDS, found)
        return found

    async def _secure(self, protocol: asyncio.Protocol, sock: socket.socket, name: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(
                lambda: protocol, sock=sock, ssl=self._tls, server_hostname=name.removesuffix(".")
            )
        except (OSError, EOFError) as error:
            raise not_secure(name, error) from error

    async def _open_by_proxy(self, proxy: Proxy, origin: Origin, watch: Stopwatch) -> Connection:
        """Plain HTTP is asked of the proxy itself; TLS goes through a tunnel to the receiver."""
        try:
            addresses = await addresses_of(proxy.host, self._lookup)
        except OSError as error:
            raise not_resolved(proxy.host, error) from error
        watch.connect()
        sock = await connected(addresses, proxy.port, name=f"the proxy {proxy}", rules=None)
        connection = Connection()
        first: asyncio.Protocol = _Tunnel() if origin.secure else connection
        if proxy.secure:
            await self._secure(first, sock, proxy.host)
        else:
            await asyncio.get_running_loop().create_connection(lambda: first, sock=sock)
        if isinstance(first, _Tunnel):
            transport = await first.ask(proxy, origin)
            watch.handshake()
            await self._secure_tunnel(transport, connection, origin.host)
        watch.open()
        return connection

    async def _secure_tunnel(
        self, transport: asyncio.Transport, connection: Connection, name: str
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            made = await loop.start_tls(
                transport, connection, self._tls, server_hostname=name.removesuffix(".")
            )
        except BaseException as error:
            transport.abort()
            if isinstance(error, (OSError, EOFError)):
                raise not_secure(name, error) from error
            raise
        assert made is not None
        connection.connection_made(made)


async def connected(
    addresses: Sequence[str], port: int, *, name: str, rules: AddressRules | None
) -> socket.socket:
    """A socket that is connected to one of the addresses, whichever answers first.

    Raises CallFailed, and AddressRefused where `rules` forbid an address.
    """
    infos = [_info(address, port) for address in addresses]
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            return await start_connection(
                infos,
                happy_eyeballs_delay=NEXT_ADDRESS_SECONDS,
                socket_factory=None if rules is None else vetted_sockets(rules),
            )
    except TimeoutError:
        detail = f"No connection within {CONNECT_TIMEOUT_SECONDS:g} s."
        raise CallFailed(Fault.TIMEOUT, detail) from None
    except (OSError, RuntimeError) as error:  # uvloop raises RuntimeError for some
        raise not_connected(name, error) from error


def vetted_sockets(rules: AddressRules) -> Callable[[AddrInfoType], socket.socket]:
    """Opens sockets for addresses only that the rules allow."""

    def open_socket(info: AddrInfoType) -> socket.socket:
        family, type_, proto, _, address = info
        rules.check_address(str(address[0]))
        return socket.socket(family, type_, proto)

    return open_socket


def _info(address: str, port: int) -> AddrInfoType:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a tunnel, and hands its transport over once there is one."""

    def __init__(self) -> None:
        self._answer = Answer()
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ask(self, proxy: Proxy, origin: Origin) -> asyncio.Transport:
        """The transport of the tunnel. Raises CallFailed."""
        transport = self._transport
        assert transport is not None
        transport.write(proxy.connect_request(origin.host, origin.port))
        try:
            await self._done
            self._check(self._answer.status, proxy)
        except BaseException:
            transport.abort()
            raise
        return transport

    def _check(self, status: int | None, proxy: Proxy) -> None:
        if status is None:
            raise CallFailed(Fault.CONNECT, f"The proxy {proxy} closed the connection.")
        if not 200 <= status < 300:
            raise CallFailed(Fault.CONNECT, f"The proxy {proxy} {_refusal(status)}.")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._answer.feed(data)
        except NotHttp:
            self._end()
        if self._answer.headers is not None:
            self._end()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


def _refusal(status: int) -> str:
    if status == 407:
        return "does not accept its credentials (407)"
    return f"refuses the tunnel ({status})"
