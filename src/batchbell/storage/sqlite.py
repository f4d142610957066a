"""SQLite: the embedded store of one process.

One thread writes and checkpoints, because SQLite before 3.51.3 can corrupt its log when two
connections do; readers have connections of their own that can only read. A lock file keeps a
second process away. Writes that wait for the writer share one commit, each in its own savepoint.

Reads go in two lanes, so that slow ones never hold up short ones. Each begins in the quick lane.
One that takes longer than a moment there is stopped, and begins anew in the slow lane; the next of
its kind begin there, for a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import queue
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from batchbell.core.errors import (
    StoreError,
    StoreFull,
    StoreInUse,
    StoreMoved,
    StoreUnavailable,
    is_full,
)
from batchbell.storage.engine import READ_SECONDS, P, Query, Store, T, take_wakes

EMPTY_LOG = "PRAGMA wal_checkpoint(TRUNCATE)"
BUSY_TIMEOUT_MS = 10_000
NEEDED = (3, 35, 0)
"""`RETURNING` and `WITH … AS MATERIALIZED` came with this version."""
GROUP_MAX = 256
"""Writes that one commit may carry."""
QUICK_READERS = 4
SLOW_READERS = 2
QUICK_CPU_SECONDS = 0.25
"""What a read may work in the quick lane. It is not to blame for waiting for a processor."""
QUICK_SECONDS = 2.0
SLOW_KEPT_SECONDS = 60.0
"""How long reads of a kind that was slow begin in the slow lane."""
SLOW_KINDS_MOST = 1000
STEPS_BETWEEN_LOOKS = 100_000
"""Instructions of SQLite, a few milliseconds, after which a read looks whether to go on."""


ROOM_BYTES = 2**20
"""With less than this left, a disk that fails is taken for full: SQLite does not always say so."""
MOVED = (
    "The database file {path} was deleted, moved or replaced while it was in use. Put it back, or"
    " start again."
)

UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PROTOCOL,
    }
)
"""What SQLite says when the file, not the statement, is at fault."""


def check_version(version: tuple[int, int, int]) -> None:
    """Raises StoreError when the SQLite library is too old for what is asked of it."""
    if version < NEEDED:
        here, needed = (".".join(map(str, v)) for v in (version, NEEDED))
        raise StoreError(
            f"The SQLite library of this Python is {here}; Batchbell needs {needed} or newer."
            " Use a newer Python, or set DATABASE_URL=postgresql://…"
        )


def sqlite_engine(
    path: Path, *, read_only: bool = False, busy_timeout_ms: int = BUSY_TIMEOUT_MS
) -> Engine:
    """An engine whose transactions begin at once (`BEGIN IMMEDIATE`), unless it only reads."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=QueuePool,
        hide_parameters=True,
        pool_size=QUICK_READERS + SLOW_READERS if read_only else 1,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": busy_timeout_ms / 1000},
    )
    event.listen(engine, "connect", partial(_on_connect, read_only=read_only))
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _on_connect(connection: Any, _record: object, *, read_only: bool) -> None:
    connection.isolation_level = None
    pragmas = ["PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON"]
    pragmas += ["PRAGMA cache_size=-65536", "PRAGMA wal_autocheckpoint=4000"]
    pragmas += ["PRAGMA secure_delete=FAST", ASIDE.format("MEMORY")]
    if read_only:
        pragmas = ["PRAGMA query_only=ON", "PRAGMA wal_autocheckpoint=0"]
    for pragma in pragmas:
        connection.execute(pragma)


ASIDE = "PRAGMA temp_store={}"
"""Where SQLite puts pages aside that a statement changes, in case it fails half way. In a file that
is a call of the system for each page: a seventh of what a registration costs the writer.
"""


def _erase(connection: Connection, how: str) -> None:
    """Zero what is deleted: `ON` everywhere, `FAST` only where it costs no further write."""
    connection.exec_driver_sql(f"PRAGMA secure_delete = {how}")


def own(path: Path) -> FileLock:
    """Take the file for this process, made if it is not there, for its owner's eyes only.

    Files beside it, which SQLite makes, are as private as it is. Raises StoreInUse when another
    process has it, and StoreUnavailable where it cannot be made.
    """
    lock = FileLock(f"{path}.lock", thread_local=False, mode=0o600)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except Timeout as error:
        raise StoreInUse(
            f"Another Batchbell process is using {path}. SQLite serves one process: speak to that"
            " one over HTTP, or set DATABASE_URL=postgresql://… to run several."
        ) from error
    except OSError as error:
        if lock.is_locked:
            lock.release()
        kind = StoreFull if is_full(error) else StoreUnavailable
        raise kind(f"The database {path} cannot be made: {error.strerror or error}.") from error
    return lock


class _Overrun(Exception):
    """The read was stopped: it took longer than its lane allows, or nobody waits for it."""


@dataclass(slots=True, eq=False)
class _Reading:
    """One read, which is stopped from outside or by its own time."""

    deadline: float
    quick: bool
    stopped: bool = False
    cpu_until: float = math.inf

    def begin(self) -> None:
        """Call in the thread that reads."""
        if self.quick:
            self.deadline = min(self.deadline, time.monotonic() + QUICK_SECONDS)
            self.cpu_until = time.thread_time() + QUICK_CPU_SECONDS

    def over(self) -> bool:
        return (
            self.stopped or time.monotonic() > self.deadline or time.thread_time() > self.cpu_until
        )


Kind = tuple[object, frozenset[str]]


def _kind(query: object, asked: Mapping[str, object]) -> Kind:
    """Reads of the same function that are asked for the same things are of one kind."""
    named = frozenset(name for name, value in asked.items() if value is not None)
    return getattr(query, "__code__", query), named


def _code(error: BaseException) -> int | None:
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_unavailable(error: BaseException) -> bool:
    return _code(error) in UNAVAILABLE


def _unavailable(error: BaseException | None, path: Path, what: str) -> StoreUnavailable:
    """What to raise for an error of SQLite's own, with the reason."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    full = code == sqlite3.SQLITE_FULL
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        with contextlib.suppress(OSError):
            full = shutil.disk_usage(path.parent).free < ROOM_BYTES
    if full:
        return StoreFull(f"SQLite could not be {what}: the disk of {path} is full. Make room.")
    return StoreUnavailable(f"SQLite could not be {what}: {error}")


def _in_transaction(connection: Connection) -> bool:
    driver: Any = connection.connection.dbapi_connection
    return bool(driver.in_transaction)


@dataclass(slots=True)
class _Job:
    query: Callable[[Connection], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        if self.future.cancelled():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


@dataclass(slots=True)
class _Group:
    jobs: list[_Job]
    wakes: set[str] = field(default_factory=set)

    def fail(self, error: BaseException) -> None:
        for job in self.jobs:
            job.error = job.error or error


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file the path leads to; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


class SqliteStore(Store):
    """See `Store`. Made for one event loop."""

    def __init__(self, path: Path, *, busy_timeout_ms: int = BUSY_TIMEOUT_MS) -> None:
        super().__init__()
        check_version(sqlite3.sqlite_version_info)
        self._path = path
        self._lock = own(path)
        self._identity = _identity(path)
        self._closed = False
        self._writer = sqlite_engine(path, busy_timeout_ms=busy_timeout_ms)
        self._reader = sqlite_engine(path, read_only=True, busy_timeout_ms=busy_timeout_ms)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._quick = ThreadPoolExecutor(QUICK_READERS, thread_name_prefix="batchbell-read")
        self._slow = ThreadPoolExecutor(SLOW_READERS, thread_name_prefix="batchbell-slow-read")
        self._slow_kinds: dict[Kind, float] = {}
        self._reading: set[_Reading] = set()
        self._thread = threading.Thread(target=self._run, name="batchbell-write", daemon=True)
        self._thread.start()

    def _dialects(self) -> Iterable[Dialect]:
        return (self._writer.dialect, self._reader.dialect)

    @contextlib.asynccontextmanager
    async def erasing(self) -> AsyncIterator[None]:
        await self.write(_erase, "ON")
        try:
            yield
        finally:
            await self.write(_erase, "FAST")
            await asyncio.to_thread(self._outside, EMPTY_LOG)

    async def migrate(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Store`. It may sort whole tables, which are put aside in files."""
        await asyncio.to_thread(self._outside, ASIDE.format("FILE"))
        try:
            return await self.write(query, *args, **kwargs)
        finally:
            await asyncio.to_thread(self._outside, ASIDE.format("MEMORY"))

    def _outside(self, statement: str) -> None:
        """Run what must not run in a transaction, while nobody writes."""
        connection = self._writer.raw_connection()
        try:
            connection.cursor().execute(statement)
        except sqlite3.OperationalError as error:
            raise _unavailable(error, self._path, "written") from error
        finally:
            connection.close()

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_open()
        kind, deadline = _kind(query, kwargs), time.monotonic() + READ_SECONDS

        def bound(connection: Connection) -> T:
            return query(connection, *args, **kwargs)

        if self._slow_kinds.get(kind, 0.0) < time.monotonic():
            with contextlib.suppress(_Overrun):
                return await self._read_in(self._quick, bound, _Reading(deadline, quick=True))
            self._check_open()
            self._note_slow(kind)
        try:
            return await self._read_in(self._slow, bound, _Reading(deadline, quick=False))
        except _Overrun as error:
            raise StoreUnavailable(
                f"A read took longer than {READ_SECONDS:g} s and was stopped: ask for less."
            ) from error

    def _note_slow(self, kind: Kind) -> None:
        now = time.monotonic()
        if len(self._slow_kinds) >= SLOW_KINDS_MOST:
            self._slow_kinds = {k: until for k, until in self._slow_kinds.items() if until > now}
        self._slow_kinds[kind] = now + SLOW_KEPT_SECONDS

    async def _read_in(
        self, lane: ThreadPoolExecutor, query: Callable[[Connection], T], reading: _Reading
    ) -> T:
        self._reading.add(reading)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(lane, self._read, query, reading)
        finally:
            reading.stopped = True
            self._reading.discard(reading)

    def _check_file(self) -> None:
        """Raise StoreMoved where the path leads to another file by now, or to none.

        SQLite would go on to write to the one that it has open, which nobody will ever find.
        """
        if _identity(self._path) != self._identity:
            raise StoreMoved(MOVED.format(path=self._path))

    def _read(self, query: Callable[[Connection], T], reading: _Reading) -> T:
        if reading.over():
            raise _Overrun
        reading.begin()
        self._check_file()
        try:
            with self._reader.connect() as connection:
                driver: Any = connection.connection.dbapi_connection
                driver.set_progress_handler(reading.over, STEPS_BETWEEN_LOOKS)
                try:
                    return query(connection)
                finally:
                    driver.set_progress_handler(None, 0)
        except OperationalError as error:
            if _code(error) == sqlite3.SQLITE_INTERRUPT:
                raise _Overrun from error
            if not _is_unavailable(error):
                raise
            raise _unavailable(error.orig, self._path, "read") from error

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("The store is closed.")

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_open()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(lambda c: query(c, *args, **kwargs), future, loop))
        return await future

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            group = _Group([first])
            stop = self._gather(group)
            self._commit(group)
            with contextlib.suppress(RuntimeError):  # a loop that was closed waits for nothing
                first.loop.call_soon_threadsafe(self._answer, group)
            if stop:
                return

    def _gather(self, group: _Group) -> bool:
        while len(group.jobs) < GROUP_MAX:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return False
            if job is None:
                return True
            group.jobs.append(job)
        return False

    def _commit(self, group: _Group) -> None:
        try:
            self._check_file()
            with self._writer.connect() as connection, connection.begin():
                for job in group.jobs:
                    self._step(connection, job, alone=len(group.jobs) == 1)
                group.wakes = take_wakes(connection)
        except BaseException as error:
            if isinstance(error, OperationalError) and _is_unavailable(error):
                error = _unavailable(error.orig, self._path, "written")
            self.is_full = isinstance(error, StoreFull)
            group.fail(error)
        else:
            self.is_full = False

    def _step(self, connection: Connection, job: _Job, *, alone: bool) -> None:
        if alone:
            job.result = job.query(connection)
            return
        savepoint = connection.begin_nested()
        try:
            job.result = job.query(connection)
        except Exception as error:
            # Some failures end the whole transaction, as a full disk does: the savepoint is gone,
            # and the others must not go on without a transaction.
            if _is_unavailable(error) or not _in_transaction(connection):
                raise
            savepoint.rollback()
            job.error = error
        else:
            savepoint.commit()

    def _answer(self, group: _Group) -> None:
        for job in group.jobs:
            job.settle()
        self._fire(group.wakes)

    async def close(self) -> None:
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        for reading in self._reading:
            reading.stopped = True
        for lane in (self._quick, self._slow):
            await asyncio.to_thread(lane.shutdown)
        self._reader.dispose()
        self._writer.dispose()
        self._lock.release()
