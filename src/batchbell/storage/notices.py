"""Notices that come out of the queue itself, and the forgetting of old ones."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, select

from batchbell.core.model import DeliveryState, EventType, Mint
from batchbell.core.notices import Notice
from batchbell.storage.bulk import among
from batchbell.storage.events import announce
from batchbell.storage.schema import accounts, batches, deliveries, endpoints, events


def tell_of_exhausted(
    connection: Connection, ids: Collection[str], *, mint: Mint, now: float
) -> None:
    """Tell that these deliveries were given up.

    Only of those that told of a batch: a notice of a notice would have no end.
    """
    if not ids:
        return
    query: Select[Any] = (
        select(
            *deliveries.c,
            endpoints.c.url,
            accounts.c.name.label("account"),
        )
        .join(endpoints, endpoints.c.id == deliveries.c.endpoint_id)
        .join(events, events.c.id == deliveries.c.event_id)
        .join(batches, batches.c.key == events.c.batch_key)
        .join(accounts, accounts.c.id == batches.c.account_id)
        .where(among(connection, deliveries.c.id, ids))
        .order_by(deliveries.c.id)
    )
    told = [_exhausted(row, now) for row in connection.execute(query)]
    announce(connection, told, mint=mint, now=now)


def _exhausted(row: Row[Any], now: float) -> Notice:
    data = {
        "id": row.id,
        "event_id": row.event_id,
        "event_type": row.event_type,
        "batch_id": row.batch_id,
        "account": row.account,
        "endpoint_id": row.endpoint_id,
        "url": row.url,
        "attempts": row.attempts,
        "last_status": row.last_status,
        "last_error": row.last_error,
        "needs_you": row.needs_you,
    }
    return Notice(type=EventType.DELIVERY_EXHAUSTED, project_id=row.project_id, at=now, data=data)


def forget_old(connection: Connection, *, before: float, limit: int) -> int:
    """Delete up to `limit` notices that were written before a time, with their deliveries.

    What still waits to be delivered keeps its notice. Returns how many were deleted.
    """
    waiting = (
        select(deliveries.c.id)
        .where(deliveries.c.event_id == events.c.id, deliveries.c.state == DeliveryState.PENDING)
        .exists()
    )
    old = (
        select(events.c.id)
        .where(events.c.batch_key.is_(None), events.c.recorded_at < before, ~waiting)
        .order_by(events.c.recorded_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = connection.execute(old).scalars().all()
    if not ids:
        return 0
    # Asked again now that they are locked: something may have been sent again meanwhile.
    done = delete(events).where(among(connection, events.c.id, ids), ~waiting)
    return connection.execute(done).rowcount
