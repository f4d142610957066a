"""Probes and metrics: whether the server is ready, and what should have been done and was not.

No figure here needs a live worker to be true.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, RedirectResponse, Response

from batchbell import __version__
from batchbell.api import health as api
from batchbell.core import place, polling
from batchbell.core import place as rules
from batchbell.core.errors import StoreError, StoreMoved, StoreUnavailable
from batchbell.core.model import Account, AccountState, DeliveryState, Status
from batchbell.core.notices import UNREACHABLE_FAILURES
from batchbell.core.place import Place
from batchbell.storage import (
    accounts,
    alarms,
    batches,
    health,
    merges,
    opening,
    parts,
    places,
    queue,
)
from batchbell.storage.engine import Store
from batchbell.web import docs_page
from batchbell.web.auth import DASHBOARD
from batchbell.web.cache import Remembered
from batchbell.web.call import Caller, Context, Operator, answer
from batchbell.web.openapi import document, json_content, open_answers, text_answers
from batchbell.web.parameters import strict_router

LATE_SECONDS = 120.0
"""What is due for longer is worth a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """All accounts, and for how many seconds the oldest work of each kind has been due."""

    at: float
    accounts: Sequence[Account]
    deliveries: float
    results: float
    submissions: float
    places: Sequence[Place]
    """Where processes keep results."""

    @property
    def sweep_ages(self) -> dict[str, float]:
        """Seconds since the last good sweep, by account; paused ones are left out."""
        ages = {one.label: polling.sweep_age(one, self.at) for one in self.accounts}
        return {label: age for label, age in ages.items() if age is not None}

    def warnings(self) -> list[str]:
        """What does not get on, in sentences that name nobody: everybody may ask."""
        unswept = sum(polling.unswept(one, self.at) is not None for one in self.accounts)
        failing = sum(one.failures >= UNREACHABLE_FAILURES for one in self.accounts)
        found = {
            f"{_accounts(unswept)} not swept, though it is time: is a worker running?": unswept,
            f"Sweeps of {failing} account{'s' * (failing > 1)} fail.": failing,
            f"A webhook has been due for {self.deliveries:.0f} s.": self.deliveries > LATE_SECONDS,
            f"Results have been due to be merged for {self.results:.0f} s.": self.results
            > LATE_SECONDS,
            f"A submission has been due for {self.submissions:.0f} s.": self.submissions
            > LATE_SECONDS,
        }
        apart = rules.apart(self.places, now=self.at)
        said = [sentence for sentence, is_so in found.items() if is_so]
        return said if apart is None else [*said, apart]


def _accounts(number: int) -> str:
    return "1 account is" if number == 1 else f"{number} accounts are"


async def read_backlog(store: Store, *, now: float) -> Backlog:
    """Raises StoreUnavailable."""

    def late(due: float | None) -> float:
        return 0.0 if due is None else max(0.0, now - due)

    return Backlog(
        at=now,
        accounts=await store.read(accounts.list_accounts),
        deliveries=late(await store.read(queue.oldest_past_due, now=now)),
        results=late(await store.read(merges.next_due)),
        submissions=late(await store.read(parts.next_due)),
        places=await store.read(places.list_places),
    )


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
        failure = await self._database.get()
        dead = [name for name, alive in self._context.workers_alive().items() if not alive]
        reasons = [f"The {name} has shown no life lately." for name in dead]
        if failure:
            return Readiness([failure, *reasons], [])
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
                await self._context.store.read(opening.check)
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
        waiting = await store.read(queue.count_by_state)
        for state in (DeliveryState.PENDING, DeliveryState.HELD):
            metrics.deliveries.labels(state=state.value).set(waiting.get(state, 0))
        metrics.deliveries_parked.set(await store.read(health.count_parked, now=now))
        known = await store.read(health.count_endpoints)
        for word in health.ENDPOINT_WORDS:
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


router = strict_router("operation")

NOT_READY: dict[int, Any] = {
    503: {"description": "Not now; `reasons` says why.", "content": json_content(api.Readiness)}
}


@router.get(
    "/", summary="What this is; a browser is sent on to the dashboard", **open_answers(api.Index)
)
async def index(request: Request) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(DASHBOARD, 303, headers={"Vary": "Accept"})
    made = api.Index(name="batchbell", version=__version__, docs="/docs", openapi="/openapi.json")
    return answer(made, headers={"Vary": "Accept"})


@router.get("/healthz", summary="Whether the process lives", **open_answers(api.Health))
async def healthz() -> Response:
    return answer(api.Health(status="ok"))


@router.get(
    "/readyz",
    summary="Whether the database answers, its schema is current, and the workers live",
    **open_answers(api.Readiness, NOT_READY),
)
async def readyz(call: Caller) -> Response:
    found = await call.surface.condition.readiness()
    ready = api.Readiness(
        status="not_ready" if found.reasons else "ready",
        reasons=tuple(found.reasons),
        warnings=tuple(found.warnings),
    )
    return answer(ready, 503 if found.reasons else 200)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus, of all projects: for keys of `default` only",
    **text_answers("text/plain", 404),
)
async def metrics(call: Operator) -> Response:
    await call.surface.condition.refresh_gauges()
    text = generate_latest(call.context.metrics.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    return docs_page.page()


@router.get("/docs/{name}", include_in_schema=False)
def docs_asset(name: str) -> Response:
    return docs_page.asset(name)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    return JSONResponse(document(request.app))
