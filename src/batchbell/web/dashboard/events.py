"""Events: what happened, and who was to hear of it."""

from __future__ import annotations

from starlette.responses import Response

from batchbell.core.errors import InvalidRequest
from batchbell.core.model import EventType
from batchbell.storage import deliveries, events
from batchbell.web.dashboard.filters import older, word_of
from batchbell.web.dashboard.formats import path
from batchbell.web.dashboard.page import Posted, Visit, done, page_router, show

router = page_router()

PAGE = 50
DELIVERIES_MOST = 100


@router.get("/events")
async def list_page(
    visitor: Visit, type: str = "", batch_id: str = "", after: str | None = None
) -> Response:
    filters = {"type": type, "batch_id": batch_id.strip()}
    page = await visitor.call.page(
        events.list_events,
        limit=PAGE,
        after=after or None,
        type=word_of(EventType, type),
        batch_id=filters["batch_id"] or None,
    )
    return show(
        visitor,
        "events.html",
        section="events",
        title="Events",
        rows=page.items,
        filters=filters,
        types=list(EventType),
        older=older(page, filters),
        is_first=after is None,
    )


@router.get("/events/{event_id}")
async def event_page(visitor: Visit, event_id: str, after: str | None = None) -> Response:
    store = visitor.call.context.store
    found = await store.read(events.get_event, visitor.project.id, event_id)
    page = await visitor.call.page(
        deliveries.list_deliveries, limit=DELIVERIES_MOST, after=after or None, event_id=event_id
    )
    return show(
        visitor,
        "event.html",
        section="events",
        title=f"Event {found.id}",
        one=found,
        rows=page.items,
        older=older(page, {}),
        is_first=after is None,
    )


@router.post("/events/{event_id}")
async def act(visitor: Visit, form: Posted, event_id: str) -> Response:
    if form.need("action") != "resend":
        raise InvalidRequest("There is no such action.", param="action")
    sent = await visitor.call.context.store.write(
        deliveries.resend, visitor.project.id, event_id, now=visitor.now
    )
    return done(f"/dashboard/events/{path(event_id)}", f"{len(sent):,} deliveries are due now.")
