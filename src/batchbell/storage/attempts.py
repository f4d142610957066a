"""Writing down what attempts brought, and what was decided of their deliveries: fenced, in bulk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, text

from batchbell.core import sent_headers
from batchbell.core.lifecycle import Settlement
from batchbell.core.model import Claimed, DeliveryState, Outcome
from batchbell.storage.bulk import in_one_step, in_steps, unnested, values_sqlite
from batchbell.storage.engine import dialect_of, storable


class Tried(Struct, frozen=True):
    """One attempt that was made: what came of it, and what was decided."""

    delivery: Claimed
    outcome: Outcome
    settlement: Settlement


def write(connection: Connection, tried: Sequence[Tried], *, now: float) -> set[str]:
    """Write those whose lease still holds, and return their ids; the others are passed over."""
    if not tried:
        return set()
    if dialect_of(connection) == "sqlite":
        return _write_sqlite(connection, tried, now)
    rows = [(one.delivery.lease_token, *_attempt(one), *_change(one, now)) for one in tried]
    columns = (unnested(list(column)) for column in zip(*rows, strict=True))
    given = dict(zip(COLUMNS, columns, strict=True))
    return set(connection.execute(WRITE, given).scalars())


def _write_sqlite(connection: Connection, tried: Sequence[Tried], now: float) -> set[str]:
    """Each statement is one step of SQLite for many rows.

    Its thread gives up the interpreter with every step, and may wait long to have it back.
    """
    ids = (json.dumps([one.delivery.id for one in tried]),)
    leases = in_one_step(connection, LEASES, ids)
    kept = [one for one in tried if leases.get(one.delivery.id) == one.delivery.lease_token]
    in_steps(connection, [_attempt(one) for one in kept], _recording)
    changes: dict[tuple[Any, ...], list[str]] = {}
    for one in kept:
        change = (*_change(one, now), one.outcome.status)
        changes.setdefault(change, []).append(one.delivery.id)
    same = [[*change, ids] for change, ids in changes.items()]
    connection.exec_driver_sql(SETTLE, (msgspec.json.encode(same).decode(),))
    return {one.delivery.id for one in kept}


_ATTEMPT_COLUMNS = {
    "id": "text",
    "number": "int",
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
"""What an attempt keeps; the first is the id of its delivery."""
_CHANGE_COLUMNS = {
    "state": "text",
    "due_at": "float8",
    "finished_at": "float8",
    "needs_you": "text",
    "error": "text",
    "at": "float8",
}
"""What becomes of its delivery."""
COLUMNS = {"token": "text"} | _ATTEMPT_COLUMNS | _CHANGE_COLUMNS


def _attempt(tried: Tried) -> tuple[Any, ...]:
    """The values of _ATTEMPT_COLUMNS."""
    delivery, outcome, timings = tried.delivery, tried.outcome, tried.outcome.timings
    return (
        delivery.id,
        delivery.attempt,
        outcome.started_at,
        outcome.duration_ms,
        outcome.status,
        outcome.fault.value if outcome.fault else None,
        _kept(outcome.detail),
        _kept(outcome.location),
        _kept(outcome.remote_address),
        _kept_headers(outcome.response_headers),
        _kept(outcome.response_body),
        timings.dns_ms,
        timings.connect_ms,
        timings.tls_ms,
        timings.first_byte_ms,
        _request_headers(delivery, outcome),
    )


def _change(tried: Tried, now: float) -> tuple[Any, ...]:
    """The values of _CHANGE_COLUMNS."""
    settlement = tried.settlement
    delivered = settlement.state is DeliveryState.DELIVERED
    done = delivered or settlement.state is DeliveryState.EXHAUSTED
    return (
        settlement.state.value,
        settlement.due_at,
        now if done else None,
        _kept(settlement.needs_you),
        None if delivered else _kept(error_of(tried.outcome)),
        now,
    )


def _kept(words: str | None) -> str | None:
    return None if words is None else storable(words)


def _kept_headers(headers: Mapping[str, str]) -> str | None:
    if not headers:
        return None
    plain = "".join([*headers, *headers.values()])
    if storable(plain) is not plain:
        headers = {storable(name): storable(value) for name, value in headers.items()}
    return msgspec.json.encode(headers).decode()


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


ATTEMPT_FIELDS = tuple(_ATTEMPT_COLUMNS)
_ATTEMPT = ", ".join(("delivery_id", *ATTEMPT_FIELDS[1:]))
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

LEASES = """
SELECT json_group_object(id, lease_token) FROM deliveries
WHERE id IN (SELECT value FROM json_each(?)) AND state = 'pending'
"""
_SAME = (*_CHANGE_COLUMNS, "status", "ids")
_EXTRACTED = ", ".join(f"json_extract(value, '$[{n}]') AS {name}" for n, name in enumerate(_SAME))
SETTLE = f"""
WITH same AS MATERIALIZED (SELECT {_EXTRACTED} FROM json_each(?))
UPDATE deliveries AS d SET {_SETTLED}
FROM (SELECT one.value AS id, same.* FROM same, json_each(same.ids) AS one) AS r
WHERE d.id = r.id
"""  # noqa: S608 - no value is put in
"""For many deliveries at once, of which most become the same: written so once for all of them."""


@cache
def _recording(number: int) -> str:
    return f"INSERT INTO attempts ({_ATTEMPT}) {values_sqlite(ATTEMPT_FIELDS, number)}"
