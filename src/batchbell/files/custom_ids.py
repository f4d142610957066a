"""A number for each custom_id of a file, in little memory: files may have millions of lines."""

from __future__ import annotations

from array import array

FIRST_SLOTS = 1024
FULL = 0.6
MASK = 2**64 - 1


class Numbers:
    """Numbers by name, some 25 bytes each. Names are known by 64 bits of their (seeded) hash.

    Two names of ten million are taken for one with a chance of one in 300,000.
    """

    def __init__(self) -> None:
        self._marks = array("Q", bytes(8 * FIRST_SLOTS))
        self._numbers = array("I", bytes(4 * FIRST_SLOTS))
        self._most = int(FIRST_SLOTS * FULL)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, name: str) -> int | None:
        """The number of a name; None where it has none."""
        slot = self._slot(_mark(name))
        return self._numbers[slot] if self._marks[slot] else None

    def add(self, name: str, number: int) -> int:
        """Give a name this number, unless it has one; returns the one that it has then."""
        mark = _mark(name)
        slot = self._slot(mark)
        if self._marks[slot]:
            return self._numbers[slot]
        self._marks[slot], self._numbers[slot] = mark, number
        self._count += 1
        if self._count > self._most:
            self._grow()
        return number

    def _slot(self, mark: int) -> int:
        marks = self._marks
        last = len(marks) - 1
        slot = mark & last
        while marks[slot] not in (0, mark):
            slot = (slot + 1) & last
        return slot

    def _grow(self) -> None:
        marks, numbers = self._marks, self._numbers
        slots = 2 * len(marks)
        self._marks, self._numbers = array("Q", bytes(8 * slots)), array("I", bytes(4 * slots))
        self._most = int(slots * FULL)
        for mark, number in zip(marks, numbers, strict=True):
            if mark:
                slot = self._slot(mark)
                self._marks[slot], self._numbers[slot] = mark, number


def _mark(name: str) -> int:
    return hash(name) & MASK or 1
