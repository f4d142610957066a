"""Opening a database, and running query functions on it.

A query function is plain: `fn(connection, …)`. `Store.read` and `Store.write` run it: on SQLite
in the one writer thread (a read in a reader thread), on PostgreSQL over asyncpg. The function
never knows which; where a hot statement differs, it asks `dialect_of(connection)`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Dialect

from batchbell.storage.masterkeys import MasterKeys
from batchbell.storage.sealing import Seal, attach

P = ParamSpec("P")
T = TypeVar("T")
Query = Callable[Concatenate[Connection, P], T]

DELIVERIES = "deliveries"
ACCOUNTS = "accounts"
REPLAYS = "replays"
EVENTS = "events"
OUTAGES = "outages"
ACCOUNTS_CHANGED = "accounts_changed"
RESULTS = "results"
SUBMISSIONS = "submissions"
CREATIONS = "creations"
ALARMS = "alarms"
CHANNELS = (
    DELIVERIES,
    ACCOUNTS,
    REPLAYS,
    EVENTS,
    OUTAGES,
    ACCOUNTS_CHANGED,
    RESULTS,
    SUBMISSIONS,
    CREATIONS,
    ALARMS,
)

READ_SECONDS = 30.0
"""A read that takes longer is stopped."""

_WAKES = "batchbell.wakes"


def wake(connection: Connection, channel: str) -> None:
    """Ask that whoever waits on `channel` wakes when this transaction has been committed."""
    connection.info.setdefault(_WAKES, set()).add(channel)


def take_wakes(connection: Connection) -> set[str]:
    """The channels that were asked for since the last call."""
    wakes: set[str] = connection.info.pop(_WAKES, set())
    return wakes


class Signal:
    """Wakes every waiter once for any number of calls since it last looked."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Call from the event loop's own thread."""
        self._event.set()

    async def wait(self, timeout_seconds: float) -> bool:
        """Whether it was set within the time. A signal set before the call counts."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Store(ABC):
    """An open database. Made by `open_store`; close it when done."""

    def __init__(self) -> None:
        self._signals: dict[str, set[Signal]] = {channel: set() for channel in CHANNELS}
        self.keys = MasterKeys()
        self.is_full = False
        """Whether the last write failed because the disk is full."""

    @property
    def seals(self) -> bool:
        """Whether secrets are kept sealed; if not, provider credentials must not be kept."""
        return bool(self.keys.keys)

    def use(self, keys: MasterKeys) -> None:
        """Seal and open secrets with these keys from now on."""
        self.keys = keys
        seal = Seal(keys.keys)
        for dialect in self._dialects():
            attach(dialect, seal)

    @asynccontextmanager
    async def erasing(self) -> AsyncIterator[None]:
        """What is overwritten or dropped meanwhile is nowhere in a file of ours afterwards.

        Not on PostgreSQL, whose files are its own. Nothing else may use the store at that time.
        """
        yield

    @abstractmethod
    def _dialects(self) -> Iterable[Dialect]:
        """Those of its engines."""

    def signal(self, channel: str) -> Signal:
        """A new signal that is set whenever work for `channel` has been committed."""
        signal = Signal()
        self._signals[channel].add(signal)
        return signal

    def forget(self, signal: Signal) -> None:
        """Set this signal no more: whoever waited for it has gone."""
        for signals in self._signals.values():
            signals.discard(signal)

    def _fire(self, channels: set[str]) -> None:
        for channel in channels:
            for signal in self._signals[channel]:
                signal.set()

    @abstractmethod
    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query that only reads, for READ_SECONDS at most. It stops with its caller.

        Raises StoreUnavailable when the database is gone, or the time is over.
        """

    @abstractmethod
    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query in one transaction; when this returns, it is on disk.

        An exception of the query rolls it back and is raised here. Raises StoreUnavailable when
        the database is gone or locked: whether the write happened is then unknown.
        """

    async def migrate(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A write that may take as long as it needs."""
        return await self.write(query, *args, **kwargs)

    @abstractmethod
    async def close(self) -> None:
        """Finish what is running and let go of the database."""


def dialect_of(connection: Connection) -> str:
    """`sqlite` or `postgresql`."""
    return connection.dialect.name


REPLACEMENT = "\ufffd"


def storable(text: str) -> str:
    """The text as both databases can keep it: one bad character must not spoil a whole write.

    NUL, which PostgreSQL refuses, and half a surrogate pair, which is no character, become
    U+FFFD.
    """
    if text.isascii():
        return text.replace("\0", REPLACEMENT) if "\0" in text else text
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\0", REPLACEMENT)
