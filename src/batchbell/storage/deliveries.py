"""The delivery queue: the table itself. Claim, settle and give back, each in bulk.

A claim visits endpoints in a ring and takes a few deliveries from each, so that neither its cost
nor its fairness depends on how much waits for any one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, text, update

from batchbell.core.health import PROBE_FURTHEST_SECONDS, Change
from batchbell.core.model import Claimed, DeliveryState, Endpoint, Mint
from batchbell.core.rate import MARGIN_SECONDS
from batchbell.storage import attempts
from batchbell.storage.attempts import Tried as Tried  # noqa: PLC0414 - what `settle` takes
from batchbell.storage.bulk import among
from batchbell.storage.endpoints import endpoints_by_id
from batchbell.storage.limits import Limit, next_token_at, spend, take_limits
from batchbell.storage.notices import tell_of_exhausted
from batchbell.storage.outages import fold, hold_back_disabled, take_probes
from batchbell.storage.schema import deliveries
from batchbell.storage.taking import take

RING_STEP = 500
"""Endpoints that one claim visits at most."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim brought: the deliveries, where they go, and where the ring goes on."""

    deliveries: list[Claimed]
    endpoints: dict[str, Endpoint]
    cursor: str
    """The last endpoint that was visited; empty when the ring came to its end."""
    token_at: float | None = None
    """When the next of those endpoints may be called that were passed over for their rate."""


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

    From an endpoint in `rooms` at most that many are taken, from another at most `room`; no more
    than its rate allows, and of an ordered one the first that waits, alone. Each attempt is
    counted here, before it is made: what kills a worker is not tried for ever. Where the breaker
    of an endpoint is open, one delivery is taken to probe it, if a probe is due.
    """
    words = _walk(connection, after, now)
    times: dict[str, Any] = {"now": now, "lease": now + lease_seconds, "token": token}
    takes = {
        id: most
        for id in sorted(words)
        if words[id] & (FREE | PROBE) and (most := rooms.get(id, room)) > 0
    }
    limits = take_limits(connection, [id for id in takes if words[id] & LIMITED])
    takes = _allowed(connection, takes, words, limits, times)
    heads = [id for id in takes if id in limits and limits[id].ordered]
    taken = take(connection, takes, heads, limit, times) if takes and limit > 0 else []
    visited = Counter(one.endpoint_id for one in taken)
    spend(connection, limits, visited, now=now)
    cursor = max(words) if len(words) == RING_STEP else ""
    if taken and len(taken) >= limit:
        cursor = max(visited.keys() - heads, default=max(visited))
    return Claim(
        taken,
        endpoints_by_id(connection, visited, now=now) if visited else {},
        cursor,
        next_token_at(connection, [id for id, word in words.items() if word & WAITS]),
    )


FREE, PROBE, WAITS, LIMITED = 1, 2, 4, 8
"""What the ring says of an endpoint that has deliveries due: send; or try it with one, as its
breaker is open; or wait for its rate. And whether its owner limits its rate or wants order."""
RING = text("""
WITH RECURSIVE ring(id, n) AS (
  SELECT (SELECT min(endpoint_id) FROM deliveries
          WHERE state = 'pending' AND endpoint_id > :after), 1
  UNION ALL
  SELECT (SELECT min(d.endpoint_id) FROM deliveries d
          WHERE d.state = 'pending' AND d.endpoint_id > ring.id), ring.n + 1
  FROM ring WHERE ring.id IS NOT NULL AND ring.n < :step)
SELECT ring.id,
  CASE WHEN (SELECT min(d.due_at) FROM deliveries d
             WHERE d.endpoint_id = ring.id AND d.state = 'pending') <= :now
  THEN (SELECT
          CASE WHEN e.state = 'disabled' OR e.paused_until > :now THEN 0
               WHEN e.rate_at > :now AND e.rate_at <= :soon + 1 / e.rate_limit THEN 4
               WHEN e.ordered AND (
                 SELECT h.due_at FROM deliveries h
                 WHERE h.endpoint_id >= e.id AND h.state = 'pending'
                 ORDER BY h.endpoint_id, h.id LIMIT 1) > :now
               THEN 0
               WHEN e.probe_at IS NULL THEN 1
               WHEN e.probe_at <= :now OR e.probe_at > :ahead THEN 2
               ELSE 0 END
          + CASE WHEN e.ordered OR e.rate_limit IS NOT NULL THEN 8 ELSE 0 END
        FROM endpoints e WHERE e.id = ring.id)
  ELSE 0 END AS ready
FROM ring WHERE ring.id IS NOT NULL ORDER BY ring.n
""")
"""Asked for the least and for the first in the order of an index: where one endpoint has nearly all
rows, PostgreSQL expects them at every other too, and looks for any row by reading the table."""


def _walk(connection: Connection, after: str, now: float) -> dict[str, int]:
    """Up to RING_STEP endpoints for which deliveries wait, and what is to be done for each."""
    furthest = {"soon": now + MARGIN_SECONDS, "ahead": now + PROBE_FURTHEST_SECONDS}
    asked = {"after": after, "step": RING_STEP, "now": now, **furthest}
    return {row.id: row.ready for row in connection.execute(RING, asked)}


def _allowed(
    connection: Connection,
    takes: Mapping[str, int],
    words: Mapping[str, int],
    limits: Mapping[str, Limit],
    times: Mapping[str, Any],
) -> dict[str, int]:
    """What may be taken of each endpoint by its limits and its breaker."""
    held = {id for id in takes if words[id] & LIMITED and id not in limits}
    rooms = {id: limit.room(times["now"]) for id, limit in limits.items()}
    bounded = {id: min(take, rooms.get(id, take)) for id, take in takes.items() if id not in held}
    parked = [id for id, take in bounded.items() if take and words[id] & PROBE]
    mine = take_probes(connection, parked, now=times["now"], until=times["lease"])
    bounded |= dict.fromkeys(parked, 0) | dict.fromkeys(mine, 1)
    return {id: take for id, take in bounded.items() if take}


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
    """Return deliveries that were claimed and never tried: due now, the attempt not counted.

    Those of an endpoint that was disabled meanwhile are held.
    """
    tokens: dict[str, list[str]] = {}
    for one in claimed:
        tokens.setdefault(one.lease_token, []).append(one.id)
    for token, ids in tokens.items():
        connection.execute(
            update(deliveries)
            .where(among(connection, deliveries.c.id, ids), deliveries.c.lease_token == token)
            .values(due_at=now, lease_token=None, attempts=deliveries.c.attempts - 1)
        )
    hold_back_disabled(connection, only={one.endpoint_id for one in claimed}, now=now)


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

    Leases do not count, nor does what waits for an endpoint: one that is paused, disabled, behind
    an open breaker, or served at the rate it wants; of an ordered one only the first counts. Asks
    one question for each endpoint that something waits for, however much that is.
    """
    times = {"now": now, "served": now - MARGIN_SECONDS}
    since: float | None = connection.execute(OLDEST, times).scalar_one()
    return since


OLDEST = text("""
WITH RECURSIVE ring(id) AS (
  SELECT (SELECT min(endpoint_id) FROM deliveries WHERE state = 'pending')
  UNION ALL
  SELECT (SELECT min(d.endpoint_id) FROM deliveries d
          WHERE d.state = 'pending' AND d.endpoint_id > ring.id)
  FROM ring WHERE ring.id IS NOT NULL)
SELECT min(first.due_at) FROM (
  SELECT CASE WHEN e.ordered
    THEN (SELECT h.due_at FROM deliveries h WHERE h.endpoint_id >= e.id AND h.state = 'pending'
          ORDER BY h.endpoint_id, h.id LIMIT 1)
    ELSE (SELECT min(d.due_at) FROM deliveries d
          WHERE d.endpoint_id = e.id AND d.state = 'pending')
    END AS due_at
  FROM ring JOIN endpoints e ON e.id = ring.id
  WHERE (e.rate_limit IS NULL OR coalesce(e.rate_at, 0) <= :served)
    AND e.state <> 'disabled' AND coalesce(e.paused_until, 0) <= :now AND e.opened_at IS NULL
) AS first WHERE first.due_at <= :now
""")


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
