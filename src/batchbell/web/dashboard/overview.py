"""The first page: what runs, what is late, what failed, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.responses import RedirectResponse, Response

from batchbell.core.model import Batch, Delivery, DeliveryState, Status
from batchbell.storage import accounts, deliveries, endpoints, overview
from batchbell.storage.batch_lists import BatchFilter, list_batches
from batchbell.storage.overview import period_until
from batchbell.web.auth import DASHBOARD
from batchbell.web.cache import Remembered
from batchbell.web.call import Context
from batchbell.web.dashboard.batches import shown
from batchbell.web.dashboard.charts import Chart, chart
from batchbell.web.dashboard.lists import check_word
from batchbell.web.dashboard.page import Visit, Visitor, page_router, show

router = page_router()

HOUR, DAY = 3600.0, 86400.0
PERIODS: Mapping[str, tuple[float, int]] = {"24h": (HOUR, 24), "7d": (6 * HOUR, 28)}
"""By word: how long a step is, and how many there are."""
SHOWN, SHOWN_MOST = 5, 100
"""Of what needs a look, of each kind: at first, and for whoever wants to see more."""
ENDS = {
    "completed": "good",
    "failed": "bad",
    "expired": "warn",
    "cancelled": "calm",
    "lost": "worse",
}
STATES = {"delivered": "good", "pending": "busy", "held": "warn", "exhausted": "bad"}


CHARTS_KEPT_SECONDS = 20.0
CHARTS_KEPT_MAX = 200


@dataclass(frozen=True, slots=True)
class Charts:
    batches: Chart
    deliveries: Chart


class Glance:
    """The charts of projects, drawn once in some seconds however many look at them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[tuple[str, str], Remembered[Charts]] = {}

    async def charts(self, project_id: str, word: str) -> Charts:
        """Those over one of the PERIODS."""
        name = (project_id, word)
        if name not in self._known and len(self._known) >= CHARTS_KEPT_MAX:
            self._known.clear()
        known = self._known.setdefault(
            name,
            Remembered(
                lambda: self._draw(project_id, word),
                seconds=CHARTS_KEPT_SECONDS,
                clock=self._context.clock,
            ),
        )
        return await known.get()

    async def _draw(self, project_id: str, word: str) -> Charts:
        step_seconds, steps = PERIODS[word]
        within = period_until(self._context.clock(), step_seconds=step_seconds, steps=steps)
        ended = await self._context.store.read(overview.ended, project_id, within)
        made = await self._context.store.read(overview.made, project_id, within)
        return Charts(
            batches=chart("Batches that ended", within, ended, ENDS),
            deliveries=chart("Deliveries", within, made, STATES),
        )


@router.get("/")
async def without_slash() -> Response:
    return RedirectResponse(DASHBOARD, 303)


@router.get("")
async def page(visitor: Visit, period: str = "24h", more: str = "") -> Response:
    check_word(PERIODS, period, "period")
    store, project_id, now = visitor.call.context.store, visitor.project.id, visitor.now
    settings = visitor.call.context.settings
    limit = SHOWN_MOST if more else SHOWN
    soon = {"now": now, "soon_seconds": settings.expiring_soon_seconds}
    running = await store.read(overview.running, project_id, **soon)
    late: list[Batch] = []
    if running.ending_soon or running.stalled:
        late = await store.read(overview.late, project_id, limit=limit, **soon)
    bad = await store.read(overview.ended_badly, project_id, since=now - DAY)
    known = await store.read(accounts.list_accounts, project_id)
    unwell = await store.read(endpoints.list_unwell, project_id, limit=limit, now=now)
    failed, exhausted = await _failed(visitor, limit), await _exhausted(visitor, limit)
    return show(
        visitor,
        "overview.html",
        section="overview",
        title="Overview",
        running=running,
        bad=bad,
        waiting=await store.read(overview.waiting, project_id, now=now),
        lag=await store.read(overview.lag, project_id, since=now - DAY),
        accounts=known,
        charts=await visitor.call.surface.glance.charts(project_id, period),
        period=period,
        periods=list(PERIODS),
        endpoints=unwell,
        late=[shown(visitor, one) for one in late],
        failed=failed,
        exhausted=exhausted,
        has_more=any(len(some) == limit for some in (unwell, late, failed, exhausted)),
        shows_more=bool(more),
        warnings=await _warnings(visitor),
        is_new=await _is_new(visitor),
    )


async def of_endpoint(visitor: Visitor, endpoint_id: str) -> Chart:
    """What became of the deliveries to an endpoint in the last 24 hours."""
    step_seconds, steps = PERIODS["24h"]
    within = period_until(visitor.now, step_seconds=step_seconds, steps=steps)
    made = await visitor.call.context.store.read(
        overview.made, visitor.project.id, within, endpoint_id=endpoint_id
    )
    return chart("Deliveries in 24 hours", within, made, STATES)


async def _failed(visitor: Visitor, limit: int) -> list[Batch]:
    """Batches of the last day that ended badly, the last one first."""
    store, since = visitor.call.context.store, visitor.now - DAY
    found: list[Batch] = []
    for status in (Status.FAILED, Status.EXPIRED, Status.LOST):
        filter = BatchFilter(status=status, ended_since=since)
        page = await store.read(list_batches, visitor.project.id, limit=limit, filter=filter)
        found += page.items
    return sorted(found, key=lambda one: one.ended_at or 0.0, reverse=True)[:limit]


async def _exhausted(visitor: Visitor, limit: int) -> list[Delivery]:
    """The last deliveries that were given up."""
    page = await visitor.call.context.store.read(
        deliveries.list_deliveries,
        visitor.project.id,
        limit=limit,
        state=DeliveryState.EXHAUSTED,
    )
    return [one for one in page.items if (one.finished_at or 0.0) >= visitor.now - 7 * DAY]


async def _warnings(visitor: Visitor) -> list[str]:
    """What does not get on in any process."""
    found = await visitor.call.surface.condition.readiness()
    return [*found.reasons, *found.warnings]


async def _is_new(visitor: Visitor) -> bool:
    """Whether nothing was ever registered."""
    page = await visitor.call.context.store.read(list_batches, visitor.project.id, limit=1)
    return not page.items
