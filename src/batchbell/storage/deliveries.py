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

from batchbell.core.health import PROBE_FURTHEST_SECONDS, Change
from batchbell.core.model import Claimed, DeliveryState, Dialect, Endpoint, EndpointState, Mint
from batchbell.storage import attempts
from batchbell.storage.attempts import Tried as Tried  # noqa: PLC0414 - what `settle` takes
from batchbell.storage.bulk import among
from batchbell.storage.endpoints import endpoints_by_id
from batchbell.storage.engine import dialect_of
from batchbell.storage.notices import tell_of_exhausted
from batchbell.storage.outages import fold, take_probes
from batchbell.storage.schema import deliveries, endpoints

RING_STEP = 500
"""Endpoints that one claim visits at most."""


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
    attempt is counted here, before it is made: what kills a worker is not tried for ever. Where
    the breaker of an endpoint is open, one delivery is taken to probe it, if a probe is due.
    """
    ahead = now + PROBE_FURTHEST_SECONDS
    asked = {"after": after, "step": RING_STEP, "now": now, "ahead": ahead}
    ring = connection.execute(RING, asked).all()
    ready = sorted(row.id for row in ring if row.ready)
    takes = {id: take for id in ready if (take := rooms.get(id, room)) > 0}
    times: dict[str, Any] = {"now": now, "lease": now + lease_seconds, "token": token}
    if parked := [row.id for row in ring if row.ready == PROBE and row.id in takes]:
        mine = take_probes(connection, parked, now=now, until=times["lease"])
        takes |= dict.fromkeys(parked, 0) | dict.fromkeys(mine, 1)
        takes = {id: take for id, take in takes.items() if take}
    taken = _take(connection, takes, limit, times) if takes and limit > 0 else []
    visited = {one.endpoint_id for one in taken}
    cursor = ring[-1].id if len(ring) == RING_STEP else ""
    if taken and len(taken) >= limit:
        cursor = max(visited)
    return Claim(taken, endpoints_by_id(connection, visited, now=now) if visited else {}, cursor)


PROBE = 2
"""Of an endpoint whose breaker is open: one of its deliveries may be sent to try it."""
RING = text("""
WITH RECURSIVE ring(id, n) AS (
  SELECT (SELECT min(endpoint_id) FROM deliveries
          WHERE state = 'pending' AND endpoint_id > :after), 1
  UNION ALL
  SELECT (SELECT min(d.endpoint_id) FROM deliveries d
          WHERE d.state = 'pending' AND d.endpoint_id > ring.id), ring.n + 1
  FROM ring WHERE ring.id IS NOT NULL AND ring.n < :step)
SELECT ring.id,
  CASE WHEN EXISTS (SELECT 1 FROM deliveries d WHERE d.endpoint_id = ring.id
                    AND d.state = 'pending' AND d.due_at <= :now)
  THEN (SELECT CASE WHEN e.state = 'disabled' OR e.paused_until > :now THEN 0
                    WHEN e.probe_at IS NULL THEN 1
                    WHEN e.probe_at <= :now OR e.probe_at > :ahead THEN 2
                    ELSE 0 END
        FROM endpoints e WHERE e.id = ring.id)
  ELSE 0 END AS ready
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
            first_due_at=row[10],
            message_id=row[11],
            lease_token=times["token"],
            lease_until=times["lease"],
        )
        for row in rows
    ]


DIALECTS = {dialect.value: dialect for dialect in Dialect}

_TAKEN = """deliveries.id, deliveries.endpoint_id, deliveries.event_id, deliveries.attempts,
  deliveries.attempts_before, deliveries.dialect, deliveries.watch_id, deliveries.watch_metadata,
  events.body, events.created_at, coalesce(deliveries.resent_at, deliveries.created_at),
  deliveries.message_id"""


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


@dataclass(frozen=True, slots=True)
class Settled:
    """What was written: the ids of the deliveries, and what it changed about their endpoints."""

    written: set[str]
    changes: list[Change]


def settle(connection: Connection, tried: Sequence[Tried], *, mint: Mint, now: float) -> Settled:
    """Write attempts and what they make of their deliveries and endpoints, fenced by the lease.

    A delivery whose lease was lost is passed over whole.
    """
    written = attempts.write(connection, tried, now=now)
    kept = [one for one in tried if one.delivery.id in written]
    changes = fold(connection, kept, mint=mint, now=now)
    ended = [t.delivery.id for t in kept if t.settlement.state is DeliveryState.EXHAUSTED]
    tell_of_exhausted(connection, ended, mint=mint, now=now)
    return Settled(written, changes)


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


def give_up(connection: Connection, claimed: Sequence[Claimed], *, mint: Mint, now: float) -> None:
    """End deliveries that were claimed after the last attempt of their schedule was cut short."""
    ended = []
    for one in claimed:
        given_up = connection.execute(
            update(deliveries)
            .where(deliveries.c.id == one.id, deliveries.c.lease_token == one.lease_token)
            .values(
                state=DeliveryState.EXHAUSTED,
                due_at=None,
                lease_token=None,
                finished_at=now,
                attempts=deliveries.c.attempts - 1,
                needs_you="The outcome of the last attempt is unknown: send the event again.",
            )
        )
        ended += [one.id] * given_up.rowcount
    tell_of_exhausted(connection, ended, mint=mint, now=now)


def oldest_past_due(connection: Connection, *, now: float) -> float | None:
    """Since when the delivery that is most overdue has waited.

    Leases do not count, nor does what waits for an endpoint: one that is paused, disabled, or
    behind an open breaker. Asks one question for each endpoint, however much waits.
    """
    first = (
        select(func.min(deliveries.c.due_at))
        .where(deliveries.c.endpoint_id == endpoints.c.id, text("deliveries.state = 'pending'"))
        .scalar_subquery()
    )
    firsts = select(first.label("due_at")).where(
        endpoints.c.state != EndpointState.DISABLED,
        func.coalesce(endpoints.c.paused_until, 0.0) <= now,
        endpoints.c.opened_at.is_(None),
    )
    oldest = firsts.subquery()
    query = select(func.min(oldest.c.due_at)).where(oldest.c.due_at <= now)
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
