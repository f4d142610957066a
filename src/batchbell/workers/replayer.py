"""The replayer: walks replays, a few deliveries at a time, as fast as each one's pace allows.

It only makes deliveries due; the dispatcher sends them like all others, so a replay can neither
pass an endpoint's slots nor keep another endpoint waiting.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from batchbell.core.errors import LeaseLost
from batchbell.core.model import Mint
from batchbell.core.replay import ReplayState
from batchbell.observability import Metrics
from batchbell.storage import replays
from batchbell.storage.engine import REPLAYS, Store
from batchbell.workers.loop import rest_seconds

log = structlog.get_logger("batchbell.replayer")

LEASE_SECONDS = 60.0


class Replayer:
    """See the module. However many processes run one, a replay is stepped by one at a time."""

    name = "replayer"

    def __init__(
        self, store: Store, *, clock: Callable[[], float], mint: Mint, metrics: Metrics
    ) -> None:
        self.signal = store.signal(REPLAYS)
        self._store = store
        self._clock = clock
        self._mint = mint
        self._metrics = metrics

    async def step(self) -> bool:
        """Take the replay that is due, and begin its next deliveries again."""
        due_at = await self._store.read(replays.next_due)
        if due_at is None or due_at > self._clock():
            return False
        replay = await self._store.write(
            replays.claim_due,
            now=self._clock(),
            lease_seconds=LEASE_SECONDS,
            token=self._mint("lease"),
        )
        if replay is None:
            return False
        try:
            after = await self._store.write(
                replays.step, replay, mint=self._mint, now=self._clock()
            )
        except LeaseLost:
            log.info("replay given up: cancelled, or another worker's", replay_id=replay.id)
            return True
        self._metrics.replayed.inc(after.done - replay.done)
        log_line = log.debug if after.state is ReplayState.RUNNING else log.info
        log_line(
            "replayed", replay_id=after.id, state=after.state, done=after.done, total=after.total
        )
        return True

    async def idle_seconds(self) -> float:
        return rest_seconds(await self._store.read(replays.next_due), now=self._clock())

    async def close(self) -> None:
        """Nothing is ever under way between steps."""
