"""The threads for all work that would block the event loop.

Each kind of work has a lane of its own, so that no kind delays another. In most lanes owners
(projects) take turns and no owner can have all threads: one with much to do, or with slow files,
delays only itself.

- `heavy` keeps a disk busy, or a processor, for seconds. It has few threads, which also bounds the
  memory of such work. `apart` is of this lane: a thread of it waits while a child process goes
  through long files, as the event loop would share the interpreter with a thread that computes.
- `table` makes tables, each in a child: it has places of its own, as one may take minutes.
- `stored` reads, measures and deletes files of the results store.
- `check_body` reads long bodies of callers.
- `parse` reads long answers of providers. It has no owners: each account has one there at a time.
- `disk` is for short pieces: what arrives from the network, or goes to it, and folders for work
  that is under way. It has no owners: each caller has one piece there at a time.

`asyncio.to_thread` shares its threads with name lookups and with libraries, so nothing of ours
enters it; a test checks that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from batchbell.child import Children
from batchbell.core.turns import Turns

P = ParamSpec("P")
T = TypeVar("T")

HEAVY_AT_ONCE = 3
HEAVY_OF_ONE = 2
"""One thread is always left to the other owners."""
TABLES_AT_ONCE = 2
TABLES_OF_ONE = 1
STORED_AT_ONCE = 16
STORED_OF_ONE = 4
CHECK_AT_ONCE = 2
CHECK_OF_ONE = 1
APART_BYTES = 2**20
"""Shorter files are gone through sooner than a child is started."""
PARSE_THREADS = 2
DISK_THREADS = 8


async def heavy(owner: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run long work in a thread when it is its owner's turn; `owner` is a project's id.

    Cancelling gives the turn up. Work that has begun goes on to its end in its thread, and keeps
    its place until then.
    """
    return await _heavy.run(owner, lambda: work(*args, **kwargs))


async def apart(
    owner: str, files: Sequence[Path], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Go through files in a child process, or in a thread where they are short; as `heavy`.

    `files` are those that are read. `work`, its arguments, its answer and its errors are plain
    data: see `child`. Raises ChildDied.
    """

    def done() -> T:
        if sum(_size(file) for file in files) < APART_BYTES:
            return work(*args, **kwargs)
        return children.run(work, *args, **kwargs)

    return await _heavy.run(owner, done)


async def table(owner: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Make a table in a child, of files however short: what it imports takes 70 MB.

    Turns, cancelling and errors as for `apart`.
    """
    return await _tables.run(owner, lambda: children.run(work, *args, **kwargs))


async def stored(owner: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Use a file of the results store in a thread; turns and cancelling as for `heavy`."""
    return await _stored.run(owner, lambda: work(*args, **kwargs))


async def check_body(owner: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Read a long body of a caller in a thread; turns and cancelling as for `heavy`."""
    return await _check.run(owner, lambda: work(*args, **kwargs))


async def parse(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Read an answer in a thread. Each account may have one such piece of work at a time."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_parse_threads, lambda: work(*args, **kwargs))


async def disk(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Read or write a short piece in a thread. It is done also where the caller is cancelled."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_disk_threads, lambda: work(*args, **kwargs))


def _size(file: Path) -> int:
    """In bytes. Whoever reads it says that it is not there."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


class _Lane:
    """Threads that owners share by turns."""

    def __init__(self, name: str, *, most: int, most_of_one: int) -> None:
        self._threads = ThreadPoolExecutor(most, f"batchbell-{name}")
        self._most = most
        self._most_of_one = most_of_one
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()

    async def run(self, owner: str, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            turns: Turns[asyncio.Future[None]] = Turns(
                most=self._most, most_of_one=self._most_of_one
            )
            queue = self._queues[loop] = _Queue(loop, self._threads, turns)
        await queue.turn(owner)
        return await queue.run(owner, work)


class _Queue:
    """Who waits for the threads of a lane in one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: ThreadPoolExecutor,
        turns: Turns[asyncio.Future[None]],
    ) -> None:
        self._loop = loop
        self._threads = threads
        self._turns = turns

    async def turn(self, owner: str) -> None:
        """Return when it is the owner's turn; `run` must follow at once."""
        mine = self._loop.create_future()
        self._turns.add(owner, mine)
        self._start()
        if mine.done():
            return
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._ended(owner)  # the turn came in the moment of the cancelling
            raise

    async def run(self, owner: str, work: Callable[[], T]) -> T:
        def ended(_: Future[Any]) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._ended, owner)

        running = self._threads.submit(work)
        running.add_done_callback(ended)
        return await asyncio.wrap_future(running)

    def _start(self) -> None:
        while (taken := self._turns.take()) is not None:
            owner, mine = taken
            if mine.done():
                self._turns.ended(owner)  # whoever waited was cancelled
            else:
                mine.set_result(None)

    def _ended(self, owner: str) -> None:
        self._turns.ended(owner)
        self._start()


children = Children()
_heavy = _Lane("heavy", most=HEAVY_AT_ONCE, most_of_one=HEAVY_OF_ONE)
_tables = _Lane("tables", most=TABLES_AT_ONCE, most_of_one=TABLES_OF_ONE)
_stored = _Lane("stored", most=STORED_AT_ONCE, most_of_one=STORED_OF_ONE)
_check = _Lane("check", most=CHECK_AT_ONCE, most_of_one=CHECK_OF_ONE)
_parse_threads = ThreadPoolExecutor(PARSE_THREADS, "batchbell-parse")
_disk_threads = ThreadPoolExecutor(DISK_THREADS, "batchbell-disk")
