"""The lookout: looks at open batches when their time has come, and rings their alarms.

It asks no provider, so it also works while an account cannot be swept. A batch is looked at a
minute after it is known, and then when an alarm may be due: one that is well costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from batchbell.core import alarms as rules
from batchbell.core.alarms import Patience
from batchbell.core.model import Mint
from batchbell.observability import Metrics
from batchbell.storage import alarms
from batchbell.storage.engine import ALARMS, Store
from batchbell.storage.outbox import Rung

log = structlog.get_logger("batchbell.lookout")

STEP = 500
"""Batches that one transaction looks at."""
LEAST_SECONDS = 1.0
MOST_SECONDS = 15.0
"""The longest rest: the time may have been changed by another process."""


class Lookout:
    """See the module."""

    name = "lookout"

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float],
        mint: Mint,
        metrics: Metrics,
        patience: Patience,
    ) -> None:
        self.signal = store.signal(ALARMS)
        self._store = store
        self._clock = clock
        self._mint = mint
        self._metrics = metrics
        self._patience = patience

    async def step(self) -> bool:
        """Look at the batches that are due for it; whether there may be more of them."""
        if await self._seconds_left() > 0:
            return False
        looked = await self._store.write(
            alarms.ring_due,
            patience=self._patience,
            limit=STEP,
            mint=self._mint,
            now=self._clock(),
        )
        for rung in looked.rung:
            self._report(rung)
        return looked.batches == STEP

    async def idle_seconds(self) -> float:
        return min(max(await self._seconds_left(), LEAST_SECONDS), MOST_SECONDS)

    async def close(self) -> None:
        """Nothing is ever under way between steps."""

    async def _seconds_left(self) -> float:
        now = self._clock()
        due = await self._store.read(alarms.next_look, now=now)
        return MOST_SECONDS if due is None else due - now

    def _report(self, rung: Rung) -> None:
        self._metrics.alarms.labels(rung.alarm.value).inc()
        log.warning(
            rules.EVENT_OF[rung.alarm].value,
            batch=rung.batch.id,
            account=rung.batch.account,
            cause=rung.alarm.value,
            reason=rules.reason(rung.alarm, rung.about),
        )
