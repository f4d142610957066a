"""Taking what is due under a lease: chosen, leased and read in as few steps as can be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from batchbell.core.lifecycle import LEASE_MOST_SECONDS
from batchbell.core.model import Claimed, Dialect
from batchbell.core.travelling import ResultsMode
from batchbell.storage.engine import dialect_of
from batchbell.storage.wanting import parcels


def take(
    connection: Connection,
    takes: Mapping[str, int],
    heads: Sequence[str],
    limit: int,
    times: Mapping[str, Any],
) -> list[Claimed]:
    """Lease due deliveries: of the endpoints among `heads` the first, of others the longest due.

    `takes` says how many of each, `limit` how many in all; `times` are now, the end of the lease
    and its token.
    """
    first = set(heads)
    rest = {id: most for id, most in takes.items() if id not in first}
    taken_by = _take_sqlite if dialect_of(connection) == "sqlite" else _take_postgresql
    rows = taken_by(connection, rest, heads, limit, times)
    sent = parcels(connection, {row[13] for row in rows if row[13] and row[12] != NONE})
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
            results=MODES[row[12]],
            parcel=sent.get(row[13]),
            ends=bool(row[14]),
            lease_token=times["token"],
            lease_until=times["lease"],
        )
        for row in rows
    ]


DIALECTS = {dialect.value: dialect for dialect in Dialect}
MODES = {mode.value: mode for mode in ResultsMode}
NONE = ResultsMode.NONE.value

_TAKEN = """deliveries.id, deliveries.endpoint_id, deliveries.event_id, deliveries.attempts,
  deliveries.attempts_before, deliveries.dialect, deliveries.watch_id, deliveries.watch_metadata,
  events.body, events.created_at, coalesce(deliveries.resent_at, deliveries.created_at),
  deliveries.message_id, deliveries.results, events.results_id, deliveries.ends"""


def _take_sqlite(
    connection: Connection,
    rest: Mapping[str, int],
    heads: Sequence[str],
    limit: int,
    times: Mapping[str, Any],
) -> list[Any]:
    """There is one writer, so what is chosen here cannot be chosen elsewhere meanwhile.

    Each statement is one step of SQLite for all rows: its thread gives up the interpreter with
    every step, and may wait long to have it back.
    """
    now, ids = times["now"], list[str]()
    if heads:
        first = (now, now, now + LEASE_MOST_SECONDS, json.dumps(heads))
        chosen = json.loads(connection.exec_driver_sql(HEADS_SQLITE, first).scalar_one())
        ids = [id for id in chosen if id is not None][:limit]
    if rest:
        due_of = (now, max(rest.values()), json.dumps(list(rest)))
        chosen = connection.exec_driver_sql(DUE_SQLITE, due_of).scalar_one()
        for endpoint_id, due in json.loads(chosen):
            ids += due[: min(rest[endpoint_id], limit - len(ids))]
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
HEADS_SQLITE = """
SELECT json_group_array((
  SELECT id FROM (
    SELECT id, due_at FROM deliveries WHERE endpoint_id = room.value AND state = 'pending'
    ORDER BY id LIMIT 1)
  WHERE due_at <= ? AND NOT EXISTS (
    SELECT 1 FROM deliveries WHERE endpoint_id = room.value AND state = 'pending'
    AND due_at > ? AND due_at <= ? AND lease_token IS NOT NULL)))
FROM json_each(?) AS room
"""
"""While another is under way, as when an older one is sent again, the first waits too."""
TAKE_SQLITE = """
UPDATE deliveries SET due_at = ?, lease_token = ?, attempts = attempts + 1
WHERE id IN (SELECT value FROM json_each(?))
"""
TAKEN_SQLITE = f"""
SELECT json_group_array(json_array({_TAKEN}))
FROM json_each(?) AS taken JOIN deliveries ON deliveries.id = taken.value
JOIN events ON events.id = deliveries.event_id
"""  # noqa: S608 - no value is put in


def _take_postgresql(
    connection: Connection,
    rest: Mapping[str, int],
    heads: Sequence[str],
    limit: int,
    times: Mapping[str, Any],
) -> list[Any]:
    taken: list[Any] = []
    if heads:
        first = {"ids": heads, "limit": limit, "longest": times["now"] + LEASE_MOST_SECONDS}
        taken += connection.execute(TAKE_HEADS_POSTGRESQL, {**times, **first})
    if rest and len(taken) < limit:
        room = {"ids": list(rest), "takes": list(rest.values()), "limit": limit - len(taken)}
        taken += connection.execute(TAKE_POSTGRESQL, {**times, **room})
    return taken


_TAKE_POSTGRESQL = f"""
UPDATE deliveries SET due_at = :lease, lease_token = :token, attempts = deliveries.attempts + 1
FROM events
WHERE deliveries.id = ANY(ARRAY(SELECT id FROM due)) AND events.id = deliveries.event_id
RETURNING {_TAKEN}
"""  # noqa: S608 - no value is put in
TAKE_POSTGRESQL = text(f"""
WITH due AS MATERIALIZED (
  SELECT d.id FROM unnest(CAST(:ids AS text[]), CAST(:takes AS int[])) AS room(id, k)
  CROSS JOIN LATERAL (
    SELECT id FROM deliveries
    WHERE endpoint_id = room.id AND state = 'pending' AND due_at <= :now
    ORDER BY due_at LIMIT room.k FOR UPDATE SKIP LOCKED) d
  LIMIT :limit)
{_TAKE_POSTGRESQL}""")  # noqa: S608 - no value is put in
TAKE_HEADS_POSTGRESQL = text(f"""
WITH due AS MATERIALIZED (
  SELECT d.id FROM unnest(CAST(:ids AS text[])) AS room(id)
  CROSS JOIN LATERAL (
    SELECT id FROM deliveries WHERE endpoint_id >= room.id AND state = 'pending'
    ORDER BY endpoint_id, id LIMIT 1) head
  CROSS JOIN LATERAL (
    SELECT id FROM deliveries
    WHERE id = head.id AND endpoint_id = room.id AND state = 'pending' AND due_at <= :now
    AND NOT EXISTS (
      SELECT 1 FROM deliveries other WHERE other.endpoint_id = room.id
      AND other.state = 'pending' AND other.due_at > :now AND other.due_at <= :longest
      AND other.lease_token IS NOT NULL)
    FOR UPDATE SKIP LOCKED) d
  LIMIT :limit)
{_TAKE_POSTGRESQL}""")  # noqa: S608 - no value is put in
