"""A webhook receiver that keeps what it gets and behaves as a test asks."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from batchbell.core import signing
from batchbell.sandbox.behaviours import Behaviour, Respond
from batchbell.sandbox.connection import ReceiverConnection


@dataclass(frozen=True, slots=True)
class Received:
    """One request. Header names are in lower case; `at` is by the receiver's clock."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float
    peer: tuple[str, int]
    verified: bool | None = None
    """Whether the signature holds; None for a receiver without a secret."""


Chosen = Behaviour | Callable[[Received], Behaviour]
POLITE = Respond()


class Receiver:
    """A webhook receiver on a free port: `async with Receiver() as receiver`.

    `received` holds every request in order of arrival, `counts` how many came to each path, and
    `bad_signatures` how many were not signed with the secret. The query is part of the path in
    `Received`, and not for `behave` and `counts`.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        secret: str | None = None,
        clock: Callable[[], float] = time.time,
        ssl_context: ssl.SSLContext | None = None,
        keep: bool = True,
        on_received: Callable[[Received], None] | None = None,
    ) -> None:
        """`keep=False` only counts; `on_received` is called for each request before its answer."""
        self.host = host
        self.port = port
        self.secret = secret
        self.default: Chosen = POLITE
        self.received: list[Received] = []
        self.total = 0
        self.counts: Counter[str] = Counter()
        self.bad_signatures = 0
        self._clock = clock
        self._ssl = ssl_context
        self._keep = keep
        self._on_received = on_received
        self._behaviours: dict[str, list[Chosen]] = {}
        self._waiters: list[tuple[int, str | None, asyncio.Future[None]]] = []
        self._connections: set[ReceiverConnection] = set()
        self._held: list[Callable[[], None]] = []
        self._server: asyncio.Server | None = None
        self._stopped = False

    def url(self, path: str = "/hook") -> str:
        scheme = "https" if self._ssl else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}{path}"

    def behave(self, path: str, *behaviours: Chosen) -> None:
        """Answer calls to the path one after the other like this; the last one stays.

        A function in place of a behaviour chooses by what was received. Without behaviours the
        path goes back to `default`.
        """
        self._behaviours[path] = list(behaviours)

    def release(self) -> None:
        """Let every call that a `Hold` holds have its answer."""
        held, self._held = self._held, []
        for call in held:
            call()

    async def wait_for(
        self, number: int, timeout: float = 10.0, *, path: str | None = None
    ) -> list[Received]:
        """Wait until so many requests have come in all, or to one path, and return them.

        Raises TimeoutError that says how many there were.
        """
        if self._count(path) < number:
            arrived = asyncio.get_running_loop().create_future()
            self._waiters.append((number, path, arrived))
            try:
                await asyncio.wait_for(arrived, timeout)
            except TimeoutError:
                found = self._count(path)
                raise TimeoutError(f"{found} of {number} requests after {timeout} s") from None
            finally:
                self._waiters = [w for w in self._waiters if w[2] is not arrived]
        return [r for r in self.received if path is None or plain_path(r.path) == path]

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken. The port stays after a `stop`."""
        self._stopped = False
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: ReceiverConnection(self),
            self.host,
            self.port,
            ssl=self._ssl,
            backlog=4096,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection, whatever it was doing."""
        server, self._server = self._server, None
        if server is None:
            return
        self._stopped = True
        server.close()
        self._held.clear()
        while self._connections:
            gone = [connection.gone for connection in self._connections]
            for connection in list(self._connections):
                connection.transport.abort()
            await asyncio.gather(*gone)
        await server.wait_closed()

    async def __aenter__(self) -> Receiver:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # Owner, as connections see it ---------------------------------------------------------

    def joined(self, connection: ReceiverConnection) -> None:
        self._connections.add(connection)
        if self._stopped:
            connection.transport.abort()  # it was being accepted while we stopped

    def left(self, connection: ReceiverConnection) -> None:
        self._connections.discard(connection)

    def hold(self, call: Callable[[], None]) -> None:
        self._held.append(call)

    def arrived(self, connection: ReceiverConnection) -> None:
        received = self._read(connection)
        path = plain_path(received.path)
        self.total += 1
        self.counts[path] += 1
        if self._keep:
            self.received.append(received)
        if received.verified is False:
            self.bad_signatures += 1
        if self._on_received is not None:
            self._on_received(received)
        self._wake()
        chosen = self._choose(path)
        behaviour = chosen(received) if callable(chosen) else chosen
        behaviour.answer(connection)

    def _read(self, connection: ReceiverConnection) -> Received:
        headers, body, now = connection.headers, connection.body, self._clock()
        verified = None
        if self.secret is not None:
            verified = signing.verify([self.secret], headers=headers, body=body, now=now)
        return Received(
            connection.method, connection.path, headers, body, now, connection.peer, verified
        )

    def _choose(self, path: str) -> Chosen:
        waiting = self._behaviours.get(path)
        if not waiting:
            return self.default
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def _wake(self) -> None:
        for number, path, arrived in self._waiters:
            if not arrived.done() and self._count(path) >= number:
                arrived.set_result(None)

    def _count(self, path: str | None) -> int:
        return self.total if path is None else self.counts[path]


def plain_path(path: str) -> str:
    """A request's path without its query."""
    return path.partition("?")[0]
