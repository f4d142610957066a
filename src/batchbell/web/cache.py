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
        """The answer, if it is known at this moment and nothing has to be loaded; else None."""
        kept = self._fresh()
        return None if kept is None else kept[1]

    async def get(self) -> T:
        """The answer; raises what `load` raises, and keeps no failure."""
        kept = self._fresh()
        if kept is not None:
            return kept[1]
        if self._loading is None:
            self._loading = asyncio.create_task(self._load_once())
            self._loading.add_done_callback(_retrieve)
        return await asyncio.shield(self._loading)

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
