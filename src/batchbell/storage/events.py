"""Events, read back and followed in the order of their ids; and events that are only a test."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    exists,
    insert,
    select,
    text,
)

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
from batchbell.storage.paging import Page, Said, Walk, apart, first_of, made_within, page_of
from batchbell.storage.projects import has_batch
from batchbell.storage.results import attachments
from batchbell.storage.schema import batches, deliveries, endpoints, events


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
    endpoint_id: str | None = None,
    delivery_success: bool | None = None,
    since: float | None = None,
    until: float | None = None,
) -> Page[Event]:
    """The project's events, newest first; those recorded `since` a time, and before `until`.

    `delivery_success=False` finds those of which some delivery is not delivered, True those of
    which all are. With `endpoint_id` its own delivery of each event counts, and its time and order.

    Those of a batch are read whole, by `uq_events_batch_key`, and chosen from. Those of an endpoint
    are the events of a list of its deliveries. Undelivered ones are walked by
    `ix_deliveries_missed`, those of a type by `ix_events_by_type`, all others by
    `ix_events_listed`; only `delivery_success=True` passes over what it leaves out.
    """
    place = None if after is None else get_event(connection, project_id, after).id
    if endpoint_id is not None and batch_id is None:
        return _of_endpoint(
            connection,
            project_id,
            endpoint_id,
            limit=limit,
            after=place,
            type=type,
            delivery_success=delivery_success,
            made=list(made_within(deliveries.c.id, "dlv", since, until)),
        )
    missed = delivery_success is False and batch_id is None
    id = deliveries.c.event_id if missed else events.c.id
    made = list(made_within(id, "evt", since, until))
    if place is not None:
        made.append(id < place)
    if missed:
        walks = [
            Walk(_missed(project_id, one).where(*made)) for one in ([type] if type else EventType)
        ]
    else:
        made += [] if type is None else [events.c.type == type]
        walk = _walk(connection, project_id, batch_id).where(*made)
        fate = _fate(endpoint_id, delivery_success)
        walks = [Walk(walk, fate) if batch_id is None else Walk(apart(walk.where(*fate)))]
    rows, end = first_of(connection, walks, ["id"], limit + 1, looked_at_most=LOOKED_AT_MOST)
    query = select(events).where(among(connection, events.c.id, [row.id for row in rows]))
    found = connection.execute(query.order_by(events.c.id.desc()))
    return page_of([_event(row) for row in found], limit, looked_to=end and end.id)


LOOKED_AT_MOST = 10_000
"""Events of which a page looks for the deliveries, or deliveries that it looks at."""


def _walk(connection: Connection, project_id: str, batch_id: str | None) -> Select[Any]:
    walk = select(events.c.id)
    if batch_id is None:
        return walk.where(events.c.project_id == project_id)
    return walk.where(
        among(connection, events.c.batch_key, keys_of(connection, project_id, batch_id))
    )


def keys_of(connection: Connection, project_id: str, batch_id: str) -> Sequence[int]:
    """The keys of the project's batches of this id: one for each account that has one."""
    query = select(batches.c.key).where(has_batch(project_id), batches.c.id == batch_id)
    return connection.execute(query).scalars().all()


def _fate(endpoint_id: str | None, delivery_success: bool | None) -> list[ColumnElement[bool]]:
    """What is asked of the deliveries of an event, all of them or that of one endpoint."""
    of_event = [deliveries.c.event_id == events.c.id]
    if endpoint_id is not None:
        of_event.append(deliveries.c.endpoint_id == endpoint_id)
    undelivered = exists().where(
        *of_event,
        deliveries.c.project_id == events.c.project_id,
        deliveries.c.event_type == events.c.type,
        text("deliveries.state <> 'delivered'"),
    )
    fate: list[ColumnElement[bool]] = [] if endpoint_id is None else [exists().where(*of_event)]
    if delivery_success is not None:
        fate.append(~undelivered if delivery_success else undelivered)
    return fate


def _missed(project_id: str, type: EventType) -> Select[Any]:
    """The events of a type of which some delivery is not delivered, from an index of these."""
    return (
        select(deliveries.c.event_id.label("id"))
        .where(deliveries.c.project_id == project_id, deliveries.c.event_type == type)
        .where(text("deliveries.state <> 'delivered'"))
        .group_by(deliveries.c.event_id)
    )


def _of_endpoint(
    connection: Connection,
    project_id: str,
    endpoint_id: str,
    *,
    limit: int,
    after: str | None,
    type: EventType | None,
    delivery_success: bool | None,
    made: list[ColumnElement[bool]],
) -> Page[Event]:
    """The events that an endpoint was to hear of, in the order of its deliveries."""
    if after is not None:
        own = (deliveries.c.event_id == after, deliveries.c.endpoint_id == endpoint_id)
        place = connection.execute(select(deliveries.c.id).where(*own)).scalar_one_or_none()
        if place is None:
            raise NotFound("event of this endpoint", after)
        made.append(deliveries.c.id < place)
    states = [
        state
        for state in DeliveryState
        if delivery_success in (None, state is DeliveryState.DELIVERED)
    ]
    walks = walks_of(
        connection, project_id, endpoint_id=endpoint_id, type=type, states=states, made=made
    )
    rows, end = first_of(connection, walks, ["id"], limit + 1, looked_at_most=LOOKED_AT_MOST)
    query = (
        select(events)
        .join(deliveries, deliveries.c.event_id == events.c.id)
        .where(among(connection, deliveries.c.id, [row.id for row in rows]))
    )
    found = connection.execute(query.order_by(deliveries.c.id.desc())).all()
    looked_to = None
    if end is not None:
        stopped = select(deliveries.c.event_id).where(deliveries.c.id == end.id)
        looked_to = connection.execute(stopped).scalar_one()
    return page_of([_event(row) for row in found], limit, looked_to=looked_to)


def walks_of(
    connection: Connection,
    project_id: str,
    *,
    endpoint_id: str | None,
    type: EventType | None,
    states: Collection[DeliveryState],
    made: Sequence[ColumnElement[bool]],
) -> list[Walk]:
    """The ids of deliveries of a project or of its endpoint: a walk for each type and state.

    None where the project has no such endpoint.
    """
    if endpoint_id is not None and not _has_endpoint(connection, project_id, endpoint_id):
        return []
    d = deliveries.c
    of_one = endpoint_id is not None
    owner = d.endpoint_id == endpoint_id if of_one else d.project_id == project_id
    own = select(d.id).where(owner, *made)
    by_type = [own.where(d.event_type == one) for one in ([type] if type else EventType)]
    if set(states) == set(DeliveryState):
        return [Walk(walk) for walk in by_type]
    walks = []
    for state in states:
        said = in_state(state, of_endpoint=of_one)
        if state is DeliveryState.DELIVERED:
            walks += [Walk(walk, said) for walk in by_type]
        elif state is DeliveryState.PENDING and of_one:
            # In the order of ids, whatever the type. It is asked for so that no other index is
            # taken: that of all its deliveries would be walked over those that are done.
            of_ring = own.where(d.project_id == project_id, *said)
            walks.append(Walk(of_ring, [d.event_type + "" == type] if type else ()))
        else:
            walks += [Walk(walk.where(*said)) for walk in by_type]
    return walks


def in_state(state: DeliveryState, *, of_endpoint: bool) -> list[Said]:
    """That a delivery of an endpoint or else of a project stands so, as their indexes say it."""
    same = deliveries.c.state == state
    if state is DeliveryState.DELIVERED:
        return [same]
    if not of_endpoint:
        return [same, text("deliveries.state <> 'delivered'")]
    if state is DeliveryState.PENDING:
        return [text("deliveries.state = 'pending'")]
    return [same, text("deliveries.state IN ('exhausted', 'held')")]


def _has_endpoint(connection: Connection, project_id: str, endpoint_id: str) -> bool:
    own = (endpoints.c.id == endpoint_id, endpoints.c.project_id == project_id)
    return connection.execute(select(endpoints.c.id).where(*own)).first() is not None


def ids_of(
    connection: Connection, project_id: str, *, event_id: str | None, batch_id: str | None
) -> Sequence[str]:
    """The ids of a batch's events, or the id of one event, if the project has any such."""
    query = select(events.c.id).where(events.c.project_id == project_id)
    if event_id is not None:
        query = query.where(events.c.id == event_id)
    if batch_id is not None:
        keys = keys_of(connection, project_id, batch_id)
        query = select(events.c.id).where(among(connection, events.c.batch_key, keys))
        query = query if event_id is None else query.where(events.c.id == event_id)
    return connection.execute(query).scalars().all()


def of_key(connection: Connection, batch_key: int, *, limit: int) -> Page[Event]:
    """The events of one batch, the newest first."""
    of_batch = apart(select(events.c.id).where(events.c.batch_key == batch_key))
    ids, _ = first_of(connection, [Walk(of_batch)], ["id"], limit + 1)
    query = select(events).where(among(connection, events.c.id, [row.id for row in ids]))
    rows = connection.execute(query.order_by(events.c.id.desc()))
    return page_of([_event(row) for row in rows], limit)


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
