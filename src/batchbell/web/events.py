"""Events: what happened to batches, and sending it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import Query, Request
from starlette.responses import Response

from batchbell.api import events as api
from batchbell.api.deliveries import Delivery
from batchbell.api.events import ResendRequest, TestEventRequest
from batchbell.api.fields import BatchId, Identity
from batchbell.api.lists import Page
from batchbell.core import model as core
from batchbell.core.model import DeliveryState, Event, EventType
from batchbell.storage import deliveries, events
from batchbell.web.bodies import read, read_json
from batchbell.web.call import Caller, answer, page_answer
from batchbell.web.deliveries import shown as shown_delivery
from batchbell.web.openapi import answers, takes
from batchbell.web.parameters import LIMIT_DEFAULT, After, Limit, Since, Until, strict_router

router = strict_router("events")

DELIVERIES_COUNTED = 1000

Kind = Annotated[EventType | None, Query(description="Only events of this type.")]
Endpoint = Annotated[
    Identity | None,
    Query(
        description="Only those that this endpoint was to hear of, in the order of its deliveries:"
        " these count for `delivery_success`, `since` and `until`."
    ),
]
Success = Annotated[
    bool | None,
    Query(description="`false`: some delivery is not delivered; `true`: all of them are."),
]


def shown(found: Event, made: Sequence[core.Delivery] | None = None) -> api.Event:
    """The body as it is sent, and our own fields after it."""
    body: dict[str, Any] = msgspec.json.decode(found.body)
    return api.Event(
        **{name: body[name] for name in ("id", "type", "created_at", "timestamp", "data")},
        recorded_at=int(found.recorded_at),
        deliveries=None if made is None else _counts(made),
    )


def _counts(made: Sequence[core.Delivery]) -> api.DeliveryCounts:
    counts = Counter(delivery.state for delivery in made)
    return api.DeliveryCounts(**{state.value: counts[state] for state in DeliveryState})


@router.get("/v1/events", summary="List events, newest first", **answers(Page[api.Event], 404))
async def list_events(
    call: Caller,
    *,
    limit: Limit = LIMIT_DEFAULT,
    after: After = None,
    type: Kind = None,
    batch_id: BatchId | None = None,
    endpoint_id: Endpoint = None,
    delivery_success: Success = None,
    since: Since = None,
    until: Until = None,
) -> Response:
    page = await call.page(
        events.list_events,
        limit=limit,
        after=after,
        type=type,
        batch_id=batch_id,
        endpoint_id=endpoint_id,
        delivery_success=delivery_success,
        since=since,
        until=until,
    )
    return page_answer([shown(e) for e in page.items], page)


@router.post(
    "/v1/events",
    summary="Record a test event, for those who follow the stream",
    openapi_extra=takes(TestEventRequest, required=False),
    **answers(api.Event, 413, status=201, says="The event. No endpoint receives it."),
)
async def record_test_event(call: Caller, request: Request) -> Response:
    context = call.context
    wanted = read(TestEventRequest, await read_json(request, optional=True))
    type_ = wanted.type or EventType.COMPLETED
    id = await context.store.write(
        events.record_test, call.project_id, type_, mint=context.mint, now=context.clock()
    )
    return answer(shown(await context.store.read(events.get_event, call.project_id, id)), 201)


@router.get("/v1/events/{event_id}", summary="One event", **answers(api.Event, 404))
async def get_event(call: Caller, event_id: str) -> Response:
    store = call.context.store
    found = await store.read(events.get_event, call.project_id, event_id)
    made = await store.read(
        deliveries.list_deliveries, call.project_id, limit=DELIVERIES_COUNTED, event_id=event_id
    )
    return answer(shown(found, made.items))


@router.post(
    "/v1/events/{event_id}/resend",
    summary="Deliver an event again, with the full schedule",
    openapi_extra=takes(ResendRequest, required=False),
    **answers(Page[Delivery], 404, 413, says="The deliveries, due now."),
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
    data = [shown_delivery(one, now=call.context.clock()) for one in found]
    return page_answer(data)
