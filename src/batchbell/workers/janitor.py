"""The janitor: forgets what is old, in bounded steps, and ends what outages have begun.

What waits for disabled endpoints is set aside, what waits for recovered ones pulled forward. It
also says aloud when deliveries are late, and sees to it that nothing waits for a time that was
written before the clock was set back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import structlog

from batchbell.core.errors import ResultsError
from batchbell.core.submission import REQUESTS_ENDING, part_of
from batchbell.files.results_store import ResultsStore
from batchbell.storage import (
    endpoints,
    health,
    hints,
    queue,
    replays,
    retention,
    submissions,
    uploads,
)
from batchbell.storage.clock import (
    START,
    Place,
    bring_back,
    bring_deliveries_back,
    is_set_back,
)
from batchbell.storage.engine import OUTAGES, Store

log = structlog.get_logger("batchbell.janitor")

FORGET_STEP = 200
"""Batches, or others, that one transaction deletes, so that no table is locked for long."""
ATTEMPTS_STEP = 1000
"""Attempts that one transaction looks at."""
ORPHAN_SECONDS = 7 * 86400.0
"""How old a file of requests must be that no submission knows of. Longer than nearly every
submission lasts, should another database use the same place, whose files look like that too."""
ORPHANS_STEP = 500
"""Files whose parts one query looks for."""
IDLE_SECONDS = 60.0
DAY_SECONDS = 86400.0
SET_BACK_SECONDS = 5.0
"""What clocks are set back by to keep them right is less."""
LATE_SECONDS = 60.0
"""A delivery that is past due for longer is worth a line in the log, once in as long."""


class Janitor:
    """See the module.

    `retention_days` counts from a batch's end, `attempt_retention_days` from each attempt. In
    `results_store` are files of requests.
    """

    name = "janitor"

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float],
        retention_days: float,
        attempt_retention_days: float,
        results_store: ResultsStore | None = None,
    ) -> None:
        self.signal = store.signal(OUTAGES)
        self._store = store
        self._clock = clock
        self._keep_seconds = retention_days * DAY_SECONDS
        self._keep_attempts_seconds = attempt_retention_days * DAY_SECONDS
        self._attempts_cursor = retention.START
        self._results_store = results_store
        self._orphans: AsyncIterator[list[str]] | None = None
        self._orphans_at: float | None = None
        self._looked_at: float | None = None
        self._seen: float | None = None
        self._set_back = False
        self._place: Place | None = None

    async def step(self) -> bool:
        now = self._clock()
        brought = await self._bring_back(now)
        held = await self._store.write(health.hold_back_disabled, now=now)
        deleted = await self._store.write(endpoints.forget_all_deleted, now=now)
        pulled = await self._store.write(health.pull_forward_recovered, now=now)
        forgotten = await self._forget(before=now - self._keep_seconds)
        forgotten["hints_forgotten"] = await self._store.write(
            hints.forget_old, before=now - hints.KEEP_SECONDS, limit=FORGET_STEP
        )
        forgotten["attempts_forgotten"] = await self._forget_attempts(now)
        forgotten["request_files_deleted"] = await self._delete_orphans(now)
        cleaned = {"held": held, "pulled_forward": pulled, "of_deleted_endpoints": deleted}
        cleaned |= forgotten | {"brought_back": brought}
        worked = any(cleaned.values()) or self._place is not None
        if worked:
            log.info("cleaned", **cleaned)
        await self._look_for_late_ones(now)
        return worked or self._orphans is not None

    async def _bring_back(self, now: float) -> int:
        """At the start, and when the clock was set back; in steps."""
        changed, seen, self._seen = 0, self._seen, now
        if seen is None or now < seen - SET_BACK_SECONDS:
            self._set_back = seen is not None or await self._store.read(is_set_back, now=now)
            if self._set_back:
                seconds = None if seen is None else round(seen - now)
                log.warning("clock.set_back", seconds=seconds)
            changed = await self._store.write(bring_back, set_back=self._set_back, now=now)
            self._place = START
        if self._place is not None:
            step = await self._store.write(
                bring_deliveries_back, after=self._place, set_back=self._set_back, now=now
            )
            changed += step.changed
            self._place = None if step.place == START else step.place
        return changed

    async def _forget(self, *, before: float) -> dict[str, int]:
        old = {
            "batches_forgotten": retention.forget_batches,
            "notices_forgotten": retention.forget_notices,
            "replays_forgotten": replays.forget_old,
            "uploads_forgotten": uploads.forget_old,
        }
        return {
            word: await self._store.write(forget, before=before, limit=FORGET_STEP)
            for word, forget in old.items()
        }

    async def _forget_attempts(self, now: float) -> int:
        aged = await self._store.write(
            retention.forget_attempts,
            before=now - self._keep_attempts_seconds,
            after=self._attempts_cursor,
            limit=ATTEMPTS_STEP,
        )
        self._attempts_cursor = aged.cursor
        return aged.deleted

    async def _delete_orphans(self, now: float) -> int:
        """Once a day: requests of submissions that never were, as whoever stored them died.

        A bucket may list for long, so each step looks at one page.
        """
        if self._results_store is None:
            return 0
        if self._orphans is None:
            if self._orphans_at is not None and abs(now - self._orphans_at) < DAY_SECONDS:
                return 0
            self._orphans_at, before = now, now - ORPHAN_SECONDS
            self._orphans = self._results_store.older(REQUESTS_ENDING, before=before)
        try:
            names = await anext(self._orphans, None)
            if names is not None:
                return await self._delete_unknown(self._results_store, names)
        except ResultsError as error:
            log.warning("request files not looked through", error=str(error))
        self._orphans = None
        return 0

    async def _delete_unknown(self, results_store: ResultsStore, names: Sequence[str]) -> int:
        deleted = 0
        for first in range(0, len(names), ORPHANS_STEP):
            by_id = {part_of(name): name for name in names[first : first + ORPHANS_STEP]}
            for id in await self._store.read(submissions.unknown_parts, list(by_id)):
                await results_store.delete(by_id[id])
                deleted += 1
        return deleted

    async def _look_for_late_ones(self, now: float) -> None:
        if self._looked_at is not None and abs(now - self._looked_at) < LATE_SECONDS:
            return
        self._looked_at = now
        since = await self._store.read(queue.oldest_past_due, now=now)
        if since is not None and now - since > LATE_SECONDS:
            log.warning("deliveries.late", oldest_past_due_seconds=round(now - since))

    async def idle_seconds(self) -> float:
        return IDLE_SECONDS

    async def close(self) -> None:
        """Nothing is ever under way between steps."""
