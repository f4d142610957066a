"""Events, and the deliveries they cause: the outbox. Both are written with the change itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Row, Select, exists, func, select, text

from batchbell.core import alarms, lifecycle, payload
from batchbell.core.errors import NotFound
from batchbell.core.ids import id_after
from batchbell.core.model import (
    Alarm,
    Batch,
    DeliveryState,
    Event,
    EventType,
    Mint,
    Status,
)
from batchbell.core.notices import Notice
from batchbell.core.results import INLINE_WAIT_SECONDS
from batchbell.core.travelling import ResultsMode
from batchbell.storage.audience import Audience, Listener, held, standing, watching
from batchbell.storage.bulk import among, insert_missing, update_all
from batchbell.storage.engine import DELIVERIES, EVENTS, wake
from batchbell.storage.paging import Page, page_of
from batchbell.storage.schema import batches, deliveries, endpoints, events
from batchbell.storage.wanting import Wanted, want

Happened = tuple[Batch, EventType]


def record(connection: Connection, happened: Sequence[Happened], *, mint: Mint, now: float) -> None:
    """Write what happened to batches, and one delivery for everyone who wants to hear of it.

    An end is always written down; what only some ask for, only when somebody does.
    """
    audience = Audience(connection, [batch for batch, _ in happened])
    # In the order in which it happened, whatever the order of the provider's list.
    in_order = sorted(happened, key=lambda one: _occurred_at(one[0], now))
    told = [(batch, type_, audience.for_event(batch, type_)) for batch, type_ in in_order]
    parcels = _wanted_results(connection, told, mint=mint, now=now)
    event_rows: list[dict[str, Any]] = []
    delivery_rows: list[dict[str, Any]] = []
    for batch, type_, listening in told:
        if batch.status.ended and type_ is not EventType.RESULTS_READY:
            listening.setdefault(lifecycle.STANDS_IN.get(type_, type_), [])
        for chosen, listeners in listening.items():
            event = _event_row(batch, chosen, mint=mint, now=now)
            wanted = parcels.get(batch.key)
            event["results_id"] = wanted and wanted.id
            event_rows.append(event)
            delivery_rows += [
                delivery_row(event, one, mint=mint, now=now, due_at=_first_due(one, wanted, now))
                for one in listeners
            ]
    _insert(connection, event_rows, delivery_rows)


@dataclass(frozen=True, slots=True)
class Rung:
    """An alarm of a batch that has just rung. `about` is the part where it rings for a whole."""

    batch: Batch
    alarm: Alarm
    about: Batch


def record_alarms(connection: Connection, rung: Sequence[Rung], *, mint: Mint, now: float) -> None:
    """Write an event for each alarm that somebody wants to hear of, with its deliveries."""
    if not rung:
        return
    audience = Audience(connection, [one.batch for one in rung])
    before = _counted(connection, [one.batch.key for one in rung])
    event_rows: list[dict[str, Any]] = []
    delivery_rows: list[dict[str, Any]] = []
    for one in rung:
        type_ = alarms.EVENT_OF[one.alarm]
        for chosen, listeners in audience.for_event(one.batch, type_).items():
            before[one.batch.key, chosen] += 1
            event = _event_row(one.batch, chosen, mint=mint, now=now)
            event["occurrence"] = before[one.batch.key, chosen]
            event["body"] = payload.alarm_body(
                event["id"], one.alarm, one.batch, about=one.about, now=now
            )
            event_rows.append(event)
            delivery_rows += [delivery_row(event, who, mint=mint, now=now) for who in listeners]
    _insert(connection, event_rows, delivery_rows)


def _counted(connection: Connection, keys: Collection[int]) -> Counter[tuple[int, str]]:
    """How often each alarm of these batches was told, in all of their lives."""
    query = (
        select(events.c.batch_key, events.c.type, func.max(events.c.occurrence))
        .where(among(connection, events.c.batch_key, sorted(keys)))
        .where(events.c.type.in_(sorted(set(alarms.EVENT_OF.values()))))
        .group_by(events.c.batch_key, events.c.type)
    )
    return Counter({(row[0], row[1]): row[2] for row in connection.execute(query)})


Told = tuple[Batch, EventType, dict[EventType, list[Listener]]]


def _wanted_results(
    connection: Connection, told: Sequence[Told], *, mint: Mint, now: float
) -> dict[int, Wanted]:
    """The results of those batches that have ended and of which somebody wants them."""
    wanted = [
        batch
        for batch, _, listening in told
        if has_results(batch) and any(map(_wants_results, chain(*listening.values())))
    ]
    return want(connection, wanted, mint=mint, now=now)


def _wants_results(listener: Listener) -> bool:
    return listener.results != ResultsMode.NONE


def has_results(batch: Batch) -> bool:
    """Whether there is something to be merged: of a lost batch nothing can be had."""
    return batch.status.ended and batch.status is not Status.LOST


def announce(connection: Connection, notices: Sequence[Notice], *, mint: Mint, now: float) -> None:
    """Write each notice that somebody wants to hear of, and one delivery for each of them."""
    listening = standing(connection, {notice.project_id for notice in notices})
    for notice in notices:
        hear = [one for one in listening.get(notice.project_id, ()) if one.hears(notice)]
        if hear:
            event = _notice_row(notice, mint=mint, now=now)
            told = [delivery_row(event, one, mint=mint, now=now) for one in hear]
            _insert(connection, [event], told)


def tell_late(
    connection: Connection,
    ended: Sequence[Batch],
    new_watches: Sequence[str],
    *,
    mint: Mint,
    now: float,
) -> None:
    """Tell watches that were made after the end of their batch at once."""
    if not ended or not new_watches:
        return
    by_key = {batch.key: batch for batch in ended}
    ends = _end_events(connection, by_key)
    late = set(new_watches)
    telling = [
        (key, listener, event)
        for key, listeners in watching(connection, list(by_key)).items()
        for listener in listeners
        if listener.watch_id in late
        and (event := _end_for(ends.get(key, []), by_key[key], listener)) is not None
    ]
    eager = {key for key, listener, _ in telling if _wants_results(listener)}
    wanted = want(connection, [by_key[key] for key in sorted(eager)], mint=mint, now=now)
    _bind_results(connection, [(event, wanted[key]) for key, _, event in telling if key in wanted])
    rows = [
        delivery_row(
            event, listener, mint=mint, now=now, due_at=_first_due(listener, wanted.get(key), now)
        )
        for key, listener, event in telling
    ]
    _insert(connection, [], rows)


def _bind_results(
    connection: Connection, found: Sequence[tuple[Mapping[str, Any], Wanted]]
) -> None:
    """Have events that nobody wanted the results of when they were written know them now."""
    unbound = [
        {"id": event["id"], "results_id": wanted.id}
        for event, wanted in found
        if event["results_id"] is None
    ]
    update_all(connection, events, "id", unbound)


def _end_for(ends: list[Row[Any]], batch: Batch, listener: Listener) -> dict[str, Any] | None:
    type_ = lifecycle.EVENT_OF[batch.status]
    for event in ends:
        if event.type in listener.events and event.type in (type_, lifecycle.STANDS_IN.get(type_)):
            return dict(event._mapping)
    return None


def _end_events(connection: Connection, by_key: dict[int, Batch]) -> dict[int, list[Row[Any]]]:
    query = select(events).where(among(connection, events.c.batch_key, by_key))
    found: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(query):
        if row.generation == by_key[row.batch_key].generation:
            found[row.batch_key].append(row)
    return found


def _event_row(batch: Batch, type_: EventType, *, mint: Mint, now: float) -> dict[str, Any]:
    occurred_at = _occurred_at(batch, now)
    id = mint("evt")
    return {
        "id": id,
        "project_id": batch.project_id,
        "batch_key": batch.key,
        "batch_id": batch.id,
        "type": type_.value,
        "generation": batch.generation,
        "created_at": occurred_at,
        "recorded_at": now,
        "body": payload.event_body(id, type_, batch, occurred_at=occurred_at),
        "results_id": None,
        "occurrence": 1,
    }


def _occurred_at(batch: Batch, now: float) -> float:
    return batch.ended_at if batch.ended_at is not None else now


def _notice_row(notice: Notice, *, mint: Mint, now: float) -> dict[str, Any]:
    id = mint("evt")
    return {
        "id": id,
        "project_id": notice.project_id,
        "batch_key": None,
        "batch_id": None,
        "type": notice.type.value,
        "generation": 1,
        "created_at": notice.at,
        "recorded_at": now,
        "body": payload.notice_body(id, notice),
        "results_id": None,
        "occurrence": 1,
    }


def delivery_row(
    event: Mapping[str, Any],
    listener: Listener,
    *,
    mint: Mint,
    now: float,
    due_at: float | None = None,
) -> dict[str, Any]:
    """A delivery that was never tried, due now or later; held where the endpoint is disabled."""
    waits = held(listener)
    return {
        "id": mint("dlv"),
        "project_id": event["project_id"],
        "event_id": event["id"],
        "event_type": event["type"],
        "batch_id": event["batch_id"],
        "endpoint_id": listener.endpoint_id,
        "watch_id": listener.watch_id,
        "dialect": listener.dialect,
        "watch_metadata": listener.watch_metadata,
        "state": DeliveryState.HELD if waits else DeliveryState.PENDING,
        "attempts": 0,
        "attempts_before": 0,
        "due_at": None if waits else (due_at or now),
        "created_at": now,
        "results": listener.results,
    }


def _first_due(listener: Listener, wanted: Wanted | None, now: float) -> float:
    """What is to carry the lines waits for them, for some time."""
    waits = listener.results == ResultsMode.INLINE and wanted is not None and wanted.waits
    return now + INLINE_WAIT_SECONDS if waits else now


def _insert(
    connection: Connection, event_rows: list[dict[str, Any]], delivery_rows: list[dict[str, Any]]
) -> None:
    if event_rows:
        insert_missing(connection, events, event_rows)
        wake(connection, EVENTS)
    if delivery_rows:
        insert_deliveries(connection, delivery_rows)
        wake(connection, DELIVERIES)


def insert_deliveries(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write new deliveries, each of an ordered endpoint behind all that wait for it already.

    Its order is that of ids. Those of other processes may be ahead, by another clock or by a
    moment, so what the database holds decides.
    """
    ordered = _ordered_among(connection, {row["endpoint_id"] for row in rows})
    last = {id: _last_waiting(connection, id) for id in ordered}
    placed = []
    for row in rows:
        before, id = last.get(row["endpoint_id"]), row["id"]
        if before is not None and id <= before:
            id = id_after(before, id)
        if row["endpoint_id"] in last:
            last[row["endpoint_id"]] = id
        placed.append({**row, "id": id})
    insert_missing(connection, deliveries, placed)


def _ordered_among(connection: Connection, ids: set[str]) -> list[str]:
    query = select(endpoints.c.id).where(among(connection, endpoints.c.id, sorted(ids)))
    return list(connection.execute(query.where(endpoints.c.ordered)).scalars())


def _last_waiting(connection: Connection, endpoint_id: str) -> str | None:
    query = select(deliveries.c.id).where(
        deliveries.c.endpoint_id == endpoint_id, text("deliveries.state = 'pending'")
    )
    newest = query.order_by(deliveries.c.endpoint_id.desc(), deliveries.c.id.desc()).limit(1)
    return connection.execute(newest).scalar_one_or_none()


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
