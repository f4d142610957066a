"""Keeping an answer of the database for a moment, so that a storm of requests asks it once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """What `load` brought, for `seconds`; whoever asks while it loads waits for the same answer.

    One that stops waiting leaves it to the others: it is loaded once, however many come and go. A
    clock that was set back counts as time that has passed.
    """

    def __init__(
        self, load: Callable[[], Awaitable[T]], *, seconds: float, clock: Callable[[], float]
    ) -> None:
        self._load = load
        self._seconds = seconds
        self._clock = clock
        self._loading: asyncio.Task[T] | None = None
        self._kept: tuple[float, T] | None = None
        self._changes = 0

    def forget(self) -> None:
        """What is known, or being loaded at this moment, is not the truth any more."""
        self._kept = None
        self._loading = None
        self._changes += 1

    def at_hand(self) -> T | None:
        """The answer, if it is known at this moment; else None.

        Halfway through its time it is loaded anew, so that those who ask often never wait for it.
        """
        kept = self._fresh()
        if kept is None:
            return None
        if self._loading is None and self._clock() - kept[0] > self._seconds / 2:
            self._begin()
        return kept[1]

    async def get(self) -> T:
        """The answer; raises what `load` raises, and keeps no failure."""
        kept = self._fresh()
        if kept is not None:
            return kept[1]
        return await asyncio.shield(self._loading or self._begin())

    def _begin(self) -> asyncio.Task[T]:
        self._loading = asyncio.create_task(self._load_once())
        self._loading.add_done_callback(_retrieve)
        return self._loading

    async def _load_once(self) -> T:
        changes, asked_at = self._changes, self._clock()
        try:
            answer = await self._load()
        finally:
            if changes == self._changes:
                self._loading = None
        if changes == self._changes:
            self._kept = (asked_at, answer)
        return answer

    def _fresh(self) -> tuple[float, T] | None:
        kept = self._kept
        return kept if kept and 0 <= self._clock() - kept[0] < self._seconds else None


def _retrieve(task: asyncio.Task[T]) -> None:
    """A failure that nobody waits for any more is no error of the loop."""
    if not task.cancelled():
        task.exception()
