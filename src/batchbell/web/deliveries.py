"""Deliveries: what was sent to whom, and what came of each try."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from batchbell.api import deliveries as api
from batchbell.api.answers import made_of, whole
from batchbell.api.fields import BatchId, Identity
from batchbell.api.lists import Page
from batchbell.core import delivery
from batchbell.core.model import Attempt, Delivery, DeliveryState, EventType
from batchbell.storage import deliveries
from batchbell.web.call import Caller, answer, page_answer
from batchbell.web.openapi import answers
from batchbell.web.parameters import LIMIT_DEFAULT, After, Limit, Since, Until, strict_router

DAY_SECONDS = 86400.0

UNKNOWN_OUTCOME = (
    "The process was stopped while this call was under way: whether the receiver got it is not"
    " known. It was sent again with the same webhook-id."
)


def shown(
    found: Delivery, attempts: Sequence[Attempt] | None = None, *, now: float
) -> api.Delivery:
    in_flight = found.lease_token is not None
    return made_of(
        api.Delivery,
        found,
        webhook_id=found.message_id or found.event_id,
        in_flight=in_flight,
        attempt_count=found.attempts,
        next_attempt_at=None if in_flight else whole(found.due_at),
        reason=delivery.reason(found, now),
        attempts=None if attempts is None else tuple(map(shown_attempt, attempts)),
        attempts_deleted=(None if attempts is None else found.attempts - in_flight - len(attempts)),
    )


NOT_KNOWN = dict.fromkeys(
    (
        "status",
        "fault",
        "detail",
        "location",
        "remote_address",
        "response_body",
        "started_at",
        "duration_ms",
        "timings",
    )
)


def shown_attempt(found: Attempt) -> api.Attempt:
    """One try; where a crash hid what came of it, `result` is `unknown`."""
    outcome = found.outcome
    if outcome is None:
        return made_of(
            api.Attempt,
            found,
            result="unknown",
            explanation=UNKNOWN_OUTCOME,
            request_headers={},
            response_headers={},
            **NOT_KNOWN,
        )
    return made_of(
        api.Attempt,
        found,
        outcome,
        result="delivered" if outcome.success else "failed",
        explanation=None,
        timings=made_of(api.Timings, outcome.timings),
    )


router = strict_router("deliveries")


@router.get(
    "/v1/deliveries",
    summary="List deliveries, newest first",
    **answers(Page[api.Delivery], 404),
)
async def list_deliveries(
    call: Caller,
    *,
    limit: Limit = LIMIT_DEFAULT,
    after: After = None,
    state: DeliveryState | None = None,
    event_id: Identity | None = None,
    batch_id: BatchId | None = None,
    endpoint_id: Identity | None = None,
    type: EventType | None = None,
    since: Since = None,
    until: Until = None,
) -> Response:
    page = await call.page(
        deliveries.list_deliveries,
        limit=limit,
        after=after,
        state=state,
        event_id=event_id,
        batch_id=batch_id,
        endpoint_id=endpoint_id,
        type=type,
        since=since,
        until=until,
    )
    now = call.context.clock()
    data = [shown(d, now=now) for d in page.items]
    return page_answer(data, page)


@router.get(
    "/v1/deliveries/{delivery_id}",
    summary="One delivery with its attempts",
    **answers(api.Delivery, 404),
)
async def get_delivery(call: Caller, delivery_id: str) -> Response:
    context = call.context
    found = await context.store.read(deliveries.get_delivery, call.project_id, delivery_id)
    kept_since = context.clock() - context.settings.attempt_retention_days * DAY_SECONDS
    attempts = await context.store.read(deliveries.list_attempts, found, kept_since=kept_since)
    return answer(shown(found, attempts, now=context.clock()))
