"""Writing together what waits together, without a timer.

While one write is under way, others gather; the next write carries all of them. Under load many
items share a transaction, and alone an item does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

Item = TypeVar("Item", contravariant=True)
Answer = TypeVar("Answer", covariant=True)
I_ = TypeVar("I_")
A_ = TypeVar("A_")


class WriteAll(Protocol[Item, Answer]):
    """Writes the items in one transaction and answers each, in their order."""

    async def __call__(self, items: Sequence[Item], /) -> Sequence[Answer]: ...


class Gathering(Generic[I_, A_]):
    """Hands items to `write_all`, up to `most` at a time. Made for one event loop."""

    def __init__(self, write_all: WriteAll[I_, A_], *, most: int) -> None:
        self._write_all = write_all
        self._most = most
        self._waiting: list[tuple[I_, asyncio.Future[A_]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def add(self, item: I_) -> A_:
        """Write the item and return its answer; raises what the write raised."""
        return await self.put(item)

    def put(self, item: I_) -> asyncio.Future[A_]:
        """Queue the item; the future brings its answer."""
        future: asyncio.Future[A_] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._run(), name="batchbell-gathering")
        return future

    async def _run(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._write(group)
        finally:
            self._writer = None

    async def _write(self, group: Sequence[tuple[I_, asyncio.Future[A_]]]) -> None:
        try:
            answers = await self._write_all([item for item, _ in group])
        except BaseException as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(group, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def drain(self) -> None:
        """Wait until nothing waits any more; failures have been told to those who added."""
        while self._writer is not None:
            with contextlib.suppress(Exception):
                await asyncio.shield(self._writer)
