"""The janitor: forgets what is old, in bounded steps, and sets aside what nobody may call for."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from batchbell.storage import deliveries, history
from batchbell.storage.engine import Signal, Store

log = structlog.get_logger("batchbell.janitor")

FORGET_STEP = 200
"""Batches that one transaction deletes, so that no table is locked for long."""
IDLE_SECONDS = 60.0
DAY_SECONDS = 86400.0


class Janitor:
    """See the module. `retention_days` counts from a batch's end."""

    name = "janitor"

    def __init__(self, store: Store, *, clock: Callable[[], float], retention_days: float) -> None:
        self.signal = Signal()
        self._store = store
        self._clock = clock
        self._keep_seconds = retention_days * DAY_SECONDS

    async def step(self) -> bool:
        before = self._clock() - self._keep_seconds
        held = await self._store.write(deliveries.hold_back_disabled)
        forgotten = await self._store.write(history.forget_old, before=before, limit=FORGET_STEP)
        if held or forgotten:
            log.info("cleaned", held=held, batches_forgotten=forgotten)
        return bool(held or forgotten)

    async def idle_seconds(self) -> float:
        return IDLE_SECONDS

    async def close(self) -> None:
        """Nothing is ever under way between steps."""
