"""How slowly a body may move before it is given up.

A limit on silence alone lets a peer that sends one byte a minute hold a connection for ever; a
limit on the whole would cut off large files on honest slow lines. So both are asked for: no long
silence, and a least average after the first minute. Only time spent waiting for the peer counts.
"""

from __future__ import annotations

GRACE_SECONDS = 60.0
"""Before this much waiting, only silence counts."""
LEAST_BYTES_PER_SECOND = 16 * 2**10


class Pace:
    """What one body has moved so far, and how long its next piece may take."""

    def __init__(
        self,
        *,
        stall_seconds: float,
        grace_seconds: float = GRACE_SECONDS,
        bytes_per_second: float = LEAST_BYTES_PER_SECOND,
    ) -> None:
        self._stall_seconds = stall_seconds
        self._grace_seconds = grace_seconds
        self._bytes_per_second = bytes_per_second
        self._bytes = 0
        self._waited_seconds = 0.0

    def moved(self, count: int, *, waited_seconds: float) -> None:
        """Note a piece of `count` bytes that was waited for."""
        self._bytes += count
        self._waited_seconds += waited_seconds

    def seconds(self) -> float:
        """How long the next piece may take."""
        return max(0.0, min(self._stall_seconds, self._left()))

    @property
    def is_spent(self) -> bool:
        """Whether it was too slow on the whole: no other call can mend that."""
        return self._left() <= 0.0

    def reason(self) -> str:
        """Why the body was given up, to follow on a subject: "… for 60 s"."""
        if self._left() < self._stall_seconds:
            return f"moved fewer than {self._bytes_per_second:g} bytes a second"
        return f"fell silent for {self._stall_seconds:g} s"

    def _left(self) -> float:
        earned = self._bytes / self._bytes_per_second
        return self._grace_seconds + earned - self._waited_seconds
