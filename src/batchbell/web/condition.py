"""How the server is doing: whether it may be sent requests, and what a scrape sees."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from batchbell.core import place
from batchbell.core.errors import StoreError, StoreMoved, StoreUnavailable
from batchbell.core.model import AccountState, DeliveryState, Status
from batchbell.storage import alarms, batches, deliveries, migrating, outages
from batchbell.web.backlog import read_backlog
from batchbell.web.context import Context
from batchbell.web.remembering import Remembered

READY_KEPT_SECONDS = 1.0
GAUGES_KEPT_SECONDS = 5.0
DATABASE_TIMEOUT_SECONDS = 5.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Readiness:
    """Why requests should go elsewhere, and what does not get on, whoever is asked."""

    reasons: list[str]
    warnings: list[str]


class Condition:
    """Asked by probes and scrapes as often as they like; the database is asked seldom."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._database = Remembered(
            self._ask_database, seconds=READY_KEPT_SECONDS, clock=context.clock
        )
        self._warnings = Remembered(
            self._ask_backlog, seconds=GAUGES_KEPT_SECONDS, clock=context.clock
        )
        self._gauges = Remembered(
            self._set_gauges, seconds=GAUGES_KEPT_SECONDS, clock=context.clock
        )

    async def readiness(self) -> Readiness:
        """Whether requests should come here, and what does not get on in any process."""
        trouble = await self._database.get()
        dead = [name for name, alive in self._context.workers_alive().items() if not alive]
        reasons = [f"The {name} has shown no life lately." for name in dead]
        if trouble:
            return Readiness([trouble, *reasons], [])
        return Readiness(reasons, await self._known_warnings())

    async def _known_warnings(self) -> list[str]:
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT_SECONDS):
                return await self._warnings.get()
        except (StoreError, TimeoutError) as error:
            log.warning("database.unreachable", error=str(error))
            return []

    async def _ask_backlog(self) -> list[str]:
        context = self._context
        return (await read_backlog(context.store, now=context.clock())).warnings()

    async def _ask_database(self) -> str:
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT_SECONDS):
                await self._context.store.read(migrating.check)
        except StoreMoved as error:
            log.error("database.moved", error=str(error))  # noqa: TRY400 - no bug of ours
            return "The database file was deleted, moved or replaced while it was in use."
        except (StoreUnavailable, TimeoutError) as error:
            # Where the database is and why it fails is for the log: anybody may ask this.
            log.warning("database.unreachable", error=str(error))
            return "The database does not answer."
        except StoreError as error:
            return str(error)
        return "The disk of the database is full." if self._context.store.is_full else ""

    async def refresh_gauges(self) -> None:
        """Bring the gauges that are read from the database up to date, if it answers."""
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT_SECONDS):
                await self._gauges.get()
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("database.unreachable", error=str(error))

    async def _set_gauges(self) -> None:
        store, metrics, now = self._context.store, self._context.metrics, self._context.clock()
        backlog = await read_backlog(store, now=now)
        metrics.oldest_past_due.set(backlog.deliveries)
        metrics.results_past_due.set(backlog.results)
        metrics.submissions_past_due.set(backlog.submissions)
        metrics.results_places.set(len(place.in_use(backlog.places, now=now)))
        metrics.sweep_age.clear()
        for label, age in backlog.sweep_ages.items():
            metrics.sweep_age.labels(label).set(age)
        waiting = await store.read(deliveries.count_by_state)
        for state in (DeliveryState.PENDING, DeliveryState.HELD):
            metrics.deliveries.labels(state=state.value).set(waiting.get(state, 0))
        metrics.deliveries_parked.set(await store.read(outages.count_parked, now=now))
        known = await store.read(outages.count_endpoints)
        for word in outages.ENDPOINT_WORDS:
            metrics.endpoints.labels(state=word).set(known.get(word, 0))
        metrics.account_failing.clear()
        for account in backlog.accounts:
            failing = account.state is AccountState.FAILING
            metrics.account_failing.labels(account.label).set(failing)
        for cause, count in (await store.read(alarms.count_stalled, now=now)).items():
            metrics.stalled_batches.labels(cause=cause.value).set(count)
        watched = await store.read(batches.count_by_status)
        for status in Status:
            if not status.ended:
                metrics.open_batches.labels(status=status.value).set(watched.get(status, 0))
