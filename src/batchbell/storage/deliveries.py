"""Deliveries and their attempts: read back, and sent again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Label,
    Row,
    Select,
    case,
    literal_column,
    select,
    text,
    update,
)

from batchbell.core import sent_headers
from batchbell.core.attachment import Attachment, ResultsMode
from batchbell.core.errors import InvalidRequest, NotFound
from batchbell.core.model import (
    Attempt,
    Delivery,
    DeliveryState,
    Dialect,
    EndpointState,
    EventType,
    Fault,
    Gate,
    Outcome,
)
from batchbell.core.outcome import Timings
from batchbell.storage.bulk import among
from batchbell.storage.endpoints import enable
from batchbell.storage.engine import DELIVERIES, wake
from batchbell.storage.events import LOOKED_AT_MOST, get_event, ids_of, walks_of
from batchbell.storage.leases import due_next
from batchbell.storage.paging import Page, Walk, apart, first_of, made_within, page_of
from batchbell.storage.results import with_lines
from batchbell.storage.schema import attempts, batches, deliveries, endpoints, events


def get_delivery(connection: Connection, project_id: str, delivery_id: str) -> Delivery:
    """One delivery of the project. Raises NotFound."""
    query = _joined().where(deliveries.c.project_id == project_id, deliveries.c.id == delivery_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("delivery", delivery_id)
    return _delivery(row)


def list_deliveries(
    connection: Connection,
    project_id: str,
    *,
    limit: int,
    after: str | None = None,
    state: DeliveryState | None = None,
    event_id: str | None = None,
    batch_id: str | None = None,
    endpoint_id: str | None = None,
    type: EventType | None = None,
    since: float | None = None,
    until: float | None = None,
) -> Page[Delivery]:
    """The project's deliveries, newest first; those that were made `since` a time, `until` another.

    Those of an event or a batch are read whole, by `uq_deliveries_event_id`, and chosen from: they
    are few. All else is a walk in the order of ids for each type and state that may be meant, by
    the index of such deliveries, and without any of the three by `ix_deliveries_listed`. Each walk
    ends with the page. Two pass over others: those that are delivered are found among all, and
    those of a type that wait for one endpoint among all that wait for it.
    """
    made = list(made_within(deliveries.c.id, "dlv", since, until))
    if after is not None:
        made.append(deliveries.c.id < get_delivery(connection, project_id, after).id)
    if event_id is not None or batch_id is not None:
        events_ = ids_of(connection, project_id, event_id=event_id, batch_id=batch_id)
        asked = {"state": state, "endpoint_id": endpoint_id, "event_type": type}
        walks = [Walk(_of_events(connection, events_, asked, made))]
    elif endpoint_id is not None or type is not None or state is not None:
        states = list(DeliveryState) if state is None else [state]
        walks = walks_of(
            connection, project_id, endpoint_id=endpoint_id, type=type, states=states, made=made
        )
    else:
        own = deliveries.c.project_id == project_id
        walks = [Walk(select(deliveries.c.id).where(own, *made))]
    return _page(connection, walks, limit)


def of_key(connection: Connection, batch_key: int, *, limit: int) -> Page[Delivery]:
    """The deliveries of all events of one batch, newest first."""
    about = select(events.c.id).where(events.c.batch_key == batch_key)
    found = select(deliveries.c.id).where(deliveries.c.event_id.in_(about))
    return _page(connection, [Walk(apart(found))], limit)


def _page(connection: Connection, walks: Sequence[Walk], limit: int) -> Page[Delivery]:
    ids, end = first_of(connection, walks, ["id"], limit + 1, looked_at_most=LOOKED_AT_MOST)
    query = _joined().where(among(connection, deliveries.c.id, [row.id for row in ids]))
    rows = connection.execute(query.order_by(deliveries.c.id.desc()))
    return page_of([_delivery(row) for row in rows], limit, looked_to=end and end.id)


def _of_events(
    connection: Connection,
    event_ids: Sequence[str],
    asked: Mapping[str, str | None],
    made: Sequence[ColumnElement[bool]],
) -> Select[Any]:
    wanted = [deliveries.c[name] == value for name, value in asked.items() if value is not None]
    found = select(deliveries.c.id).where(
        among(connection, deliveries.c.event_id, event_ids), *wanted, *made
    )
    return apart(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What the body of a delivery is made of."""

    event_body: str
    dialect: Dialect
    watch_metadata: str | None
    first_due_at: float
    attachment: Attachment | None


def get_content(connection: Connection, delivery: Delivery) -> Content:
    """What is sent, as far as it is still there: expunging and results that come change it."""
    query = (
        select(
            events.c.body,
            events.c.results_id,
            deliveries.c.dialect,
            deliveries.c.watch_metadata,
            deliveries.c.resent_at,
        )
        .join(events, events.c.id == deliveries.c.event_id)
        .where(deliveries.c.id == delivery.id)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("delivery", delivery.id)
    return Content(
        event_body=row.body,
        dialect=Dialect(row.dialect),
        watch_metadata=row.watch_metadata,
        first_due_at=delivery.created_at if row.resent_at is None else row.resent_at,
        attachment=with_lines(connection, row.results_id) if row.results_id else None,
    )


def list_attempts(
    connection: Connection, delivery: Delivery, *, kept_since: float = 0.0
) -> list[Attempt]:
    """The attempts that were counted and are kept, the first one first.

    One without a record was cut short by a crash, and its outcome is unknown; the one that is
    being made at this moment is not listed. Where the delivery is older than `kept_since`, those
    before the first record were deleted, and are not listed either.
    """
    return attempts_of(connection, [delivery], kept_since=kept_since)[delivery.id]


def attempts_of(
    connection: Connection, found: Sequence[Delivery], *, kept_since: float = 0.0
) -> dict[str, list[Attempt]]:
    """The same for several deliveries, by their ids."""
    by_id = {delivery.id: delivery for delivery in found}
    known: dict[str, dict[int, Outcome]] = {id: {} for id in by_id}
    query = select(attempts).where(among(connection, attempts.c.delivery_id, [*by_id]))
    for row in connection.execute(query):
        known[row.delivery_id][row.number] = _outcome(by_id[row.delivery_id], row)
    return {id: _attempts(one, known[id], kept_since) for id, one in by_id.items()}


def _attempts(delivery: Delivery, known: Mapping[int, Outcome], kept_since: float) -> list[Attempt]:
    made = delivery.attempts - (1 if delivery.lease_token else 0)
    first = min(known, default=made + 1) if delivery.created_at < kept_since else 1
    return [
        Attempt(delivery_id=delivery.id, number=n, outcome=known.get(n))
        for n in range(first, made + 1)
    ]


def resend(
    connection: Connection,
    project_id: str,
    event_id: str,
    *,
    endpoint_id: str | None = None,
    now: float,
) -> list[Delivery]:
    """Deliver an event again, with the full schedule, to everyone or to one endpoint.

    A delivery that is under way already is only made due now, and an endpoint that was deleted
    is left out. Raises NotFound, and InvalidRequest where nobody is to hear of the event.
    """
    get_event(connection, project_id, event_id)
    _keep(connection, event_id)
    query = (
        select(deliveries.c.id, deliveries.c.endpoint_id)
        .join(endpoints, endpoints.c.id == deliveries.c.endpoint_id)
        .where(deliveries.c.event_id == event_id, endpoints.c.deleted_at.is_(None))
    )
    if endpoint_id is not None:
        query = query.where(deliveries.c.endpoint_id == endpoint_id)
    found = connection.execute(query).all()
    if not found:
        raise InvalidRequest(
            "This event has no deliveries to send again: nobody was to hear of it.",
            param="endpoint_id" if endpoint_id else None,
            code="nothing_to_resend",
        )
    for row in found:
        enable(connection, row.endpoint_id, now=now)
    _start_over(connection, [row.id for row in found], now=now)
    wake(connection, DELIVERIES)
    return [get_delivery(connection, project_id, row.id) for row in found]


def _keep(connection: Connection, event_id: str) -> None:
    """Lock the event's batch, so that it is not forgotten while its deliveries begin again.

    A notice has none, and is locked itself.
    """
    batch = select(batches.c.key).join(events, events.c.batch_key == batches.c.key)
    connection.execute(batch.where(events.c.id == event_id).with_for_update(of=batches))
    notice = select(events.c.id).where(events.c.id == event_id, events.c.batch_key.is_(None))
    connection.execute(notice.with_for_update())


def _start_over(connection: Connection, ids: Sequence[str], *, now: float) -> None:
    connection.execute(
        update(deliveries)
        .where(among(connection, deliveries.c.id, ids), deliveries.c.lease_token.is_(None))
        .values(
            state=DeliveryState.PENDING,
            due_at=now,
            finished_at=None,
            needs_you=None,
            attempts_before=deliveries.c.attempts,
            resent_at=now,
            pulled=0,
            ends=False,
        )
    )


def _joined() -> Select[Any]:
    of_endpoint = [getattr(endpoints.c, name).label(f"endpoint_{name}") for name in GATE]
    waiting = deliveries.alias("waiting")
    first = (
        select(waiting.c.id)
        .where(
            waiting.c.project_id == endpoints.c.project_id,
            waiting.c.endpoint_id == endpoints.c.id,
            text("waiting.state = 'pending'"),
        )
        .order_by(waiting.c.id)
        .limit(1)
        .correlate(endpoints)
        .scalar_subquery()
    )
    ordered = case((endpoints.c.ordered & (deliveries.c.state == DeliveryState.PENDING), first))
    due: Label[float | None] = literal_column(due_next("deliveries")).label("due_next")
    columns = (endpoints.c.url, *of_endpoint, ordered.label("first_id"), due)
    return select(deliveries, *columns).join(endpoints, endpoints.c.id == deliveries.c.endpoint_id)


GATE = ("state", "reason", "paused_until", "opened_at", "probe_at", "rate_limit", "rate_at")
"""Columns of the endpoint that say whether its deliveries wait."""


def _gate(row: Row[Any]) -> Gate:
    values = {name: getattr(row, f"endpoint_{name}") for name in GATE}
    values["state"] = EndpointState(values["state"])
    return Gate(**values, first_id=row.first_id)


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        project_id=row.project_id,
        event_id=row.event_id,
        event_type=EventType(row.event_type),
        batch_id=row.batch_id,
        endpoint_id=row.endpoint_id,
        watch_id=row.watch_id,
        url=row.url,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        due_at=row.due_next,
        created_at=row.created_at,
        finished_at=row.finished_at,
        last_status=row.last_status,
        last_error=row.last_error,
        needs_you=row.needs_you,
        lease_token=row.lease_token,
        message_id=row.message_id,
        results=ResultsMode(row.results),
        gate=_gate(row),
    )


def _outcome(delivery: Delivery, row: Row[Any]) -> Outcome:
    return Outcome(
        status=row.status,
        fault=Fault(row.fault) if row.fault else None,
        detail=row.detail,
        location=row.location,
        remote_address=row.remote_address,
        response_headers=json.loads(row.response_headers) if row.response_headers else {},
        response_body=row.response_body,
        request_headers=_request_headers(delivery, row),
        started_at=row.started_at,
        duration_ms=row.duration_ms,
        timings=Timings(
            dns_ms=row.dns_ms,
            connect_ms=row.connect_ms,
            tls_ms=row.tls_ms,
            first_byte_ms=row.first_byte_ms,
        ),
    )


def _request_headers(delivery: Delivery, row: Row[Any]) -> dict[str, str]:
    """None were kept by older releases, nor are of a batch that was expunged."""
    if row.request_headers is None:
        return {}
    implied = sent_headers.implied(
        message_id=delivery.message_id or delivery.event_id,
        attempt=row.number,
        started_at=row.started_at,
    )
    kept: dict[str, str] = json.loads(row.request_headers)
    return implied | kept
