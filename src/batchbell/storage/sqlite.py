"""SQLite: the embedded store of one process.

One thread writes and checkpoints, because SQLite before 3.51.3 can corrupt its log when two
connections do; readers have connections of their own that can only read. A lock file keeps a
second process away. Writes that wait for the writer share one commit, each in its own savepoint.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from batchbell.core.errors import StoreInUse, StoreUnavailable
from batchbell.storage.engine import P, Query, Store, T, take_wakes

BUSY_TIMEOUT_MS = 10_000
GROUP_MAX = 256
"""Writes that one commit may carry."""
READERS = 4


def sqlite_engine(path: Path, *, read_only: bool = False) -> Engine:
    """An engine whose transactions begin at once (`BEGIN IMMEDIATE`), unless it only reads."""
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=READERS if read_only else 1,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
    )
    event.listen(engine, "connect", partial(_on_connect, read_only=read_only))
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _on_connect(connection: Any, _record: object, *, read_only: bool) -> None:
    connection.isolation_level = None
    pragmas = ["PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON"]
    pragmas += ["PRAGMA cache_size=-65536", "PRAGMA wal_autocheckpoint=4000"]
    if read_only:
        pragmas = ["PRAGMA query_only=ON", "PRAGMA wal_autocheckpoint=0"]
    for pragma in pragmas:
        connection.execute(pragma)


def own(path: Path) -> FileLock:
    """Take the file for this process. Raises StoreInUse when another one has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreInUse(
            f"Another Batchbell process is using {path}. SQLite serves one process: speak to that"
            " one over HTTP, or set DATABASE_URL=postgresql://… to run several."
        ) from error
    return lock


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


class SqliteStore(Store):
    """See `Store`. Made for one event loop."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._lock = own(path)
        self._writer = sqlite_engine(path)
        self._reader = sqlite_engine(path, read_only=True)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="batchbell-read")
        self._thread = threading.Thread(target=self._run, name="batchbell-write", daemon=True)
        self._thread.start()

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        bound = partial(self._read, lambda c: query(c, *args, **kwargs))
        return await loop.run_in_executor(self._readers, bound)

    def _read(self, query: Callable[[Connection], T]) -> T:
        try:
            with self._reader.connect() as connection:
                return query(connection)
        except OperationalError as error:
            raise StoreUnavailable(f"SQLite could not be read: {error.orig}") from error

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(lambda c: query(c, *args, **kwargs), future, loop))
        return await future

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            group = _Group([first])
            stop = self._gather(group)
            self._commit(group)
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
            with self._writer.connect() as connection, connection.begin():
                for job in group.jobs:
                    self._step(connection, job, alone=len(group.jobs) == 1)
                group.wakes = take_wakes(connection)
        except OperationalError as error:
            group.fail(StoreUnavailable(f"SQLite could not be written: {error.orig}"))
        except BaseException as error:
            group.fail(error)

    def _step(self, connection: Connection, job: _Job, *, alone: bool) -> None:
        if alone:
            job.result = job.query(connection)
            return
        try:
            with connection.begin_nested():
                job.result = job.query(connection)
        except OperationalError:
            raise
        except Exception as error:
            job.error = error

    def _answer(self, group: _Group) -> None:
        for job in group.jobs:
            job.settle()
        self._fire(group.wakes)

    async def close(self) -> None:
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        self._readers.shutdown()
        self._reader.dispose()
        self._writer.dispose()
        self._lock.release()
