"""Ends what is not done in time, with one timer of the loop for each length of time.

What is given the same time comes to its end in the order in which it began: so the timer waits for
the first of a row alone, and begin and end of a call move no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Timed(Protocol):
    """What has a deadline."""

    def late(self) -> None:
        """Its time is over. It is asked once, and stands in no row any more."""
        ...


One = TypeVar("One", bound=Timed)


class Row(Generic[One]):
    """All that is given the same time, the earliest first."""

    __slots__ = ("ends", "timer")

    def __init__(self) -> None:
        self.ends: dict[One, float] = {}
        self.timer: asyncio.TimerHandle | None = None


class Deadlines(Generic[One]):
    """See the module. Made for one event loop, in whose seconds it counts."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rows: dict[float, Row[One]] = {}

    def __iter__(self) -> Iterator[One]:
        """All that has not ended."""
        return iter([one for row in self._rows.values() for one in row.ends])

    def begin(self, one: One, seconds: float) -> None:
        """Call its `late` after so long, unless it is ended before."""
        row = self._rows.get(seconds)
        if row is None:
            row = self._rows[seconds] = Row()
        row.ends[one] = self._loop.time() + seconds
        if row.timer is None:
            row.timer = self._loop.call_later(seconds, self._look, seconds)

    def end(self, one: One, seconds: float) -> None:
        """It is done; once more changes nothing."""
        row = self._rows.get(seconds)
        if row is not None:
            row.ends.pop(one, None)

    def close(self) -> None:
        """Ask for nobody's end any more."""
        for row in self._rows.values():
            if row.timer is not None:
                row.timer.cancel()
        self._rows.clear()

    def _look(self, seconds: float) -> None:
        """End what is late, and look again when the next will be."""
        row = self._rows[seconds]
        now, late = self._loop.time(), []
        row.timer = None
        for one, at in row.ends.items():
            if at > now:
                row.timer = self._loop.call_later(at - now, self._look, seconds)
                break
            late.append(one)
        for one in late:
            del row.ends[one]
        if not row.ends:
            del self._rows[seconds]
        for one in late:
            one.late()
