"""From a host name to addresses that may be called."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

from aiohttp.abc import AbstractResolver, ResolveResult

from batchbell.net.guard import AddressRules

DNS_TIMEOUT_SECONDS = 3.0
LOOKUPS_AT_ONCE = 256

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""All addresses of a name; raises OSError."""


class SystemNames:
    """Lookups by the operating system, each in a thread of its own.

    A name server that hangs keeps one thread for each name, whoever asks how often, and none that
    others wait for; daemon threads, so that it does not delay a shutdown either.
    """

    def __init__(self) -> None:
        self._pending: dict[str, asyncio.Future[list[str]]] = {}
        self._room = asyncio.Semaphore(LOOKUPS_AT_ONCE)

    async def __call__(self, host: str) -> Sequence[str]:
        pending = self._pending.get(host)
        if pending is None:
            await self._room.acquire()
            pending = self._pending.get(host) or self._start(host)
        return await asyncio.shield(pending)

    def _start(self, host: str) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str]] = loop.create_future()
        self._pending[host] = future

        def run() -> None:
            found = _system_lookup(host)
            with contextlib.suppress(RuntimeError):  # the loop may be gone by now
                loop.call_soon_threadsafe(self._finish, host, future, found)

        threading.Thread(target=run, name=f"dns {host}"[:40], daemon=True).start()
        return future

    def _finish(
        self, host: str, future: asyncio.Future[list[str]], found: list[str] | OSError
    ) -> None:
        self._room.release()
        self._pending.pop(host, None)
        if isinstance(found, OSError):
            future.set_exception(found)
            future.exception()  # nobody may be waiting any more
        else:
            future.set_result(found)


def _system_lookup(host: str) -> list[str] | OSError:
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return error
    except UnicodeError:
        return OSError("it is not a valid name")
    return [str(info[4][0]) for info in infos]


async def addresses_of(host: str, lookup: Lookup) -> Sequence[str]:
    """All addresses of a host, at least one; an address is its own. Raises OSError."""
    with contextlib.suppress(ValueError):
        return [str(ip_address(host))]
    try:
        async with asyncio.timeout(DNS_TIMEOUT_SECONDS):
            addresses = await lookup(host)
    except TimeoutError:
        raise OSError(f"no answer within {DNS_TIMEOUT_SECONDS:g} s") from None
    if not addresses:
        raise OSError("it has no address")
    return addresses


class VettedNames(AbstractResolver):
    """aiohttp's resolver: one bad address among a name's addresses refuses the name."""

    def __init__(self, rules: AddressRules, lookup: Lookup) -> None:
        self._rules = rules
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Addresses to connect to. Raises AddressRefused, or OSError where there are none."""
        addresses = await addresses_of(host, self._lookup)
        for address in addresses:
            self._rules.check_address(address)
        return [_result(host, address, port) for address in addresses]

    async def close(self) -> None:
        """Nothing is held."""


def _result(host: str, address: str, port: int) -> ResolveResult:
    return {
        "hostname": host,
        "host": address,
        "port": port,
        "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
        "proto": 0,
        "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    }
