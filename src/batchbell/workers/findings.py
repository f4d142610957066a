"""What a sweep has found: written while its next answers are read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from batchbell.workers.sweep import Found

TOGETHER_MOST = 300
"""So many sightings make a sweep wait until they are written: others write to the database, too."""

Write = Callable[[Found], Awaitable[int]]
"""Writes it, and says how many batches it has moved."""


class Findings:
    """Those of one sweep, written one after the other.

    What comes is written at once; what comes while something is written, together and right after
    it, whenever the next answer comes: a transaction costs as much as 20 batches of it.
    """

    def __init__(self, write: Write) -> None:
        self.moved = 0
        self._write = write
        self._waiting = Found()
        self._writer: asyncio.Task[None] | None = None
        self._taken = asyncio.Event()
        """Set when nothing waits for a turn any more, or never will again."""

    async def add(self, found: Found) -> None:
        """Have it written; wait where much does already. Raises what a write has raised."""
        self._waiting.add(found)
        if self._writer is None or self._writer.done():
            await self.end()
            self._writer = asyncio.create_task(self._run())
        self._taken.clear()
        if len(self._waiting) >= TOGETHER_MOST:
            await self._taken.wait()

    async def end(self) -> None:
        """Wait until all is written. Raises what a write has raised."""
        if self._writer is not None:
            await self._writer

    async def cut_off(self) -> None:
        """Nobody waits for it any more."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while True:
                found, self._waiting = self._waiting, Found()
                self._taken.set()
                self.moved += await self._write(found)
                if not len(self._waiting):
                    return
        finally:
            self._taken.set()
