"""Events: what happened, and who was to hear of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from batchbell.core.errors import InvalidRequest
from batchbell.core.model import EventType
from batchbell.storage import deliveries, events
from batchbell.web.dashboard import formats
from batchbell.web.dashboard.formats import path
from batchbell.web.dashboard.lists import (
    PAGE,
    Asked,
    check_word,
    paging,
    show_list,
    since,
    word_of,
)
from batchbell.web.dashboard.page import Posted, Visit, done, page_router, show

router = page_router()


DELIVERED = {"yes": True, "no": False}


class Which(Asked):
    """Which events a list holds."""

    type: str = ""
    batch_id: str = ""
    endpoint_id: str = ""
    delivered: str = ""
    hours: str = ""


@router.get("/events")
async def list_page(visitor: Visit, asked: Annotated[Which, Query()]) -> Response:
    check_word(DELIVERED, asked.delivered, "delivered")
    page = await visitor.call.page(
        events.list_events,
        limit=PAGE,
        after=asked.after or None,
        type=word_of(EventType, asked.type, "type"),
        batch_id=asked.batch_id.strip() or None,
        endpoint_id=asked.endpoint_id.strip() or None,
        delivery_success=DELIVERED.get(asked.delivered),
        since=since(asked.hours, visitor.now),
    )
    return show_list(visitor, "events", page, asked, types=list(EventType))


@router.get("/events/{event_id}")
async def event_page(visitor: Visit, event_id: str, asked: Annotated[Asked, Query()]) -> Response:
    store = visitor.call.context.store
    found = await store.read(events.get_event, visitor.project.id, event_id)
    page = await visitor.call.page(
        deliveries.list_deliveries, limit=PAGE, after=asked.after or None, event_id=event_id
    )
    return show(
        visitor,
        "event.html",
        section="events",
        title=f"Event {found.id}",
        one=found,
        rows=page.items,
        **paging(page, asked),
    )


@router.post("/events/{event_id}")
async def act(visitor: Visit, form: Posted, event_id: str) -> Response:
    if form.need("action") != "resend":
        raise InvalidRequest("There is no such action.", param="action")
    sent = await visitor.call.context.store.write(
        deliveries.resend, visitor.project.id, event_id, now=visitor.now
    )
    return done(f"/dashboard/events/{path(event_id)}", f"Due now: {formats.deliveries(len(sent))}.")
