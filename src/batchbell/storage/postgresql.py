"""PostgreSQL: the store of many processes.

Query functions run over asyncpg through SQLAlchemy's `run_sync`. Who waits for work listens on
one channel, on a connection of its own; a commit that made work notifies it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

import asyncpg
from sqlalchemy import Connection, Dialect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine

from batchbell.core.errors import StoreUnavailable
from batchbell.storage.engine import CHANNELS, P, Query, Store, T, take_wakes

CHANNEL = "batchbell"
CONNECT_TIMEOUT_SECONDS = 5.0
COMMAND_TIMEOUT_SECONDS = 30.0
RELISTEN_SECONDS = 1.0
SERVER_SETTINGS = {
    "application_name": "batchbell",
    "jit": "off",
    "plan_cache_mode": "force_custom_plan",
}
"""A plan from when a table was small would be kept for the connection's life, and scan it whole."""
CONFLICT_TRIES = 5
CONFLICTS = frozenset({"40001", "40P01"})
"""Serialisation failure and deadlock: nothing was written, and the same write may pass now."""

GONE = (
    OperationalError,
    InterfaceError,
    PoolTimeout,
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)


class PostgresStore(Store):
    """See `Store`. Made for one event loop."""

    def __init__(self, url: URL, *, pool_size: int = 10) -> None:
        super().__init__()
        self._url = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            hide_parameters=True,
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=False,
            pool_timeout=COMMAND_TIMEOUT_SECONDS,
        )
        self._listener = asyncio.create_task(self._listen(), name="batchbell-listen")

    def _dialects(self) -> Iterable[Dialect]:
        return (self._engine.sync_engine.dialect,)

    async def _connect(self) -> Any:
        """By asyncpg's own reading of the URL, which knows `sslmode` and libpq's other words."""
        return await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT_SECONDS,
            command_timeout=COMMAND_TIMEOUT_SECONDS,
            server_settings=SERVER_SETTINGS,
        )

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            async with self._engine.connect() as connection:
                return await connection.run_sync(lambda c: query(c, *args, **kwargs))
        except GONE as error:
            raise unavailable(error) from error
        except DBAPIError as error:
            raise _told_apart(error) from error

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        for tries_left in reversed(range(CONFLICT_TRIES)):
            try:
                return await self._write(query, *args, **kwargs)
            except GONE as error:
                raise unavailable(error) from error
            except DBAPIError as error:
                if _sqlstate(error) not in CONFLICTS or not tries_left:
                    raise _told_apart(error) from error
        raise AssertionError("the last try returns or raises")

    async def _write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        wakes: set[str] = set()

        def run(connection: Connection) -> T:
            result = query(connection, *args, **kwargs)
            wakes.update(take_wakes(connection))
            for channel in sorted(wakes):
                connection.execute(NOTIFY, {"channel": CHANNEL, "payload": channel})
            return result

        async with self._engine.begin() as connection:
            result = await connection.run_sync(run)
        self._fire(wakes)
        return result

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(*GONE):
                await self._listen_once()
            await asyncio.sleep(RELISTEN_SECONDS)

    async def _listen_once(self) -> None:
        connection = await self._connect()
        ended = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: ended.set())
            await connection.add_listener(CHANNEL, self._heard)
            self._fire(set(CHANNELS))
            await ended.wait()
        finally:
            with contextlib.suppress(*GONE):
                await connection.close(timeout=1.0)

    def _heard(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        self._fire({str(payload)} & set(CHANNELS))

    async def close(self) -> None:
        self._listener.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listener
        await self._engine.dispose()


NOTIFY = text("SELECT pg_notify(:channel, :payload)")


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)


GONE_STATES = ("08", "28", "3D", "53", "57P", "58")
"""Classes of SQLSTATE that speak of the server, not of the statement."""


def _told_apart(error: DBAPIError) -> Exception:
    state = _sqlstate(error) or ""
    if error.connection_invalidated or state.startswith(GONE_STATES) or state in CONFLICTS:
        return unavailable(error)
    return error


def unavailable(error: BaseException) -> StoreUnavailable:
    """What callers are told when the server does not answer."""
    reason = str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__]
    return StoreUnavailable(f"PostgreSQL cannot be used: {reason[0]}")
