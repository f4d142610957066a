"""Waiting for a batch's end: when to look again, and when to give up. No clock, no sockets."""

from __future__ import annotations

from collections.abc import Callable

from batchbell.api.batches import Batch
from batchbell.client.errors import ServerUnavailable, ServerUnreachable, WaitTimedOut

LOOK_SECONDS = 1.0
LOOK_SECONDS_MAX = 15.0
SLOWER = 1.25
"""Each look that saw nothing new makes the next pause longer by this."""

OnChange = Callable[[Batch], None]


class Wait:
    """One wait for one batch. Feed it what was seen; it says how long to pause.

    A server that is away for a while is waited for too.
    """

    def __init__(
        self, batch_id: str, *, started: float, timeout: float | None, on_change: OnChange | None
    ) -> None:
        self._batch_id = batch_id
        self._deadline = None if timeout is None else started + timeout
        self._on_change = on_change
        self._seen: Batch | None = None
        self._pause = LOOK_SECONDS

    def see(self, batch: Batch) -> bool:
        """Whether it has ended. `on_change` is called with the first sight and every change."""
        if batch == self._seen:
            self._pause = min(self._pause * SLOWER, LOOK_SECONDS_MAX)
        else:
            self._pause = LOOK_SECONDS
            self._seen = batch
            if self._on_change is not None:
                self._on_change(batch)
        return batch.ended

    def miss(self, error: ServerUnreachable | ServerUnavailable, *, now: float) -> None:
        """The server did not answer: raises that error when the time is up."""
        self._pause = min(self._pause * SLOWER, LOOK_SECONDS_MAX)
        if self._deadline is not None and now >= self._deadline:
            raise error

    def pause_seconds(self, *, now: float) -> float:
        """How long to wait before the next look. Raises WaitTimedOut when the time is up."""
        if self._deadline is None:
            return self._pause
        if now >= self._deadline:
            status = self._seen.batchbell.status if self._seen else "unknown"
            raise WaitTimedOut(f"{self._batch_id} has not ended in time; it is {status}.")
        return min(self._pause, self._deadline - now)
