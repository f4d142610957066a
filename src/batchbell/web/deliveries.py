"""Deliveries: what was sent to whom, and what came of each try."""

from __future__ import annotations

from starlette.responses import Response

from batchbell.core.model import DeliveryState
from batchbell.storage import deliveries
from batchbell.web import describing, shapes
from batchbell.web.call import Caller, answer, page_answer
from batchbell.web.openapi import answers
from batchbell.web.parameters import LIMIT_DEFAULT, After, Limit, strict_router

DAY_SECONDS = 86400.0

router = strict_router("deliveries")


@router.get(
    "/v1/deliveries",
    summary="List deliveries, newest first",
    **answers(shapes.Page[shapes.Delivery], 404),
)
async def list_deliveries(
    call: Caller,
    limit: Limit = LIMIT_DEFAULT,
    after: After = None,
    state: DeliveryState | None = None,
    event_id: str | None = None,
) -> Response:
    page = await call.page(
        deliveries.list_deliveries,
        limit=limit,
        after=after,
        state=state,
        event_id=event_id,
    )
    now = call.context.clock()
    data = [describing.delivery(d, now=now) for d in page.items]
    return page_answer(page, data, [d.id for d in page.items])


@router.get(
    "/v1/deliveries/{delivery_id}",
    summary="One delivery with its attempts",
    **answers(shapes.Delivery, 404),
)
async def get_delivery(call: Caller, delivery_id: str) -> Response:
    context = call.context
    found = await context.store.read(deliveries.get_delivery, call.project_id, delivery_id)
    kept_since = context.clock() - context.settings.attempt_retention_days * DAY_SECONDS
    attempts = await context.store.read(deliveries.list_attempts, found, kept_since=kept_since)
    return answer(describing.delivery(found, attempts, now=context.clock()))
