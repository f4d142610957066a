"""PostgreSQL: the store of many processes.

Query functions run over asyncpg through SQLAlchemy's `run_sync`. Who waits for work listens on
one channel, on a connection of its own; a commit that made work notifies it. While nothing can be
heard on that connection, everybody who waits is woken every `POLL_SECONDS` and looks for work.

A connection pooler such as PgBouncer may stand in front of the server, in session or transaction
mode. It is noticed when we connect. Statements are then sent without a name, and settings are made
anew in each transaction, since the next one may run on another connection of the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, cast

import asyncpg
import structlog
from sqlalchemy import Connection, Dialect, NullPool, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from batchbell.core.backoff import exponential
from batchbell.core.errors import StoreUnavailable
from batchbell.core.stream import TRANSACTION_SECONDS
from batchbell.storage.engine import CHANNELS, READ_SECONDS, P, Query, Store, T, take_wakes

log = structlog.get_logger("batchbell.storage")

CHANNEL = "batchbell"
CONNECT_TIMEOUT_SECONDS = 5.0
STATEMENT_SECONDS = 30.0
"""After so long the server gives up a statement, but for those of migrations."""
IDLE_TRANSACTION_SECONDS = 15.0
"""After so long without a statement the server ends a transaction: its process is frozen."""
COMMAND_TIMEOUT_SECONDS = STATEMENT_SECONDS + 5.0
"""After so long we give up a statement ourselves: the server does not even say that it did."""
POOL_SECONDS = 30.0
MIGRATION_TRIES = 6
MIGRATION_PAUSE_SECONDS = 2.0
POLL_SECONDS = 2.0
PROOF_SECONDS = 5.0
"""What we tell ourselves over the channel arrives within this time, or we do not listen."""
PROVE_EVERY_SECONDS = 30.0
RELISTEN_FIRST_SECONDS = 1.0
RELISTEN_LAST_SECONDS = 60.0
CONNECTION_SETTINGS = {
    "application_name": "batchbell",
    "jit": "off",
    "plan_cache_mode": "force_custom_plan",
    "statement_timeout": str(int(STATEMENT_SECONDS * 1000)),
    "idle_in_transaction_session_timeout": str(int(IDLE_TRANSACTION_SECONDS * 1000)),
}
"""A plan from when a table was small would be kept for the connection's life, and scan it whole."""
POOLED_SETTINGS = {"application_name": "batchbell"}
"""What every pooler takes when we connect. It refuses or ignores most others."""
TRANSACTION_SETTINGS = ("jit", "statement_timeout", "idle_in_transaction_session_timeout")
"""What each transaction behind a pooler sets. Unnamed statements need no `plan_cache_mode`."""
CONFLICT_TRIES = 5
CONFLICTS = frozenset({"40001", "40P01"})
"""Serialisation failure and deadlock: nothing was written, and the same write may pass now."""
LOCK_NOT_AVAILABLE = "55P03"


class _Connection(asyncpg.Connection):
    """Without codecs for JSON, which SQLAlchemy would set up: no column of ours has that type.

    Looking the types up needs several messages outside of a transaction, and a pooler may send
    each of them to another server connection.
    """

    settings: tuple[str, ...] = ()
    """What is set with the begin of the next transaction, until its end."""

    async def set_type_codec(self, *_args: Any, **_how: Any) -> None:
        """Set nothing up."""

    def transaction(self, **_how: Any) -> _Transaction:  # type: ignore[override]
        """A transaction as it comes: SQLAlchemy asks for no other."""
        return _Transaction(self)


class _Transaction:
    """What SQLAlchemy uses of asyncpg's own, but begun and set up by one message."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def start(self) -> None:
        begin = ("BEGIN", *self._connection.settings)
        try:
            await self._connection.execute("; ".join(begin))
        except asyncpg.PostgresError:
            if self._connection.is_in_transaction():
                await self.rollback()
            raise

    async def commit(self) -> None:
        await self._connection.execute("COMMIT")

    async def rollback(self) -> None:
        await self._connection.execute("ROLLBACK")


class PostgresStore(Store):
    """See `Store`. Made for one event loop."""

    def __init__(self, url: URL, *, pool_size: int = 10) -> None:
        super().__init__()
        self._url = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self.pooled = False
        """Whether a connection pooler stands in front of the server."""
        self._asked_for_pooler = False
        self._engine = self._make_engine(
            pool_size=pool_size, max_overflow=0, pool_timeout=POOL_SECONDS
        )
        self.listening = False
        """Whether what other processes commit is heard of at once."""
        self._lost = False
        self._name = secrets.token_hex(8)
        self._proof = asyncio.Event()
        self._listener = asyncio.create_task(self._listen(), name="batchbell-listen")

    def _make_engine(self, *, patient: bool = False, **pool: Any) -> AsyncEngine:
        """Connections of a `patient` one wait for statements as long as they take."""
        engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            creator=lambda: self._create(engine, patient=patient),
            hide_parameters=True,
            pool_pre_ping=False,
            **pool,
        )
        event.listen(engine.sync_engine, "begin", self._on_begin)
        return engine

    def _create(self, engine: AsyncEngine, *, patient: bool) -> Any:
        """A connection as SQLAlchemy wants it; made anew when a pooler is found on the way."""
        dbapi: Any = engine.dialect.dbapi
        while True:
            pooled = self.pooled
            how: dict[str, Any] = {"async_creator_fn": self._connect, "patient": patient}
            if pooled:
                how |= {"prepared_statement_cache_size": 0}
                how |= {"prepared_statement_name_func": lambda: ""}
            connection = dbapi.connect(**how)
            if pooled == self.pooled:
                return connection
            connection.close()

    def _on_begin(self, connection: Connection) -> None:
        _driver(connection).settings = (SET_LOCALLY,) if self.pooled else ()

    def _dialects(self) -> Iterable[Dialect]:
        return (self._engine.sync_engine.dialect,)

    async def _connect(self, *, patient: bool = False) -> Any:
        """By asyncpg's own reading of the URL, which knows `sslmode` and libpq's other words."""
        pooled = self.pooled
        try:
            connection = await self._connect_once(patient=patient)
        except asyncpg.PostgresError as error:
            if pooled or "startup parameter" not in str(error):
                raise
            self.pooled = True
            connection = await self._connect_once(patient=patient)
        if not self.pooled and not self._asked_for_pooler:
            try:
                self.pooled = await _is_pooled(connection) or self.pooled
            except BaseException:
                connection.terminate()
                raise
            self._asked_for_pooler = True
        return connection

    async def _connect_once(self, *, patient: bool) -> Any:
        return await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT_SECONDS,
            command_timeout=None if patient else COMMAND_TIMEOUT_SECONDS,
            server_settings=POOLED_SETTINGS if self.pooled else CONNECTION_SETTINGS,
            statement_cache_size=0 if self.pooled else 100,
            connection_class=_Connection,
        )

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _or_unavailable(self._read(lambda c: query(c, *args, **kwargs)))

    async def _read(self, query: Query[[], T]) -> T:
        async with asyncio.timeout(READ_SECONDS), self._engine.connect() as connection:
            return await _run(connection, query)

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _or_unavailable(self._write(lambda c: query(c, *args, **kwargs)))

    async def migrate(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Store`. A lock of a table that cannot be had soon is asked for again, later."""
        engine = self._make_engine(patient=True, poolclass=NullPool)

        def run(connection: Connection) -> T:
            set_locally(connection, SET_PATIENTLY)
            return query(connection, *args, **kwargs)

        async def migrated() -> T:
            async with engine.begin() as connection:
                return await _run(connection, run)

        try:
            for tries_left in reversed(range(MIGRATION_TRIES)):
                try:
                    return await _or_unavailable(migrated())
                except StoreUnavailable as error:
                    cause = error.__cause__
                    locked = isinstance(cause, DBAPIError) and _sqlstate(cause) in RETRIED
                    if not locked or not tries_left:
                        raise
                    await asyncio.sleep(MIGRATION_PAUSE_SECONDS)
        finally:
            await engine.dispose()
        raise AssertionError("the last try returns or raises")

    async def _write(self, query: Query[[], T]) -> T:
        for tries_left in reversed(range(CONFLICT_TRIES)):
            try:
                return await self._write_once(query)
            except DBAPIError as error:
                if _sqlstate(error) not in CONFLICTS or not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _write_once(self, query: Query[[], T]) -> T:
        wakes: set[str] = set()

        def run(connection: Connection) -> T:
            result = query(connection)
            wakes.update(take_wakes(connection))
            for channel in sorted(wakes):
                connection.execute(NOTIFY, {"channel": CHANNEL, "payload": channel})
            return result

        async with (
            self._engine.connect() as connection,
            asyncio.timeout(TRANSACTION_SECONDS),
            connection.begin(),
        ):
            result = await _run(connection, run)
        self._fire(wakes)
        return result

    async def _listen(self) -> None:
        """Listen for ever: again and again after whatever ends it, and poll meanwhile."""
        failures = 0
        while True:
            heard = False
            try:
                heard = await self._listen_once()
                reason = "the connection ended" if heard else NOTHING_HEARD
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise
                reason = "cancelled while connecting"
            except Exception as error:
                reason = str(error) or type(error).__name__
            failures = 1 if heard or self.listening else failures + 1
            if failures == 1:
                self._lost = True
                log.warning("database.not_listening", reason=reason, polled_every=POLL_SECONDS)
            self.listening = False
            await self._poll(failures)

    async def _poll(self, failures: int) -> None:
        seconds = exponential(
            failures,
            base_seconds=RELISTEN_FIRST_SECONDS,
            max_seconds=RELISTEN_LAST_SECONDS,
            rand=0.5,
        )
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            self._fire(set(CHANNELS))
            await asyncio.sleep(min(POLL_SECONDS, left))

    async def _listen_once(self) -> bool:
        """Listen until the connection ends, or is deaf; whether anything was heard on it.

        Behind a pooler that lends connections for a transaction only, nothing ever is. A
        connection that was cut in silence is found by the same proof.
        """
        connection = await self._connect()
        ended = asyncio.Event()
        heard = False
        try:
            connection.add_termination_listener(lambda _: ended.set())
            await connection.add_listener(CHANNEL, self._heard)
            self._fire(set(CHANNELS))
            while not ended.is_set() and await self._hears_itself(connection):
                if self._lost:
                    log.info("database.listening")
                heard, self.listening, self._lost = True, True, False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PROVE_EVERY_SECONDS):
                        await ended.wait()
            return heard
        finally:
            connection.terminate()

    async def _hears_itself(self, connection: Any) -> bool:
        """Whether what we tell arrives.

        Behind a pooler somebody else has to tell it: the connection might be lent the very one of
        the server that listens, for that moment alone.
        """
        self._proof.clear()
        said = {"channel": CHANNEL, "payload": self._name}
        try:
            async with asyncio.timeout(PROOF_SECONDS):
                if self.pooled:
                    await self._write_once(lambda c: c.execute(NOTIFY, said))
                else:
                    await connection.execute(f"NOTIFY {CHANNEL}, '{self._name}'")
                await self._proof.wait()
        except TimeoutError:
            return False
        return True

    def _heard(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        if payload == self._name:
            self._proof.set()
        self._fire({str(payload)} & set(CHANNELS))

    async def close(self) -> None:
        self._listener.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listener
        await self._engine.dispose()


NOTHING_HEARD = "nothing is heard on it; a pooler in transaction mode does not pass on LISTEN"
NOTIFY = text("SELECT pg_notify(:channel, :payload)")


def _driver(connection: Connection) -> _Connection:
    return cast("_Connection", connection.connection.driver_connection)


def set_locally(connection: Connection, settings: str) -> None:
    """Set this until the transaction ends: with its begin, where it has not begun."""
    driver = _driver(connection)
    if driver.is_in_transaction():
        connection.exec_driver_sql(settings)
    else:
        driver.settings += (settings,)


def setting(values: Mapping[str, str]) -> str:
    """One statement that makes these settings until the transaction ends."""
    calls = (f"set_config('{name}', '{value}', true)" for name, value in values.items())
    return f"SELECT {', '.join(calls)}"


SET_LOCALLY = setting({name: CONNECTION_SETTINGS[name] for name in TRANSACTION_SETTINGS})
SET_PATIENTLY = setting(dict.fromkeys(TRANSACTION_SETTINGS[1:], "0"))


async def _is_pooled(connection: Any) -> bool:
    """Whether a pooler answers: the process that runs our statements is not the one that we met.

    Asked without a name and in one transaction, as a pooler needs it.
    """
    transaction = connection.transaction()
    await transaction.start()
    statement = await connection.prepare("SELECT pg_backend_pid()", name="")
    met = await statement.fetchval() == connection.get_server_pid()
    await transaction.commit()
    return not met


async def _run(connection: AsyncConnection, query: Query[[], T]) -> T:
    try:
        return await connection.run_sync(query)
    except Exception as error:
        if _means_gone(error) and _sqlstate(error) is None:
            # Nobody knows what such a connection does next.
            await connection.invalidate()
        raise


async def _or_unavailable(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except asyncio.CancelledError as error:
        if _is_cancelled():
            raise
        raise unavailable(error) from error  # asyncpg, whose connection ended while it was made
    except Exception as error:
        if _means_gone(error):
            raise unavailable(error) from error
        raise


def _is_cancelled() -> bool:
    """Whether somebody cancels this task: if not, the driver cancelled something of its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _sqlstate(error: BaseException) -> str | None:
    origin = getattr(error, "orig", None) or error
    return getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)


GONE_STATES = ("08", "28", "3D", "53", "57P", "58", "57014", "25P03", LOCK_NOT_AVAILABLE)
"""Classes and values of SQLSTATE that speak of the server and its limits, not of the statement."""
RETRIED = CONFLICTS | {LOCK_NOT_AVAILABLE}
GONE = (
    OperationalError,
    InterfaceError,
    PoolTimeout,
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.InvalidCachedStatementError,
)


def _means_gone(error: BaseException) -> bool:
    """Whether the same query may pass later, or on another connection.

    So it is with all errors of the driver itself, but where it was given a value that it cannot
    send.
    """
    origin = getattr(error, "orig", None)
    cause = error if origin is None else origin.__cause__
    if isinstance(cause, ValueError) and not isinstance(cause, asyncpg.ClientConfigurationError):
        return False
    state = _sqlstate(error) or ""
    if isinstance(error, DBAPIError) and state:
        invalid = error.connection_invalidated or isinstance(cause, GONE[-1])
        return invalid or state.startswith(GONE_STATES) or state in CONFLICTS
    return isinstance(error, GONE) or isinstance(cause, GONE)


def unavailable(error: BaseException) -> StoreUnavailable:
    """What callers get when the server does not answer."""
    said = str(getattr(error, "orig", None) or error).splitlines()
    if isinstance(error, TimeoutError):
        said = ["it took too long"]
    return StoreUnavailable(f"PostgreSQL cannot be used: {(said or [type(error).__name__])[0]}")
