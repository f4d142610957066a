"""Events in the order of their ids, for those who follow them; and events that are only a test."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from batchbell.core.model import EventType, Mint
from batchbell.core.samples import sample_body
from batchbell.core.travelling import Parcel
from batchbell.storage.bulk import among
from batchbell.storage.engine import EVENTS, wake
from batchbell.storage.schema import events
from batchbell.storage.wanting import parcels

OF_A_TEST = 0
"""The generation of an event that is only a test: the lives of a batch count from 1."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as a stream tells it."""

    id: str
    type: str
    body: str
    recorded_at: float
    parcel: Parcel | None
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
    sent = parcels(connection, {row.results_id for row in rows if row.results_id})
    return [Recorded(*row[:4], sent.get(row.results_id)) for row in rows]


def record_test(
    connection: Connection, project_id: str, type_: EventType, *, mint: Mint, now: float
) -> str:
    """Record an event about what never was, for those who follow events; returns its id.

    No endpoint is told of it, and no replay finds it missing.
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
