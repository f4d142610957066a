"""Events, read back and followed in the order of their ids; and events that are only a test."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, exists, insert, select, text

from batchbell.core.attachment import Attachment
from batchbell.core.errors import NotFound
from batchbell.core.model import (
    DeliveryState,
    Event,
    EventType,
    Mint,
)
from batchbell.core.samples import sample_body
from batchbell.storage.bulk import among
from batchbell.storage.engine import EVENTS, wake
from batchbell.storage.paging import Page, page_of
from batchbell.storage.results import attachments
from batchbell.storage.schema import batches, deliveries, events


def get_event(connection: Connection, project_id: str, event_id: str) -> Event:
    """One event of the project. Raises NotFound."""
    query = select(events).where(events.c.project_id == project_id, events.c.id == event_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("event", event_id)
    return _event(row)


def list_events(
    connection: Connection,
    project_id: str,
    *,
    limit: int,
    after: str | None = None,
    type: EventType | None = None,
    batch_id: str | None = None,
    delivery_success: bool | None = None,
) -> Page[Event]:
    """The project's events, newest first.

    `delivery_success=False` finds those of which some delivery is not delivered, True those of
    which all are.
    """
    query = select(events).where(events.c.project_id == project_id)
    if after is not None:
        query = query.where(events.c.id < get_event(connection, project_id, after).id)
    if type is not None:
        query = query.where(events.c.type == type)
    if batch_id is not None:
        keys = select(batches.c.key).where(batches.c.id == batch_id)
        query = query.where(events.c.batch_key.in_(keys))
    if delivery_success:
        undelivered = exists().where(
            deliveries.c.event_id == events.c.id, deliveries.c.state != DeliveryState.DELIVERED
        )
        query = query.where(~undelivered)
    elif delivery_success is not None:
        failed = _undelivered(project_id, after=after, type=type, batch_id=batch_id)
        ids = connection.execute(failed.limit(limit + 1)).scalars().all()
        query = query.where(among(connection, events.c.id, ids))
    rows = connection.execute(query.order_by(events.c.id.desc()).limit(limit + 1))
    return page_of([_event(row) for row in rows], limit)


def _undelivered(
    project_id: str, *, after: str | None, type: EventType | None, batch_id: str | None
) -> Select[Any]:
    """The ids of events of which some delivery is not delivered, from an index of these alone."""
    query = select(deliveries.c.event_id).where(
        deliveries.c.project_id == project_id, text("deliveries.state <> 'delivered'")
    )
    if after is not None:
        query = query.where(deliveries.c.event_id < after)
    if type is not None:
        query = query.where(deliveries.c.event_type == type)
    if batch_id is not None:
        query = query.where(deliveries.c.batch_id == batch_id)
    return query.group_by(deliveries.c.event_id).order_by(deliveries.c.event_id.desc())


def _event(row: Row[Any]) -> Event:
    return Event(
        id=row.id,
        project_id=row.project_id,
        batch_id=row.batch_id,
        type=EventType(row.type),
        created_at=row.created_at,
        recorded_at=row.recorded_at,
        body=row.body,
    )


OF_A_TEST = 0
"""The generation of an event that is only a test: the lives of a batch count from 1."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as a stream tells it."""

    id: str
    type: str
    body: str
    recorded_at: float
    attachment: Attachment | None
    """The results that travel with it."""


def ids_after(connection: Connection, project_id: str, after: str, *, limit: int) -> Sequence[str]:
    """The next ids of the project's events, from an index alone."""
    query = select(events.c.id).where(events.c.project_id == project_id, events.c.id > after)
    return connection.execute(query.order_by(events.c.id).limit(limit)).scalars().all()


def read_events(
    connection: Connection, ids: Collection[str], *, types: Collection[EventType] | None
) -> list[Recorded]:
    """These events, in the order of their ids, but for those of other types."""
    columns = (events.c.id, events.c.type, events.c.body, events.c.recorded_at, events.c.results_id)
    query = select(*columns).where(among(connection, events.c.id, ids)).order_by(events.c.id)
    rows = [row for row in connection.execute(query) if types is None or row.type in types]
    sent = attachments(connection, {row.results_id for row in rows if row.results_id})
    return [Recorded(*row[:4], sent.get(row.results_id)) for row in rows]


def record_test(
    connection: Connection, project_id: str, type_: EventType, *, mint: Mint, now: float
) -> str:
    """Record an event about what never was, for those who follow events; returns its id.

    No endpoint hears of it, and no replay finds it missing.
    """
    id = mint("evt")
    row = {
        "id": id,
        "project_id": project_id,
        "type": type_.value,
        "generation": OF_A_TEST,
        "created_at": now,
        "recorded_at": now,
        "body": sample_body(id, type_, project_id=project_id, now=now),
        "results_id": None,
    }
    connection.execute(insert(events), row)
    wake(connection, EVENTS)
    return id
