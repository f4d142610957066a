"""What a replay takes, one window after the other, and how it is begun again.

Everything is walked once, in the order of ids: deliveries, or events where the deliveries are
missing. A window holds few enough rows that no step takes long, whatever the filter leaves out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    func,
    or_,
    select,
)

from batchbell.core.model import Batch, DeliveryState, EndpointState, EventType, Mint
from batchbell.core.notices import Notice
from batchbell.core.replay import Replay, ReplayFilter, ReplayStatus, due_times, step_size
from batchbell.storage.batches import joined_batches, to_batch
from batchbell.storage.bulk import among, update_all
from batchbell.storage.events import OF_A_TEST
from batchbell.storage.outbox import (
    Audience,
    Listener,
    delivery_row,
    held,
    insert_deliveries,
    standing,
)
from batchbell.storage.schema import batches, deliveries, endpoints, events

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
    """The deliveries it takes that were there `before` a time, and whether they may be sent.

    The columns are `id` (what the walk goes by), `batch_key`, `open` and what a row needs.
    """
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
        .where(_wanted_state(filter.status), endpoints.c.deleted_at.is_(None), *about(filter))
    )
    if filter.endpoint_id is not None:
        query = query.where(deliveries.c.endpoint_id == filter.endpoint_id)
    return query


STATES: Mapping[ReplayStatus, Sequence[DeliveryState]] = {
    ReplayStatus.HELD: (DeliveryState.HELD,),
    ReplayStatus.FAILED: (DeliveryState.EXHAUSTED, DeliveryState.PENDING),
    ReplayStatus.ALL: tuple(DeliveryState),
    ReplayStatus.MISSING: (),
}
"""In which states the deliveries are that a replay takes."""


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


def step(connection: Connection, replay: Replay, *, mint: Mint, now: float) -> Stepped:
    """Begin what the next window holds again, spread by the replay's pace."""
    end = _window_end(connection, replay)
    most = step_size(replay.pace)
    if replay.filter.status is ReplayStatus.MISSING:
        started, skipped, cursor = _make(connection, replay, end, most, mint=mint, now=now)
    else:
        started, skipped, cursor = _again(connection, replay, end, most, mint=mint, now=now)
    over = cursor == end and not _is_more(connection, replay, end)
    return Stepped(started, skipped, cursor, over)


def _again(
    connection: Connection, replay: Replay, end: str, most: int, *, mint: Mint, now: float
) -> tuple[int, int, str]:
    query = matching(replay.filter, replay.project_id, before=replay.created_at)
    query = query.where(deliveries.c.id > replay.cursor, deliveries.c.id <= end)
    query = query.order_by(deliveries.c.id)
    found = connection.execute(query.limit(most)).all()
    _keep(connection, {row.batch_key for row in found if row.batch_key is not None})
    _keep_notices(connection, {row.event_id for row in found if row.batch_key is None})
    started = _start_over(connection, replay, found, query, mint=mint, now=now)
    cursor = found[-1].id if len(found) == most else end
    return started, sum(not row.open for row in found), cursor


def _make(
    connection: Connection, replay: Replay, end: str, most: int, *, mint: Mint, now: float
) -> tuple[int, int, str]:
    """What a disabled endpoint misses is made too, and held: so the miss can be seen."""
    found = between(
        connection,
        replay.filter,
        replay.project_id,
        before=replay.created_at,
        after=replay.cursor,
        until=end,
    )[:most]
    _keep(connection, {one.event.batch_key for one in found if one.event.batch_key is not None})
    _keep_notices(connection, {one.event.id for one in found if one.event.batch_key is None})
    sent = sum(one.open for one in found)
    times = iter(due_times(sent, pace=replay.pace, now=now))
    rows = [
        delivery_row(
            dict(one.event._mapping),
            one.listener,
            mint=mint,
            now=now,
            due_at=next(times) if one.open else None,
        )
        for one in found
    ]
    insert_deliveries(connection, rows)
    # One event may be missing for more endpoints than a step takes: it is looked at again.
    cursor = _before_last(replay.cursor, found) if len(found) == most else end
    return sent, len(found) - sent, cursor


def _before_last(cursor: str, found: Sequence[Missed]) -> str:
    last = found[-1].event.id
    return max((one.event.id for one in found if one.event.id != last), default=cursor)


def _ahead(replay: Replay, after: str) -> Select[Any]:
    """Ids to walk, in order, whatever the filter says of them."""
    table = events if replay.filter.status is ReplayStatus.MISSING else deliveries
    query = select(table.c.id).where(table.c.project_id == replay.project_id, table.c.id > after)
    if replay.filter.event_id is not None:
        event_id = events.c.id if table is events else deliveries.c.event_id
        query = query.where(event_id == replay.filter.event_id)
    return query.order_by(table.c.id)


def _window_end(connection: Connection, replay: Replay) -> str:
    few = replay.filter.status is ReplayStatus.MISSING
    most = min(WINDOW, EVENTS_WINDOW) if few else WINDOW
    window = _ahead(replay, replay.cursor).limit(most).subquery()
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
            "ends": False,
            "message_id": mint("evt") if replay.as_new else row.message_id,
        }
        for row, due_at in zip(rows, times, strict=True)
    ]
    update_all(connection, deliveries, "id", changed)
    return len(changed)


EVENTS_WINDOW = 100
"""Events that are looked at together, each with all who may hear of it."""


@dataclass(frozen=True, slots=True)
class Missed:
    """An event, and somebody who did not hear of it."""

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
    return connection.execute(_events(filter, project_id, before, after).limit(EVENTS_WINDOW)).all()


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
    there = _existing(connection, [row.id for row in rows])
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

    One that only stands in for `batch.lost` is not for those who hear of that itself.
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
        listening = audience.for_event(known[row.batch_key], happened)
        yield from ((row, one) for one in listening.get(type_, ()))


def _notice(row: Row[Any]) -> Notice:
    data = json.loads(row.body)["data"]
    return Notice(type=EventType(row.type), project_id=row.project_id, at=row.created_at, data=data)


def _existing(connection: Connection, ids: Collection[str]) -> set[tuple[str, str]]:
    query = select(deliveries.c.event_id, deliveries.c.endpoint_id)
    rows = connection.execute(query.where(among(connection, deliveries.c.event_id, ids)))
    return {(row.event_id, row.endpoint_id) for row in rows}


def _batches(connection: Connection, keys: Collection[int]) -> dict[int, Batch]:
    query = joined_batches().where(among(connection, batches.c.key, keys))
    return {row.key: to_batch(row) for row in connection.execute(query)}


def _lost(connection: Connection, keys: Collection[int]) -> set[tuple[int, int]]:
    """The lives of batches that ended in `batch.lost`, where somebody heard so."""
    query = select(events.c.batch_key, events.c.generation).where(
        among(connection, events.c.batch_key, keys), events.c.type == EventType.LOST
    )
    return {(row.batch_key, row.generation) for row in connection.execute(query)}
