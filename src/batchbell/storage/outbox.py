"""The outbox: events and the deliveries that they cause, written with the change itself."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, Select, and_, func, select, text

from batchbell.core import alarms, lifecycle, payload
from batchbell.core.attachment import ResultsMode
from batchbell.core.ids import id_after
from batchbell.core.model import (
    Alarm,
    Batch,
    BatchKind,
    DeliveryState,
    Dialect,
    EndpointState,
    EventType,
    Mint,
    Status,
)
from batchbell.core.notices import Notice
from batchbell.core.results import INLINE_WAIT_SECONDS
from batchbell.storage.bulk import (
    among,
    among_listed,
    by_index,
    insert_missing,
    listed,
    update_all,
)
from batchbell.storage.engine import DELIVERIES, EVENTS, dialect_of, wake
from batchbell.storage.results import Requested, request
from batchbell.storage.schema import accounts, batches, deliveries, endpoints, events, watches

Happened = tuple[Batch, EventType]
Announced = tuple[Batch, EventType, dict[EventType, "list[Listener]"]]


def record(connection: Connection, happened: Sequence[Happened], *, mint: Mint, now: float) -> None:
    """Write what happened to batches, and one delivery for everyone who wants to hear of it.

    An end is always written down; what only some ask for, only when somebody does.
    """
    audience = Audience(connection, [batch for batch, _ in happened])
    # In the order in which it happened, whatever the order of the provider's list.
    in_order = sorted(happened, key=lambda one: _occurred_at(one[0], now))
    announced = [(batch, type_, audience.for_event(batch, type_)) for batch, type_ in in_order]
    attachments = _wanted_results(connection, announced, mint=mint, now=now)
    event_rows: list[dict[str, Any]] = []
    delivery_rows: list[dict[str, Any]] = []
    for batch, type_, listening in announced:
        if batch.status.ended and type_ is not EventType.RESULTS_READY:
            listening.setdefault(lifecycle.STANDS_IN.get(type_, type_), [])
        for chosen, listeners in listening.items():
            event = _event_row(batch, chosen, mint=mint, now=now)
            wanted = attachments.get(batch.key)
            event["results_id"] = wanted and wanted.id
            event_rows.append(event)
            delivery_rows += [
                delivery_row(event, one, mint=mint, now=now, due_at=_first_due(one, wanted, now))
                for one in listeners
            ]
    _insert(connection, event_rows, delivery_rows)


class Rung(Struct, frozen=True):
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
    """How often each alarm of these batches has rung, in all of their lives."""
    query = (
        select(events.c.batch_key, events.c.type, func.max(events.c.occurrence))
        .where(among(connection, events.c.batch_key, sorted(keys)))
        .where(events.c.type.in_(sorted(set(alarms.EVENT_OF.values()))))
        .group_by(events.c.batch_key, events.c.type)
    )
    return Counter({(row[0], row[1]): row[2] for row in connection.execute(query)})


def _wanted_results(
    connection: Connection, announced: Sequence[Announced], *, mint: Mint, now: float
) -> dict[int, Requested]:
    """The results of those batches that have ended and of which somebody wants them."""
    wanted = [
        batch
        for batch, _, listening in announced
        if has_results(batch) and any(map(_wants_results, chain(*listening.values())))
    ]
    lines = {
        batch.key
        for batch, _, listening in announced
        if any(one.results == ResultsMode.INLINE for one in chain(*listening.values()))
    }
    behind = {batch.key for batch in wanted} - lines
    return request(connection, wanted, behind=behind, mint=mint, now=now)


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
            rows = [delivery_row(event, one, mint=mint, now=now) for one in hear]
            _insert(connection, [event], rows)


def announce_late(
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
    hearing = [
        (key, listener, event)
        for key, listeners in watching(connection, list(by_key)).items()
        for listener in listeners
        if listener.watch_id in late
        and (event := _end_for(ends.get(key, []), by_key[key], listener)) is not None
    ]
    eager = {key for key, listener, _ in hearing if _wants_results(listener)}
    wanted = request(connection, [by_key[key] for key in sorted(eager)], mint=mint, now=now)
    _bind_results(connection, [(event, wanted[key]) for key, _, event in hearing if key in wanted])
    rows = [
        delivery_row(
            event, listener, mint=mint, now=now, due_at=_first_due(listener, wanted.get(key), now)
        )
        for key, listener, event in hearing
    ]
    _insert(connection, [], rows)


def _bind_results(
    connection: Connection, found: Sequence[tuple[Mapping[str, Any], Requested]]
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
        "body": payload.event_body(id, type_, batch, occurred_at=occurred_at, encode=compact),
        "results_id": None,
        "occurrence": 1,
    }


def compact(value: Any) -> str:
    """As `payload.compact`, in a tenth of the time where all of it is ASCII."""
    try:
        text = msgspec.json.encode(value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return payload.compact(value)
    return text.decode() if text.isascii() else payload.compact(value)


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


def _first_due(listener: Listener, wanted: Requested | None, now: float) -> float:
    """What is to carry the lines waits for them, for some time."""
    waits = listener.results == ResultsMode.INLINE and wanted is not None and wanted.waits
    return now + INLINE_WAIT_SECONDS if waits else now


def _insert(
    connection: Connection, event_rows: list[dict[str, Any]], delivery_rows: list[dict[str, Any]]
) -> None:
    if event_rows or delivery_rows:
        by_index(connection)
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
    owners = {row["endpoint_id"]: row["project_id"] for row in rows}
    ordered = _ordered_among(connection, set(owners))
    last = {id: _last_waiting(connection, owners[id], id) for id in ordered}
    placed = []
    for row in rows:
        before, id = last.get(row["endpoint_id"]), row["id"]
        if before is not None and id <= before:
            id = id_after(before, id)
        if row["endpoint_id"] in last:
            last[row["endpoint_id"]] = id
        placed.append(row if id == row["id"] else {**row, "id": id})
    insert_missing(connection, deliveries, placed)


def _ordered_among(connection: Connection, ids: set[str]) -> list[str]:
    asked = {"ids": listed(connection, sorted(ids))}
    return list(connection.execute(_ordered(dialect_of(connection)), asked).scalars())


@cache
def _ordered(dialect: str) -> Select[Any]:
    there = among_listed(dialect, endpoints.c.id, "ids")
    return select(endpoints.c.id).where(there, endpoints.c.ordered)


def _last_waiting(connection: Connection, project_id: str, endpoint_id: str) -> str | None:
    d = deliveries.c
    query = select(d.id).where(
        d.project_id == project_id,
        d.endpoint_id == endpoint_id,
        text("deliveries.state = 'pending'"),
    )
    newest = query.order_by(d.project_id.desc(), d.endpoint_id.desc(), d.id.desc()).limit(1)
    return connection.execute(newest).scalar_one_or_none()


MANAGED = and_(endpoints.c.managed, endpoints.c.deleted_at.is_(None))


class Listener(Struct, frozen=True, kw_only=True):
    """An endpoint that is to hear, and on whose behalf."""

    endpoint_id: str
    endpoint_state: str
    events: tuple[EventType, ...]
    watch_id: str | None = None
    watch_metadata: str | None = None
    dialect: str = Dialect.WATCH
    accounts: frozenset[str] | None = None
    """Names; None is all of the project."""
    metadata: Mapping[str, str] | None = None
    """Pairs that a batch must have among its own."""
    results: str = ResultsMode.LINK
    there_since: float = 0.0
    """When its endpoint was made. A watch hears of what was there before it, too."""

    def minds(self, batch: Batch) -> bool:
        """Whether this batch is one of those that it wants to hear of."""
        if self.accounts is not None and batch.account not in self.accounts:
            return False
        own = (batch.snapshot.metadata if batch.snapshot else None) or {}
        return all(own.get(key) == value for key, value in (self.metadata or {}).items())

    def hears(self, notice: Notice) -> bool:
        """Whether it is to hear of this notice: it has no metadata, and may have no account."""
        if notice.type not in self.events or notice.endpoint_id == self.endpoint_id:
            return False
        if self.metadata:
            return False
        return None in (notice.account, self.accounts) or notice.account in (self.accounts or ())


class Audience:
    """Those who may want to hear of some batches."""

    def __init__(self, connection: Connection, affected: Collection[Batch]) -> None:
        self._watching = watching(connection, [batch.key for batch in affected])
        self._standing = standing(connection, {batch.project_id for batch in affected})

    def for_event(self, batch: Batch, type_: EventType) -> dict[EventType, list[Listener]]:
        """Who hears of it, under the type that each of them wants.

        An endpoint hears once: where a watch names it, on behalf of that watch.
        """
        chosen: dict[str, tuple[EventType, Listener]] = {}
        for listener in self._listeners(batch):
            heard = lifecycle.type_for(type_, listener.events)
            if heard is not None:
                chosen.setdefault(listener.endpoint_id, (heard, listener))
        listening: dict[EventType, list[Listener]] = defaultdict(list)
        for heard, listener in chosen.values():
            listening[heard].append(listener)
        return listening

    def _listeners(self, batch: Batch) -> Iterable[Listener]:
        yield from self._watching.get(batch.key, ())
        if batch.kind is BatchKind.PART:
            return  # they hear of the whole submission
        for listener in self._standing.get(batch.project_id, ()):
            if listener.minds(batch):
                yield listener


def watching(connection: Connection, keys: Sequence[int]) -> dict[int, list[Listener]]:
    """The watches of these batches, by the batch's key."""
    if not keys:
        return {}
    query = _watching(dialect_of(connection))
    found: dict[int, list[Listener]] = defaultdict(list)
    for row in connection.execute(query, {"keys": listed(connection, keys)}).all():
        id, key, endpoint_id, dialect, types, metadata, results, state = row
        watcher = Listener(
            endpoint_id=endpoint_id,
            endpoint_state=state,
            events=_types(types),
            watch_id=id,
            watch_metadata=metadata,
            dialect=dialect,
            results=results,
        )
        found[key].append(watcher)
    return found


@cache
def _watching(dialect: str) -> Select[Any]:
    """Made once, as all that each page of ends asks."""
    return (
        select(
            watches.c.id,
            watches.c.batch_key,
            watches.c.endpoint_id,
            watches.c.dialect,
            watches.c.events,
            watches.c.metadata,
            watches.c.results,
            endpoints.c.state,
        )
        .join(endpoints, endpoints.c.id == watches.c.endpoint_id)
        .where(among_listed(dialect, watches.c.batch_key, "keys"), endpoints.c.deleted_at.is_(None))
        .order_by(watches.c.id)
    )


def standing(connection: Connection, project_ids: Collection[str]) -> dict[str, list[Listener]]:
    """The endpoints that hear of a whole project, by project."""
    if not project_ids:
        return {}
    asked = {"projects": listed(connection, sorted(project_ids))}
    found: dict[str, list[Listener]] = defaultdict(list)
    for row in connection.execute(_standing(dialect_of(connection)), asked):
        found[row.project_id].append(_stander(row))
    return found


@cache
def _standing(dialect: str) -> Select[Any]:
    return (
        select(
            endpoints.c.id,
            endpoints.c.project_id,
            endpoints.c.state,
            endpoints.c.event_types,
            endpoints.c.accounts,
            endpoints.c.metadata,
            endpoints.c.results,
            endpoints.c.created_at,
        )
        .where(among_listed(dialect, endpoints.c.project_id, "projects"), MANAGED)
        .order_by(endpoints.c.id)
    )


def _stander(row: Any) -> Listener:
    return Listener(
        endpoint_id=row.id,
        endpoint_state=row.state,
        events=_types(row.event_types),
        accounts=frozenset(json.loads(row.accounts)) if row.accounts else None,
        metadata=json.loads(row.metadata) if row.metadata else None,
        results=row.results or ResultsMode.LINK,
        there_since=row.created_at,
    )


@lru_cache(maxsize=1024)
def _types(kept: str) -> tuple[EventType, ...]:
    return tuple(EventType(word) for word in json.loads(kept))


def held(listener: Listener) -> bool:
    """Whether what it is to hear waits until the endpoint is enabled."""
    return listener.endpoint_state == EndpointState.DISABLED


def announce_exhausted(
    connection: Connection, ids: Collection[str], *, mint: Mint, now: float
) -> None:
    """Tell that these deliveries were given up.

    Only of those that are about a batch: a notice of a notice would have no end.
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
    exhausted = [_exhausted(row, now) for row in connection.execute(query)]
    announce(connection, exhausted, mint=mint, now=now)


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
