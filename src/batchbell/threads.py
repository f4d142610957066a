"""Threads for work that would hold up everybody else in the shared ones of `asyncio.to_thread`.

`heavy` is for what keeps a processor busy for seconds: merging, checking requests, making tables.
There are few such threads, and owners (projects) take turns, so that one with much to do delays
only itself. `disk` is for short writes of what arrives from the network, and `parse` for reading
what providers answer, where that is more than a few ms of work. Reading files for callers
stays in the shared threads, which nothing long may enter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from batchbell.core.turns import Turns

P = ParamSpec("P")
T = TypeVar("T")

HEAVY_AT_ONCE = 3
HEAVY_OF_ONE = 2
"""One thread is always left to the other owners."""
DISK_THREADS = 4
PARSE_THREADS = 2

_heavy_threads = ThreadPoolExecutor(HEAVY_AT_ONCE, "batchbell-heavy")
_disk_threads = ThreadPoolExecutor(DISK_THREADS, "batchbell-disk")
_parse_threads = ThreadPoolExecutor(PARSE_THREADS, "batchbell-parse")


async def heavy(owner: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run long work in a thread when it is its owner's turn; `owner` is a project's id.

    Cancelling gives the turn up. Work that has begun goes on to its end in its thread, and keeps
    its place until then.
    """
    loop = asyncio.get_running_loop()
    queue = _queues.get(loop)
    if queue is None:
        queue = _queues[loop] = _Queue(loop)
    await queue.turn(owner)
    return await queue.run(owner, lambda: work(*args, **kwargs))


async def disk(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a short write in a thread."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_disk_threads, lambda: work(*args, **kwargs))


async def parse(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Read an answer in a thread. Each account may have one such piece of work at a time."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_parse_threads, lambda: work(*args, **kwargs))


class _Queue:
    """Who waits for heavy work in one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._turns: Turns[asyncio.Future[None]] = Turns(
            most=HEAVY_AT_ONCE, most_of_one=HEAVY_OF_ONE
        )

    async def turn(self, owner: str) -> None:
        """Return when it is the owner's turn; `run` must follow at once."""
        mine = self._loop.create_future()
        self._turns.add(owner, mine)
        self._start()
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

        running = _heavy_threads.submit(work)
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


_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()
