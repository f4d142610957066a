"""What somebody wants to hear of, and no delivery was made of.

Who that is, is judged by the rules by which events are told: once more, over what was recorded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, case, select

from batchbell.core.model import Batch, EventType
from batchbell.core.notices import Notice
from batchbell.core.replay import ReplayFilter
from batchbell.storage.audience import Audience, Listener, held, standing
from batchbell.storage.batches import joined_batches, to_batch
from batchbell.storage.bulk import among
from batchbell.storage.schema import batches, deliveries, events
from batchbell.storage.streaming import OF_A_TEST

WINDOW = 100
"""Events that are looked at together, each with all who may hear of it."""


@dataclass(frozen=True, slots=True)
class Missed:
    """An event, and somebody who was not told of it."""

    event: Row[Any]
    listener: Listener

    @property
    def open(self) -> bool:
        """Whether it may be sent."""
        return not held(self.listener)


def about(filter: ReplayFilter) -> list[ColumnElement[bool]]:
    """What the filter says of the event."""
    wanted: list[ColumnElement[bool]] = []
    if filter.event_id is not None:
        wanted.append(events.c.id == filter.event_id)
    if filter.since is not None:
        wanted.append(events.c.created_at >= filter.since)
    if filter.until is not None:
        wanted.append(events.c.created_at < filter.until)
    if filter.types:
        wanted.append(events.c.type.in_([type_.value for type_ in filter.types]))
    return wanted


def between(
    connection: Connection,
    filter: ReplayFilter,
    project_id: str,
    *,
    before: float,
    after: str,
    until: str,
) -> list[Missed]:
    """What is missing of the events between two ids, in their order."""
    rows = connection.execute(
        _events(filter, project_id, before, after).where(events.c.id <= until)
    )
    return _missed(connection, filter, project_id, rows.all())


def count(
    connection: Connection, filter: ReplayFilter, project_id: str, *, before: float
) -> Counter[tuple[str, bool]]:
    """How much is missing, by endpoint and whether it may be sent; a window at a time."""
    counts: Counter[tuple[str, bool]] = Counter()
    cursor = ""
    while rows := _window(connection, filter, project_id, before, cursor):
        found = _missed(connection, filter, project_id, rows)
        counts.update((one.listener.endpoint_id, one.open) for one in found)
        cursor = rows[-1].id
    return counts


def _window(
    connection: Connection, filter: ReplayFilter, project_id: str, before: float, after: str
) -> Sequence[Row[Any]]:
    return connection.execute(_events(filter, project_id, before, after).limit(WINDOW)).all()


def _events(filter: ReplayFilter, project_id: str, before: float, after: str) -> Select[Any]:
    columns = [column for column in events.c if column is not events.c.body]
    body = case((events.c.batch_key.is_(None), events.c.body)).label("body")
    return (
        select(*columns, body)
        .where(events.c.project_id == project_id, events.c.recorded_at <= before)
        .where(events.c.id > after, events.c.generation != OF_A_TEST, *about(filter))
        .order_by(events.c.id)
    )


def _missed(
    connection: Connection, filter: ReplayFilter, project_id: str, rows: Sequence[Row[Any]]
) -> list[Missed]:
    there = _told(connection, [row.id for row in rows])
    return [
        Missed(row, listener)
        for row, listener in _wanted(connection, project_id, rows)
        if (row.id, listener.endpoint_id) not in there
        and listener.there_since <= row.recorded_at
        and filter.endpoint_id in (None, listener.endpoint_id)
    ]


def _wanted(
    connection: Connection, project_id: str, rows: Sequence[Row[Any]]
) -> Iterable[tuple[Row[Any], Listener]]:
    """Each event with each who is to hear of it.

    One that only stands in for `batch.lost` is not for those who are told of that itself.
    """
    keys = {row.batch_key for row in rows if row.batch_key is not None}
    known = _batches(connection, keys)
    lost = _lost(connection, keys)
    audience = Audience(connection, known.values())
    everywhere = standing(connection, [project_id]).get(project_id, [])
    for row in rows:
        type_ = EventType(row.type)
        if row.batch_key is None:
            notice = _notice(row)
            yield from ((row, one) for one in everywhere if one.hears(notice))
            continue
        stands_in = type_ is EventType.FAILED and (row.batch_key, row.generation) in lost
        happened = EventType.LOST if stands_in else type_
        told = audience.for_event(known[row.batch_key], happened)
        yield from ((row, one) for one in told.get(type_, ()))


def _notice(row: Row[Any]) -> Notice:
    data = json.loads(row.body)["data"]
    return Notice(type=EventType(row.type), project_id=row.project_id, at=row.created_at, data=data)


def _told(connection: Connection, ids: Collection[str]) -> set[tuple[str, str]]:
    query = select(deliveries.c.event_id, deliveries.c.endpoint_id)
    rows = connection.execute(query.where(among(connection, deliveries.c.event_id, ids)))
    return {(row.event_id, row.endpoint_id) for row in rows}


def _batches(connection: Connection, keys: Collection[int]) -> dict[int, Batch]:
    query = joined_batches().where(among(connection, batches.c.key, keys))
    return {row.key: to_batch(row) for row in connection.execute(query)}


def _lost(connection: Connection, keys: Collection[int]) -> set[tuple[int, int]]:
    """The lives of batches that ended in `batch.lost`, where somebody was told so."""
    query = select(events.c.batch_key, events.c.generation).where(
        among(connection, events.c.batch_key, keys), events.c.type == EventType.LOST
    )
    return {(row.batch_key, row.generation) for row in connection.execute(query)}
