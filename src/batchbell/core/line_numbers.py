"""Which line of the user's file each line of a part is.

The lines of a part are some of the lines of the user's file: empty lines are left out, a split
part begins in the middle, and a retry has only what was not answered. So a part keeps runs, each
of them a line of the part, the user's line that it is, and the step from there on to the next.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter

Runs = tuple[tuple[int, int, int], ...]
"""(line of the part, line of the user's file, step). Where the second is 0, nobody knows it."""
RUNS_MAX = 1000
"""Of a part: what comes after so many is not known. It keeps a row small."""


class LineNumbers:
    """Takes in the lines of a part, one after the other."""

    def __init__(self) -> None:
        self._runs: list[tuple[int, int, int]] = []
        self._lines = 0

    def add(self, number: int | None) -> None:
        """The next line of the part is this one of the user's file; None where nobody knows."""
        self._lines += 1
        if not self._follows(number or 0):
            full = len(self._runs) >= RUNS_MAX
            if full and not self._runs[-1][1]:
                return
            self._runs.append((self._lines, 0 if full else number or 0, 0))

    def _follows(self, number: int) -> bool:
        """Whether the last run says so already; its second line gives it its step."""
        if not self._runs:
            return False
        line, first, step = self._runs[-1]
        if not first or not number:
            return first == number
        if self._lines == line + 1:
            self._runs[-1] = (line, first, number - first)
            return True
        return first + (self._lines - line) * step == number

    @property
    def runs(self) -> Runs:
        """What was taken in."""
        return tuple(self._runs)


def number_at(runs: Sequence[tuple[int, int, int]], line: int) -> int | None:
    """The line of the user's file; None where it is not known."""
    place = bisect_right(runs, line, key=itemgetter(0)) - 1
    if place < 0:
        return None
    first, number, step = runs[place]
    return number + (line - first) * step if number else None
