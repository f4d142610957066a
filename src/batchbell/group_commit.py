"""Writing together what waits together, without a timer.

While one write is under way, others gather; the next write carries all of them. Under load many
items share a transaction, and alone an item does not wait.

Where a write costs much by itself, whatever it carries, the first of a group may wait for some
`rounds` of the event loop: what has come by then, and what is being read from sockets, goes along.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")
WriteAll = Callable[[list[Item]], Awaitable[Sequence[Answer]]]
"""Writes the items in one transaction and answers each, in their order."""


class Gathering(Generic[Item]):
    """Hands items to `write`, up to `most` at a time. Made for one event loop.

    Nobody hears what became of an item: `write` sees to that, and to its failures. One that it
    raises ends the writer; the next item begins another.
    """

    def __init__(
        self, write: Callable[[list[Item]], Awaitable[None]], *, most: int, rounds: int = 0
    ) -> None:
        self._write = write
        self._most = most
        self._rounds = rounds
        self._waiting: list[Item] = []
        self._writer: asyncio.Task[None] | None = None

    def put(self, item: Item) -> None:
        """Queue the item."""
        self._waiting.append(item)
        if self._writer is None:
            self._writer = asyncio.create_task(self._run(), name="batchbell-gathering")

    def take_back(self) -> list[Item]:
        """What waits; it is written no more."""
        waiting, self._waiting = self._waiting, []
        return waiting

    async def _run(self) -> None:
        try:
            while self._waiting:
                for _ in range(self._rounds):
                    await asyncio.sleep(0)
                group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._write(group)
        finally:
            self._writer = None

    async def drain(self) -> None:
        """Wait until nothing waits any more."""
        while self._writer is not None:
            with contextlib.suppress(Exception):
                await asyncio.shield(self._writer)


class GroupCommit(Generic[Item, Answer]):
    """As `Gathering`, and whoever adds an item hears what became of it."""

    def __init__(self, write_all: WriteAll[Item, Answer], *, most: int, rounds: int = 0) -> None:
        self._write_all = write_all
        self._gathering: Gathering[tuple[Item, asyncio.Future[Answer]]] = Gathering(
            self._write, most=most, rounds=rounds
        )

    async def add(self, item: Item) -> Answer:
        """Write the item and return its answer; raises what the write raised."""
        return await self.put(item)

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Queue the item; the future brings its answer."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._gathering.put((item, future))
        return future

    async def _write(self, group: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._write_all([item for item, _ in group])
            answered = list(zip(group, answers, strict=True))
        except BaseException as error:
            if isinstance(error, Exception):
                _fail(group, error)
                return
            # The writer itself ends here: nobody would write what has gathered since.
            _fail([*group, *self._gathering.take_back()], error)
            raise
        for (_, future), answer in answered:
            if not future.done():
                future.set_result(answer)

    async def drain(self) -> None:
        """Wait until nothing waits any more; failures have reached those who added."""
        await self._gathering.drain()


def _fail(group: Sequence[tuple[Any, asyncio.Future[Any]]], error: BaseException) -> None:
    for _, future in group:
        if future.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)
