"""What a replay takes, one window after the other, and how it is begun again.

Everything is walked once, in the order of ids: deliveries, or events where the deliveries are
missing. A window holds few enough rows that no step takes long, whatever the filter leaves out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    exists,
    func,
    literal,
    or_,
    select,
)

from batchbell.core.model import DeliveryState, EndpointState, EventType, Mint
from batchbell.core.replay import Replay, ReplayFilter, ReplayStatus, due_times, step_size
from batchbell.storage.bulk import among, insert_missing, update_all
from batchbell.storage.schema import batches, deliveries, endpoints, events, watches

WINDOW = 1000
"""Rows that one step looks at."""


@dataclass(frozen=True, slots=True)
class Stepped:
    """What one step did; `over` when nothing is left behind the cursor."""

    started: int
    skipped: int
    cursor: str
    over: bool


def matching(filter: ReplayFilter, project_id: str, *, before: float) -> Select[Any]:
    """What the filter takes of that which was there `before` a time, and whether it may be sent.

    The columns are `id` (what the walk goes by), `batch_key`, `open` and what a row needs.
    """
    if filter.status is ReplayStatus.MISSING:
        return _missing(filter, project_id, before)
    query = (
        select(
            deliveries.c.id,
            events.c.batch_key,
            deliveries.c.event_id,
            (endpoints.c.state != EndpointState.DISABLED).label("open"),
            deliveries.c.endpoint_id,
            deliveries.c.attempts,
            deliveries.c.message_id,
        )
        .join(events, events.c.id == deliveries.c.event_id)
        .join(endpoints, endpoints.c.id == deliveries.c.endpoint_id)
        .where(deliveries.c.project_id == project_id, deliveries.c.created_at <= before)
        .where(_wanted_state(filter.status), endpoints.c.deleted_at.is_(None), *_about(filter))
    )
    if filter.endpoint_id is not None:
        query = query.where(deliveries.c.endpoint_id == filter.endpoint_id)
    return query


def _wanted_state(status: ReplayStatus) -> ColumnElement[bool]:
    held = deliveries.c.state == DeliveryState.HELD
    if status is ReplayStatus.HELD:
        return held
    waits_after_failure = and_(
        deliveries.c.state == DeliveryState.PENDING,
        deliveries.c.lease_token.is_(None),
        deliveries.c.attempts > deliveries.c.attempts_before,
    )
    failed = or_(deliveries.c.state == DeliveryState.EXHAUSTED, waits_after_failure)
    if status is ReplayStatus.FAILED:
        return failed
    return or_(failed, held, deliveries.c.state == DeliveryState.DELIVERED)


def _about(filter: ReplayFilter) -> list[ColumnElement[bool]]:
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


def _missing(filter: ReplayFilter, project_id: str, before: float) -> Select[Any]:
    there = exists().where(
        deliveries.c.event_id == events.c.id, deliveries.c.endpoint_id == watches.c.endpoint_id
    )
    query = (
        select(
            events.c.id,
            events.c.batch_key,
            (endpoints.c.state != EndpointState.DISABLED).label("open"),
            watches.c.endpoint_id,
            watches.c.id.label("watch_id"),
            watches.c.dialect,
            watches.c.metadata.label("watch_metadata"),
            events.c.type,
            events.c.batch_id,
        )
        .join(watches, watches.c.batch_key == events.c.batch_key)
        .join(endpoints, endpoints.c.id == watches.c.endpoint_id)
        .where(events.c.project_id == project_id, events.c.recorded_at <= before)
        .where(_wants(events.c.type), ~_told_otherwise(), ~there, *_about(filter))
        .where(endpoints.c.deleted_at.is_(None))
    )
    if filter.endpoint_id is not None:
        query = query.where(watches.c.endpoint_id == filter.endpoint_id)
    return query


def _wants(type_: ColumnElement[str]) -> ColumnElement[bool]:
    """That the watch asked for the type: its list of types is JSON."""
    return watches.c.events.like(literal('%"') + type_ + literal('"%'))


def _told_otherwise() -> ColumnElement[bool]:
    """That the event only stands in for `batch.lost`, and the watch is told of that itself."""
    lost = events.alias("lost")
    return and_(
        events.c.type == EventType.FAILED,
        watches.c.events.like(f'%"{EventType.LOST}"%'),
        exists().where(
            lost.c.batch_key == events.c.batch_key,
            lost.c.generation == events.c.generation,
            lost.c.type == EventType.LOST,
        ),
    )


def step(connection: Connection, replay: Replay, *, mint: Mint, now: float) -> Stepped:
    """Begin what the next window holds again, spread by the replay's pace."""
    end = _window_end(connection, replay)
    walked = _walked(replay)
    query = matching(replay.filter, replay.project_id, before=replay.created_at)
    query = query.where(walked > replay.cursor, walked <= end).order_by(walked)
    most = step_size(replay.pace)
    found = connection.execute(query.limit(most)).all()
    _keep(connection, {row.batch_key for row in found if row.batch_key is not None})
    _keep_notices(connection, {row.event_id for row in found if row.batch_key is None})
    if replay.filter.status is ReplayStatus.MISSING:
        # One event may be missing for more endpoints than a step takes: it is looked at again.
        started = _make(connection, replay, found, mint=mint, now=now)
        cursor = _before_last(replay.cursor, found) if len(found) == most else end
    else:
        started = _start_over(connection, replay, found, query, mint=mint, now=now)
        cursor = found[-1].id if len(found) == most else end
    skipped = sum(not row.open for row in found)
    over = cursor == end and not _is_more(connection, replay, end)
    return Stepped(started, skipped, cursor, over)


def _before_last(cursor: str, found: Sequence[Row[Any]]) -> str:
    return max((row.id for row in found if row.id != found[-1].id), default=cursor)


def _walked(replay: Replay) -> ColumnElement[str]:
    return events.c.id if replay.filter.status is ReplayStatus.MISSING else deliveries.c.id


def _ahead(replay: Replay, after: str) -> Select[Any]:
    """Ids to walk, in order, whatever the filter says of them."""
    table = events if replay.filter.status is ReplayStatus.MISSING else deliveries
    query = select(table.c.id).where(table.c.project_id == replay.project_id, table.c.id > after)
    if replay.filter.event_id is not None:
        event_id = events.c.id if table is events else deliveries.c.event_id
        query = query.where(event_id == replay.filter.event_id)
    return query.order_by(table.c.id)


def _window_end(connection: Connection, replay: Replay) -> str:
    window = _ahead(replay, replay.cursor).limit(WINDOW).subquery()
    end: str | None = connection.execute(select(func.max(window.c.id))).scalar_one()
    return end or replay.cursor


def _is_more(connection: Connection, replay: Replay, end: str) -> bool:
    return connection.execute(_ahead(replay, end).limit(1)).first() is not None


def _keep(connection: Connection, keys: Collection[int]) -> None:
    """Lock the batches against being forgotten while their deliveries begin again."""
    chosen = select(batches.c.key).where(among(connection, batches.c.key, sorted(keys)))
    lock = chosen.order_by(batches.c.key).with_for_update(read=True, key_share=True)
    connection.execute(lock).all()


def _keep_notices(connection: Connection, ids: Collection[str]) -> None:
    """The same for what is about no batch."""
    chosen = select(events.c.id).where(among(connection, events.c.id, sorted(ids)))
    lock = chosen.order_by(events.c.id).with_for_update(read=True, key_share=True)
    connection.execute(lock).all()


def _start_over(
    connection: Connection,
    replay: Replay,
    found: Sequence[Row[Any]],
    query: Select[Any],
    *,
    mint: Mint,
    now: float,
) -> int:
    """Those that still match, now that they are locked: some may have been claimed meanwhile."""
    ids = [row.id for row in found if row.open]
    if not ids:
        return 0
    kept = query.where(among(connection, deliveries.c.id, ids)).with_for_update(of=deliveries)
    rows = connection.execute(kept).all()
    times = due_times(len(rows), pace=replay.pace, now=now)
    changed = [
        {
            "id": row.id,
            "state": DeliveryState.PENDING.value,
            "due_at": due_at,
            "finished_at": None,
            "needs_you": None,
            "attempts_before": row.attempts,
            "resent_at": due_at,
            "pulled": 0,
            "message_id": mint("evt") if replay.as_new else row.message_id,
        }
        for row, due_at in zip(rows, times, strict=True)
    ]
    update_all(connection, deliveries, "id", changed)
    return len(changed)


def _make(
    connection: Connection,
    replay: Replay,
    found: Sequence[Row[Any]],
    *,
    mint: Mint,
    now: float,
) -> int:
    """What a disabled endpoint misses is made too, and held: so the miss can be seen."""
    sent = [row for row in found if row.open]
    times = iter(due_times(len(sent), pace=replay.pace, now=now))
    rows = [
        {
            "id": mint("dlv"),
            "project_id": replay.project_id,
            "event_id": row.id,
            "event_type": row.type,
            "batch_id": row.batch_id,
            "endpoint_id": row.endpoint_id,
            "watch_id": row.watch_id,
            "dialect": row.dialect,
            "watch_metadata": row.watch_metadata,
            "state": (DeliveryState.PENDING if row.open else DeliveryState.HELD).value,
            "attempts": 0,
            "attempts_before": 0,
            "due_at": next(times) if row.open else None,
            "created_at": now,
        }
        for row in found
    ]
    insert_missing(connection, deliveries, rows)
    return len(sent)
