"""Deliveries: what was sent to whom, as it was sent, and what came back."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from batchbell.core import delivery as rules
from batchbell.core import payload
from batchbell.core.attachment import wrapped
from batchbell.core.errors import InvalidRequest
from batchbell.core.model import Attempt, Delivery, DeliveryState, EventType
from batchbell.storage import deliveries
from batchbell.web.dashboard.formats import path
from batchbell.web.dashboard.lists import PAGE, Asked, show_list, since, word_of
from batchbell.web.dashboard.page import Posted, Visit, Visitor, done, page_router, show
from batchbell.web.deliveries import UNKNOWN_OUTCOME

router = page_router()

DAY_SECONDS = 86_400.0


class Which(Asked):
    """Which deliveries a list holds."""

    state: str = ""
    type: str = ""
    batch_id: str = ""
    endpoint_id: str = ""
    hours: str = ""


@router.get("/deliveries")
async def list_page(visitor: Visit, asked: Annotated[Which, Query()]) -> Response:
    page = await visitor.call.page(
        deliveries.list_deliveries,
        limit=PAGE,
        after=asked.after or None,
        state=word_of(DeliveryState, asked.state, "state"),
        type=word_of(EventType, asked.type, "type"),
        batch_id=asked.batch_id.strip() or None,
        endpoint_id=asked.endpoint_id.strip() or None,
        since=since(asked.hours, visitor.now),
    )
    rows = [(one, rules.reason(one, visitor.now)) for one in page.items]
    choices = {"states": list(DeliveryState), "types": list(EventType)}
    return show_list(visitor, "deliveries", page, asked, rows=rows, **choices)


ATTEMPTS_MOST = 50
"""Shown of one delivery, the last ones."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One attempt, and what repeats it by hand once the quoted body stands behind it."""

    attempt: Attempt
    curl: str


@router.get("/deliveries/{delivery_id}")
async def delivery_page(visitor: Visit, delivery_id: str) -> Response:
    store = visitor.call.context.store
    found = await store.read(deliveries.get_delivery, visitor.project.id, delivery_id)
    body = await body_of(visitor, found)
    attempts = await attempts_of(visitor, found)
    return show(
        visitor,
        "delivery.html",
        section="deliveries",
        title=f"Delivery {found.id}",
        one=found,
        reason=rules.reason(found, visitor.now),
        body=body,
        quoted=shlex.quote(body),
        sent=[Sent(one, _curl(found, one)) for one in attempts[:ATTEMPTS_MOST]],
        left_out=len(attempts[ATTEMPTS_MOST:]),
        unknown=UNKNOWN_OUTCOME,
    )


async def attempts_of(visitor: Visitor, found: Delivery) -> Sequence[Attempt]:
    """Those that are kept, the last one first."""
    context = visitor.call.context
    since = visitor.now - context.settings.attempt_retention_days * DAY_SECONDS
    attempts = await context.store.read(deliveries.list_attempts, found, kept_since=since)
    return attempts[::-1]


async def body_of(visitor: Visitor, found: Delivery) -> str:
    """The body that is sent, made of what is there now."""
    context = visitor.call.context
    content = await context.store.read(deliveries.get_content, found)
    body = payload.dressed(
        content.event_body,
        dialect=content.dialect,
        watch_id=found.watch_id,
        watch_metadata=content.watch_metadata,
        message_id=found.message_id,
        results=wrapped(
            content.attachment,
            found.results,
            base_url=context.settings.link_url,
            now=content.first_due_at,
        ),
        attachment=content.attachment,
    )
    return body.decode()


def _curl(found: Delivery, attempt: Attempt) -> str:
    headers = attempt.outcome.request_headers if attempt.outcome else {}
    lines = [f"curl {shlex.quote(found.url)}"]
    lines += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items()]
    lines.append("--data-binary ")
    return " \\\n  ".join(lines)


@router.post("/deliveries/{delivery_id}")
async def act(visitor: Visit, form: Posted, delivery_id: str) -> Response:
    if form.need("action") != "resend":
        raise InvalidRequest("There is no such action.", param="action")
    store = visitor.call.context.store
    found = await store.read(deliveries.get_delivery, visitor.project.id, delivery_id)
    await store.write(
        deliveries.resend,
        visitor.project.id,
        found.event_id,
        endpoint_id=found.endpoint_id,
        now=visitor.now,
    )
    return done(f"/dashboard/deliveries/{path(delivery_id)}", "It is due now.")
