"""Writing down what attempts brought, and what was decided of their deliveries: fenced, in bulk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, text

from batchbell.core import sent_headers
from batchbell.core.lifecycle import Settlement
from batchbell.core.model import Claimed, DeliveryState, Outcome
from batchbell.storage.bulk import columns_of, packed, unpacked
from batchbell.storage.engine import dialect_of, storable


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt that was made: what came of it, and what was decided."""

    delivery: Claimed
    outcome: Outcome
    settlement: Settlement


def write(connection: Connection, tried: Sequence[Tried], *, now: float) -> set[str]:
    """Write those whose lease still holds, and return their ids; the others are passed over."""
    rows = [_row(one, now) for one in tried]
    if dialect_of(connection) == "postgresql":
        return set(connection.execute(WRITE, columns_of(list(COLUMNS), rows)).scalars())
    return _write_sqlite(connection, rows)


def _write_sqlite(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Each statement is one step of SQLite for all rows.

    Its thread gives up the interpreter with every step, and may wait long to have it back.
    """
    leases = packed(rows, ("id", "token"))
    held = set(json.loads(connection.exec_driver_sql(HELD, (leases,)).scalar_one()))
    kept = [row for row in rows if row["id"] in held]
    connection.exec_driver_sql(RECORD, (packed(kept, ATTEMPT_FIELDS),))
    connection.exec_driver_sql(SETTLE, (packed(kept, SETTLED_FIELDS),))
    return held


COLUMNS = {
    "id": "text",
    "token": "text",
    "number": "int",
    "state": "text",
    "due_at": "float8",
    "finished_at": "float8",
    "needs_you": "text",
    "error": "text",
    "at": "float8",
    "started_at": "float8",
    "duration_ms": "float8",
    "status": "int",
    "fault": "text",
    "detail": "text",
    "location": "text",
    "remote_address": "text",
    "response_headers": "text",
    "response_body": "text",
    "dns_ms": "float8",
    "connect_ms": "float8",
    "tls_ms": "float8",
    "first_byte_ms": "float8",
    "request_headers": "text",
}


def _row(tried: Tried, now: float) -> dict[str, Any]:
    delivery, outcome, settlement = tried.delivery, tried.outcome, tried.settlement
    done = settlement.state in (DeliveryState.DELIVERED, DeliveryState.EXHAUSTED)
    delivered = settlement.state is DeliveryState.DELIVERED
    timings = outcome.timings
    return {
        "id": delivery.id,
        "token": delivery.lease_token,
        "number": delivery.attempt,
        "state": settlement.state.value,
        "due_at": settlement.due_at,
        "finished_at": now if done else None,
        "at": now,
        "needs_you": _kept(settlement.needs_you),
        "error": None if delivered else _kept(error_of(outcome)),
        "started_at": outcome.started_at,
        "duration_ms": outcome.duration_ms,
        "status": outcome.status,
        "fault": outcome.fault.value if outcome.fault else None,
        "detail": _kept(outcome.detail),
        "location": _kept(outcome.location),
        "remote_address": _kept(outcome.remote_address),
        "response_headers": _kept_headers(outcome.response_headers),
        "response_body": _kept(outcome.response_body),
        "dns_ms": timings.dns_ms,
        "connect_ms": timings.connect_ms,
        "tls_ms": timings.tls_ms,
        "first_byte_ms": timings.first_byte_ms,
        "request_headers": _request_headers(delivery, outcome),
    }


def _kept(words: str | None) -> str | None:
    return None if words is None else storable(words)


def _kept_headers(headers: Mapping[str, str]) -> str | None:
    if not headers:
        return None
    return json.dumps({storable(name): storable(value) for name, value in headers.items()})


def _request_headers(delivery: Claimed, outcome: Outcome) -> str | None:
    if not outcome.request_headers:
        return None
    implied = sent_headers.implied(
        message_id=delivery.message_id or delivery.event_id,
        attempt=delivery.attempt,
        started_at=outcome.started_at,
    )
    return _encoded(tuple(sent_headers.beyond(outcome.request_headers, implied).items()))


@lru_cache(maxsize=1024)
def _encoded(headers: tuple[tuple[str, str], ...]) -> str:
    """Mostly the same for all attempts of an endpoint."""
    return json.dumps(dict(headers))


def error_of(outcome: Outcome) -> str:
    """A failure in a few words, for lists."""
    return outcome.detail or (f"HTTP {outcome.status}" if outcome.status else "no answer")


RECORDED = (
    "number",
    "started_at",
    "duration_ms",
    "status",
    "fault",
    "detail",
    "location",
    "remote_address",
    "response_headers",
    "response_body",
    "dns_ms",
    "connect_ms",
    "tls_ms",
    "first_byte_ms",
    "request_headers",
)
"""What an attempt keeps, beside the id of its delivery."""
ATTEMPT_FIELDS = ("id", *RECORDED)
_ATTEMPT = ", ".join(("delivery_id", *RECORDED))
_ARRAYS = ", ".join(f"CAST(:{name} AS {type_}[])" for name, type_ in COLUMNS.items())

OF_DELETED_WATCH = "Its watch was deleted while it was being sent."
_ENDS = "d.ends AND r.state IN ('pending', 'held')"
_SETTLED = f"""
  state = CASE WHEN {_ENDS} THEN 'exhausted' ELSE r.state END,
  due_at = CASE WHEN {_ENDS} THEN NULL ELSE r.due_at END,
  finished_at = CASE WHEN {_ENDS} THEN r.at ELSE r.finished_at END,
  needs_you = CASE WHEN {_ENDS} THEN '{OF_DELETED_WATCH}' ELSE r.needs_you END,
  last_status = r.status, last_error = r.error, lease_token = NULL
"""

WRITE = text(f"""
WITH r AS MATERIALIZED (SELECT * FROM unnest({_ARRAYS}) AS r({", ".join(COLUMNS)})),
written AS (
  UPDATE deliveries AS d SET {_SETTLED}
  FROM r WHERE d.id = r.id AND d.lease_token = r.token
  RETURNING {", ".join(f"r.{name}" for name in ATTEMPT_FIELDS)})
INSERT INTO attempts ({_ATTEMPT}) SELECT * FROM written
RETURNING delivery_id
""")  # noqa: S608 - no value is put in
"""Only what is pending has a lease: asked for that as well, PostgreSQL may read all that waits."""

SETTLED_FIELDS = ("id", "state", "due_at", "finished_at", "needs_you", "status", "error", "at")


HELD = """
SELECT json_group_array(d.id) FROM json_each(?) AS r
JOIN deliveries AS d ON d.id = json_extract(r.value, '$[0]')
WHERE d.lease_token = json_extract(r.value, '$[1]') AND d.state = 'pending'
"""
RECORD = f"""
INSERT INTO attempts ({_ATTEMPT}) SELECT {unpacked(ATTEMPT_FIELDS)} FROM json_each(?)
"""  # noqa: S608 - no value is put in
SETTLE = f"""
WITH r AS MATERIALIZED (SELECT {unpacked(SETTLED_FIELDS)} FROM json_each(?))
UPDATE deliveries AS d SET {_SETTLED}
FROM r WHERE d.id = r.id
"""  # noqa: S608 - no value is put in
