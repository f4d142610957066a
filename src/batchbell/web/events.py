"""Events: what happened to batches, and sending it again."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request
from starlette.responses import Response

from batchbell.api.events import ResendRequest, TestEventRequest
from batchbell.core.model import EventType
from batchbell.storage import deliveries, events
from batchbell.storage.paging import Page
from batchbell.web import describing, shapes
from batchbell.web.bodies import read, read_json
from batchbell.web.call import Caller, answer, page_answer
from batchbell.web.openapi import answers, takes
from batchbell.web.parameters import LIMIT_DEFAULT, After, Limit, strict_router

router = strict_router("events")

DELIVERIES_COUNTED = 1000

Kind = Annotated[EventType | None, Query(description="Only events of this type.")]
Success = Annotated[
    bool | None,
    Query(description="`false`: some delivery is not delivered; `true`: all of them are."),
]


@router.get(
    "/v1/events", summary="List events, newest first", **answers(shapes.Page[shapes.Event], 404)
)
async def list_events(
    call: Caller,
    *,
    limit: Limit = LIMIT_DEFAULT,
    after: After = None,
    type: Kind = None,
    batch_id: str | None = None,
    delivery_success: Success = None,
) -> Response:
    page = await call.page(
        events.list_events,
        limit=limit,
        after=after,
        type=type,
        batch_id=batch_id,
        delivery_success=delivery_success,
    )
    return page_answer(page, [describing.event(e) for e in page.items], [e.id for e in page.items])


@router.post(
    "/v1/events",
    summary="Record a test event, for those who follow the stream",
    openapi_extra=takes(TestEventRequest, required=False),
    **answers(shapes.Event, 413, status=201, says="The event. No endpoint receives it."),
)
async def record_test_event(call: Caller, request: Request) -> Response:
    context = call.context
    wanted = read(TestEventRequest, await read_json(request, optional=True))
    type_ = wanted.type or EventType.COMPLETED
    id = await context.store.write(
        events.record_test, call.project_id, type_, mint=context.mint, now=context.clock()
    )
    return answer(
        describing.event(await context.store.read(events.get_event, call.project_id, id)), 201
    )


@router.get("/v1/events/{event_id}", summary="One event", **answers(shapes.Event, 404))
async def get_event(call: Caller, event_id: str) -> Response:
    store = call.context.store
    found = await store.read(events.get_event, call.project_id, event_id)
    told = await store.read(
        deliveries.list_deliveries, call.project_id, limit=DELIVERIES_COUNTED, event_id=event_id
    )
    return answer(describing.event(found, told.items))


@router.post(
    "/v1/events/{event_id}/resend",
    summary="Deliver an event again, with the full schedule",
    openapi_extra=takes(ResendRequest, required=False),
    **answers(shapes.Page[shapes.Delivery], 404, 413, says="The deliveries, due now."),
)
async def resend_event(call: Caller, event_id: str, request: Request) -> Response:
    wanted = read(ResendRequest, await read_json(request, optional=True))
    found = await call.context.store.write(
        deliveries.resend,
        call.project_id,
        event_id,
        endpoint_id=wanted.endpoint_id,
        now=call.context.clock(),
    )
    data = [describing.delivery(one, now=call.context.clock()) for one in found]
    return page_answer(Page(data, has_more=False), data, [one.id for one in data])
