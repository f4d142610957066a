"""Keeping an answer of the database for a moment, so that a storm of requests asks it once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """What `load` brought, for `seconds`; whoever asks while it loads waits for the same answer.

    A clock that was set back counts as time that has passed.
    """

    def __init__(
        self, load: Callable[[], Awaitable[T]], *, seconds: float, clock: Callable[[], float]
    ) -> None:
        self._load = load
        self._seconds = seconds
        self._clock = clock
        self._lock = asyncio.Lock()
        self._kept: tuple[float, T] | None = None
        self._changes = 0

    def forget(self) -> None:
        """What is known, or being loaded at this moment, is not the truth any more."""
        self._kept = None
        self._changes += 1

    async def get(self) -> T:
        """The answer; raises what `load` raises, and keeps no failure."""
        kept = self._fresh()
        if kept is not None:
            return kept[1]
        async with self._lock:
            kept = self._fresh()
            if kept is not None:
                return kept[1]
            changes, asked_at = self._changes, self._clock()
            answer = await self._load()
            if changes == self._changes:
                self._kept = (asked_at, answer)
            return answer

    def _fresh(self) -> tuple[float, T] | None:
        if self._kept is None or not 0 <= self._clock() - self._kept[0] < self._seconds:
            return None
        return self._kept
