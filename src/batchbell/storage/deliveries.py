"""The delivery queue: the table itself. Claim, settle and give back, each in bulk.

A claim visits endpoints in a ring and takes a few deliveries from each, so that neither its cost
nor its fairness depends on how much waits for any one of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select, text, update

from batchbell.core import lifecycle
from batchbell.core.model import Claimed, DeliveryState, Dialect, Endpoint, EndpointState, Outcome
from batchbell.storage import attempts
from batchbell.storage.attempts import Tried as Tried  # noqa: PLC0414 - what `settle` takes
from batchbell.storage.bulk import among
from batchbell.storage.endpoints import endpoints_by_id, failing_among, locked, save_health
from batchbell.storage.engine import dialect_of
from batchbell.storage.schema import deliveries, endpoints

RING_STEP = 500
"""Endpoints that one claim visits at most."""
HOLD_STEP = 1000
"""Deliveries of a disabled endpoint that one step sets aside."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim brought: the deliveries, where they go, and where the ring goes on."""

    deliveries: list[Claimed]
    endpoints: dict[str, Endpoint]
    cursor: str
    """The last endpoint that was visited; empty when the ring came to its end."""


def claim_due(
    connection: Connection,
    *,
    after: str,
    rooms: Mapping[str, int],
    room: int,
    limit: int,
    now: float,
    lease_seconds: float,
    token: str,
) -> Claim:
    """Take up to `limit` due deliveries, walking the ring of endpoints on from `after`.

    From an endpoint in `rooms` at most that many are taken, from another at most `room`. Each
    attempt is counted here, before it is made: what kills a worker is not tried for ever.
    """
    ring = connection.execute(RING, {"after": after, "step": RING_STEP, "now": now}).all()
    ready = sorted(row.id for row in ring if row.ready)
    takes = {id: take for id in ready if (take := rooms.get(id, room)) > 0}
    times = {"now": now, "lease": now + lease_seconds, "token": token}
    taken = _take(connection, takes, limit, times) if takes and limit > 0 else []
    visited = {one.endpoint_id for one in taken}
    cursor = ring[-1].id if len(ring) == RING_STEP else ""
    if taken and len(taken) >= limit:
        cursor = max(visited)
    return Claim(taken, endpoints_by_id(connection, visited, now=now) if visited else {}, cursor)


RING = text("""
WITH RECURSIVE ring(id, n) AS (
  SELECT (SELECT min(endpoint_id) FROM deliveries
          WHERE state = 'pending' AND endpoint_id > :after), 1
  UNION ALL
  SELECT (SELECT min(d.endpoint_id) FROM deliveries d
          WHERE d.state = 'pending' AND d.endpoint_id > ring.id), ring.n + 1
  FROM ring WHERE ring.id IS NOT NULL AND ring.n < :step)
SELECT ring.id,
  (SELECT e.state <> 'disabled' AND (e.paused_until IS NULL OR e.paused_until <= :now)
   FROM endpoints e WHERE e.id = ring.id)
  AND EXISTS (SELECT 1 FROM deliveries d WHERE d.endpoint_id = ring.id
              AND d.state = 'pending' AND d.due_at <= :now) AS ready
FROM ring WHERE ring.id IS NOT NULL ORDER BY ring.n
""")


def _take(
    connection: Connection, takes: Mapping[str, int], limit: int, times: Mapping[str, Any]
) -> list[Claimed]:
    if dialect_of(connection) == "sqlite":
        rows: Sequence[Any] = _take_sqlite(connection, takes, limit, times)
    else:
        room = {"ids": list(takes), "takes": list(takes.values()), "limit": limit}
        rows = connection.execute(TAKE_POSTGRESQL, {**times, **room}).all()
    return [
        Claimed(
            id=row[0],
            endpoint_id=row[1],
            event_id=row[2],
            attempt=row[3],
            first_attempt_base=row[4],
            dialect=DIALECTS[row[5]],
            watch_id=row[6],
            watch_metadata=row[7],
            event_body=row[8],
            occurred_at=row[9],
            lease_token=times["token"],
            lease_until=times["lease"],
        )
        for row in rows
    ]


DIALECTS = {dialect.value: dialect for dialect in Dialect}

_TAKEN = """deliveries.id, deliveries.endpoint_id, deliveries.event_id, deliveries.attempts,
  deliveries.attempts_before, deliveries.dialect, deliveries.watch_id, deliveries.watch_metadata,
  events.body, events.created_at"""


def _take_sqlite(
    connection: Connection, takes: Mapping[str, int], limit: int, times: Mapping[str, Any]
) -> list[Any]:
    """There is one writer, so what is chosen here cannot be chosen elsewhere meanwhile.

    Each statement is one step of SQLite for all rows: its thread gives up the interpreter with
    every step, and may wait long to have it back.
    """
    room, names = max(takes.values()), json.dumps(list(takes))
    chosen = connection.exec_driver_sql(DUE_SQLITE, (times["now"], room, names)).scalar_one()
    ids: list[str] = []
    for endpoint_id, due in json.loads(chosen):
        ids += due[: min(takes[endpoint_id], limit - len(ids))]
    packed = json.dumps(ids)
    connection.exec_driver_sql(TAKE_SQLITE, (times["lease"], times["token"], packed))
    taken: list[Any] = msgspec.json.decode(
        connection.exec_driver_sql(TAKEN_SQLITE, (packed,)).scalar_one()
    )
    return taken


DUE_SQLITE = """
SELECT json_group_array(json_array(room.value,
  (SELECT json_group_array(id) FROM (
    SELECT id FROM deliveries WHERE endpoint_id = room.value AND state = 'pending' AND due_at <= ?
    ORDER BY due_at LIMIT ?))))
FROM json_each(?) AS room
"""
TAKE_SQLITE = """
UPDATE deliveries SET due_at = ?, lease_token = ?, attempts = attempts + 1
WHERE id IN (SELECT value FROM json_each(?))
"""
TAKEN_SQLITE = f"""
SELECT json_group_array(json_array({_TAKEN}))
FROM json_each(?) AS taken JOIN deliveries ON deliveries.id = taken.value
JOIN events ON events.id = deliveries.event_id
"""  # noqa: S608 - no value is put in

TAKE_POSTGRESQL = text(f"""
WITH due AS MATERIALIZED (
  SELECT d.id FROM unnest(CAST(:ids AS text[]), CAST(:takes AS int[])) AS room(id, k)
  CROSS JOIN LATERAL (
    SELECT id FROM deliveries
    WHERE endpoint_id = room.id AND state = 'pending' AND due_at <= :now
    ORDER BY due_at LIMIT room.k FOR UPDATE SKIP LOCKED) d
  LIMIT :limit)
UPDATE deliveries SET due_at = :lease, lease_token = :token, attempts = deliveries.attempts + 1
FROM due, events WHERE deliveries.id = due.id AND events.id = deliveries.event_id
RETURNING {_TAKEN}
""")  # noqa: S608 - no value is put in


def settle(connection: Connection, tried: Sequence[Tried], *, now: float) -> set[str]:
    """Write attempts and what they make of their deliveries and endpoints, fenced by the lease.

    Returns the ids that were written: a delivery whose lease was lost is passed over whole.
    """
    written = attempts.write(connection, tried, now=now)
    _fold_health(connection, [one for one in tried if one.delivery.id in written], now)
    return written


def _fold_health(connection: Connection, tried: Sequence[Tried], now: float) -> None:
    """Only where there is news: a failure, or a success after failures."""
    heard: dict[str, list[Outcome]] = {}
    for one in tried:
        heard.setdefault(one.delivery.endpoint_id, []).append(one.outcome)
    bad = {one.delivery.endpoint_id for one in tried if not one.outcome.success}
    news = sorted(bad | failing_among(connection, list(heard)))
    if not news:
        return
    before = locked(connection, news)
    after = [lifecycle.endpoint_after(before[id], heard[id], now) for id in news]
    save_health(connection, [endpoint for endpoint in after if endpoint != before[endpoint.id]])
    for endpoint in after:
        if endpoint.state is EndpointState.DISABLED:
            hold_back(connection, endpoint.id)


def hold_back(connection: Connection, endpoint_id: str) -> int:
    """Set aside up to HOLD_STEP of what waits for a disabled endpoint; returns how many."""
    waiting = (
        select(deliveries.c.id)
        .where(
            deliveries.c.endpoint_id == endpoint_id,
            deliveries.c.state == DeliveryState.PENDING,
            deliveries.c.lease_token.is_(None),
        )
        .limit(HOLD_STEP)
        .with_for_update(skip_locked=True)
    )
    held = update(deliveries).where(deliveries.c.id.in_(waiting))
    return connection.execute(held.values(state=DeliveryState.HELD, due_at=None)).rowcount


def hold_back_disabled(connection: Connection) -> int:
    """Go on setting aside what waits for disabled endpoints; returns how many in this step."""
    disabled = select(endpoints.c.id).where(endpoints.c.state == EndpointState.DISABLED)
    return sum(hold_back(connection, id) for id in connection.execute(disabled).scalars().all())


def give_back(connection: Connection, claimed: Sequence[Claimed], *, now: float) -> None:
    """Return deliveries that were claimed and never tried: due now, the attempt not counted."""
    tokens: dict[str, list[str]] = {}
    for one in claimed:
        tokens.setdefault(one.lease_token, []).append(one.id)
    for token, ids in tokens.items():
        connection.execute(
            update(deliveries)
            .where(among(connection, deliveries.c.id, ids), deliveries.c.lease_token == token)
            .values(due_at=now, lease_token=None, attempts=deliveries.c.attempts - 1)
        )


def oldest_past_due(connection: Connection, *, now: float) -> float | None:
    """Since when the delivery that is most overdue has waited; leases and pauses do not count."""
    may_be_called = endpoints.c.state != EndpointState.DISABLED
    query = (
        select(func.min(deliveries.c.due_at))
        .join(endpoints, endpoints.c.id == deliveries.c.endpoint_id)
        .where(
            deliveries.c.state == DeliveryState.PENDING,
            deliveries.c.due_at <= now,
            may_be_called,
            func.coalesce(endpoints.c.paused_until, 0.0) <= now,
        )
    )
    since: float | None = connection.execute(query).scalar_one()
    return since


def count_by_state(connection: Connection) -> dict[str, int]:
    """How many deliveries wait or are held. Finished ones are not counted: that grows for ever."""
    counts = {}
    for state in (DeliveryState.PENDING, DeliveryState.HELD):
        # Each by a literal of its own, so that each finds its partial index.
        word = text(f"state = '{state}'")
        counts[state.value] = connection.execute(
            select(func.count()).select_from(deliveries).where(word)
        ).scalar_one()
    return {state: count for state, count in counts.items() if count}
