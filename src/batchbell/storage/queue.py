"""The delivery queue: the table itself. Claim, settle and give back, each in bulk.

A claim visits projects in a ring, and of each its endpoints in a ring of their own. It takes a few
deliveries from each endpoint, of the projects by turns, so that neither its cost nor its fairness
depends on how much waits for any one of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, select, text, update

from batchbell.core import rate
from batchbell.core.attachment import ResultsMode
from batchbell.core.health import PROBE_FURTHEST_SECONDS, Change
from batchbell.core.lifecycle import LEASE_MOST_SECONDS
from batchbell.core.model import Claimed, DeliveryState, Dialect, Endpoint, Mint
from batchbell.core.rate import MARGIN_SECONDS
from batchbell.core.slots import MOST
from batchbell.storage import attempts
from batchbell.storage.attempts import Tried as Tried  # noqa: PLC0414 - what `settle` takes
from batchbell.storage.bulk import among, by_index, in_one_step, update_all
from batchbell.storage.endpoints import endpoints_by_id
from batchbell.storage.engine import dialect_of
from batchbell.storage.health import fold, hold_back_disabled, take_probes
from batchbell.storage.leases import claimable, due_next
from batchbell.storage.outbox import announce_exhausted
from batchbell.storage.results import attachments
from batchbell.storage.schema import deliveries, endpoints

RING_STEP = 500
"""Endpoints that one claim visits at most."""
PROJECTS_STEP = 16
"""Projects that one claim takes deliveries of at most."""
PROJECTS_SEEN = 200
"""Projects that one claim looks through for some that may have more."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next claim goes on."""

    project: str = ""
    """After this one; empty where the ring of projects begins."""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """Of projects in whose ring a claim has stopped: after which endpoint."""


START = Place()


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim brought: the deliveries, where they go, and where the rings go on."""

    deliveries: list[Claimed]
    endpoints: dict[str, Endpoint]
    place: Place = START
    token_at: float | None = None
    """When the next of those endpoints may be called that were passed over for their rate."""
    more: bool = False
    """Whether the rings that were walked did not come to their ends."""


def claim_due(
    connection: Connection,
    *,
    after: Place = START,
    projects: Mapping[str, int] | None = None,
    project: int = RING_STEP,
    rooms: Mapping[str, int],
    room: int,
    limit: int,
    now: float,
    lease_seconds: float,
    token: str,
) -> Claim:
    """Take up to `limit` due deliveries, walking the rings on from `after`.

    A project among `projects` is passed over if it may have no more; `project` is what another may
    have. From an endpoint in `rooms` at most that many are taken, from another at most `room`; no
    more than its rate allows, and of an ordered one the first that waits, alone. Each attempt is
    counted here, before it is made: what kills a worker is not tried for ever. Where the breaker
    of an endpoint is open, one delivery is taken to probe it, if a probe is due.
    """
    by_index(connection)
    shares = dict(projects or {})
    chosen, project_place = _projects(connection, after.project, shares, project)
    walks = _walk(connection, chosen, after.endpoints, now)
    words = {id: word for walk in walks.values() for id, word in walk.items()}
    times: dict[str, Any] = {"now": now, "lease": now + lease_seconds, "token": token}
    takes = {
        id: most
        for id in _by_turns(list(walks.values()))
        if words[id] & (FREE | PROBE) and (most := rooms.get(id, room)) > 0
    }
    limits = take_limits(connection, [id for id in takes if words[id] & LIMITED])
    takes = _allowed(connection, takes, words, limits, times)
    heads = [id for id in takes if id in limits and limits[id].ordered]
    taken = take(connection, takes, heads, limit, times) if takes and limit > 0 else []
    visited = Counter(one.endpoint_id for one in taken)
    spend(connection, limits, visited, now=now)
    cut = bool(taken) and len(taken) >= limit
    places = _places(walks, visited.keys() - heads if cut else None, visited.keys())
    left = {id: at for id, at in after.endpoints.items() if id not in walks}
    return Claim(
        taken,
        endpoints_by_id(connection, visited, now=now) if visited else {},
        Place(project_place, left | places),
        next_token_at(connection, [id for id, word in words.items() if word & WAITS]),
        more=bool(project_place or places),
    )


def _projects(
    connection: Connection, after: str, rooms: Mapping[str, int], room: int
) -> tuple[list[str], str]:
    """The next projects for which something waits and that may have more; and after which to go on.

    The place is empty where the ring came to its end.
    """
    asked = {"after": after, "step": PROJECTS_SEEN}
    if dialect_of(connection) == "sqlite":
        seen = in_one_step(connection, PROJECTS_SQLITE, asked)
    else:
        seen = list(connection.execute(PROJECTS, asked).scalars())
    some = [id for id in seen if rooms.get(id, room) > 0][:PROJECTS_STEP]
    if len(some) == PROJECTS_STEP and some[-1] != seen[-1]:
        return some, some[-1]
    return some, seen[-1] if len(seen) == PROJECTS_SEEN else ""


def _by_turns(walks: Sequence[Mapping[str, int]]) -> list[str]:
    """The endpoints of several projects, one of each by turns."""
    rows = zip_longest(*(sorted(walk) for walk in walks))
    return [id for row in rows for id in row if id is not None]


def _places(
    walks: Mapping[str, Mapping[str, int]], reached: Set[str] | None, taken: Set[str]
) -> dict[str, str]:
    """Where the ring of each project goes on that did not come to its end.

    `reached` are the endpoints of which something was taken before the claim was cut short; an
    ordered one may be far ahead of the others. None where it was not.
    """
    step = RING_STEP // max(1, len(walks))
    places = {}
    for project, walk in walks.items():
        if reached is not None and not taken.isdisjoint(walk):
            places[project] = max(walk.keys() & reached, default=max(walk.keys() & taken))
        elif len(walk) == step:
            places[project] = max(walk)
    return places


_PROJECTS = """
WITH RECURSIVE ring(id, n) AS (
  SELECT (SELECT d.project_id FROM deliveries d
          WHERE d.state = 'pending' AND d.project_id > :after
          ORDER BY d.project_id, d.endpoint_id, d.id LIMIT 1), 1
  UNION ALL
  SELECT (SELECT d.project_id FROM deliveries d
          WHERE d.state = 'pending' AND d.project_id > ring.id
          ORDER BY d.project_id, d.endpoint_id, d.id LIMIT 1), ring.n + 1
  FROM ring WHERE ring.id IS NOT NULL AND ring.n < :step)
SELECT ring.id FROM ring WHERE ring.id IS NOT NULL ORDER BY ring.n
"""
"""As the ring of endpoints: asked so that only its index has this order."""
PROJECTS = text(_PROJECTS)
PROJECTS_SQLITE = f"SELECT json_group_array(id) FROM ({_PROJECTS})"  # noqa: S608 - our own

FREE, PROBE, WAITS, LIMITED = 1, 2, 4, 8
"""What the ring says of an endpoint that has deliveries due: send; or try it with one, as its
breaker is open; or wait for its rate. And whether its owner limits its rate or wants order."""
_NEXT_SQLITE = """
  SELECT min(d.endpoint_id) FROM deliveries d INDEXED BY ix_deliveries_ring
  WHERE d.state = 'pending' AND d.project_id = :project AND d.endpoint_id > {after}"""
_NEXT_POSTGRESQL = """
  SELECT d.endpoint_id FROM deliveries d
  WHERE d.state = 'pending' AND (d.project_id, d.endpoint_id) > (:project, {after})
  AND d.project_id <= :project ORDER BY d.project_id, d.endpoint_id LIMIT 1"""
"""Asked so that only the index of the ring has this order."""
_READY_SQLITE = """
  (SELECT min(d.due_at) FROM deliveries d
   WHERE d.endpoint_id = ring.id AND d.state = 'pending') <= :now"""
_READY_POSTGRESQL = f"""
  (SELECT d.due_at FROM deliveries d
   WHERE d.endpoint_id = ring.id AND d.state = 'pending' AND {claimable("d")}
   ORDER BY d.due_at LIMIT 1) IS NOT NULL"""  # noqa: S608 - our own names


def _ring(next_: str, ready: str) -> str:
    return f"""
WITH RECURSIVE ring(id, n) AS (
  SELECT ({next_.format(after=":after")}), 1
  UNION ALL
  SELECT ({next_.format(after="ring.id")}), ring.n + 1
  FROM ring WHERE ring.id IS NOT NULL AND ring.n < :step)
SELECT ring.id,
  CASE WHEN {ready}
  THEN (SELECT
          CASE WHEN e.state = 'disabled' OR e.paused_until > :now THEN 0
               WHEN e.rate_at > :now AND e.rate_at <= :soon + 1 / e.rate_limit THEN 4
               WHEN e.ordered AND (
                 SELECT {due_next("h")} FROM deliveries h
                 WHERE h.project_id = :project AND h.endpoint_id >= e.id AND h.state = 'pending'
                 ORDER BY h.project_id, h.endpoint_id, h.id LIMIT 1) > :now
               THEN 0
               WHEN e.probe_at IS NULL THEN 1
               WHEN e.probe_at <= :now OR e.probe_at > :ahead THEN 2
               ELSE 0 END
          + CASE WHEN e.ordered OR e.rate_limit IS NOT NULL THEN 8 ELSE 0 END
        FROM endpoints e WHERE e.id = ring.id)
  ELSE 0 END AS ready
FROM ring WHERE ring.id IS NOT NULL ORDER BY ring.n
"""  # noqa: S608 - no value is put in


RING_SQLITE = f"SELECT json_group_object(id, ready) FROM ({_ring(_NEXT_SQLITE, _READY_SQLITE)})"  # noqa: S608 - our own
RING = text(_ring(_NEXT_POSTGRESQL, _READY_POSTGRESQL))
"""Asked for the least and for the first in the order of an index: where one endpoint has nearly all
rows, PostgreSQL expects them at every other too, and looks for any row by reading the table."""


def _walk(
    connection: Connection, projects: Sequence[str], after: Mapping[str, str], now: float
) -> dict[str, dict[str, int]]:
    """Endpoints for which deliveries of each project wait, and what is to be done for each.

    RING_STEP at most in all.
    """
    furthest = {"soon": now + MARGIN_SECONDS, "ahead": now + PROBE_FURTHEST_SECONDS}
    asked = {"step": RING_STEP // max(1, len(projects)), "now": now, **furthest}
    return {
        id: _stretch(connection, {"project": id, "after": after.get(id, ""), **asked})
        for id in projects
    }


def _stretch(connection: Connection, asked: Mapping[str, Any]) -> dict[str, int]:
    """The next endpoints of one ring."""
    if dialect_of(connection) == "sqlite":
        found: dict[str, int] = in_one_step(connection, RING_SQLITE, dict(asked))
        return found
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
    by_index(connection)
    written = attempts.write(connection, tried, now=now)
    kept = [one for one in tried if one.delivery.id in written]
    changes = fold(connection, kept, mint=mint, now=now)
    ended = [t.delivery.id for t in kept if t.settlement.state is DeliveryState.EXHAUSTED]
    announce_exhausted(connection, ended, mint=mint, now=now)
    return Settled(written, changes)


def give_back(connection: Connection, claimed: Sequence[Claimed], *, now: float) -> None:
    """Return deliveries that were claimed and never tried: due now, the attempt not counted.

    Those of an endpoint that was disabled meanwhile are held, those whose watch was deleted
    forgotten.
    """
    tokens: dict[str, list[str]] = {}
    for one in claimed:
        tokens.setdefault(one.lease_token, []).append(one.id)
    for token, ids in tokens.items():
        mine = (among(connection, deliveries.c.id, ids), deliveries.c.lease_token == token)
        returned = {"due_at": now, "lease_token": None, "attempts": deliveries.c.attempts - 1}
        untried = (deliveries.c.ends, deliveries.c.attempts == 1)
        connection.execute(delete(deliveries).where(*mine, *untried))
        connection.execute(update(deliveries).where(*mine).values(returned))
    hold_back_disabled(connection, only={one.endpoint_id for one in claimed}, now=now)


def give_up(connection: Connection, claimed: Sequence[Claimed], *, mint: Mint, now: float) -> None:
    """End deliveries that were claimed and may not be tried again.

    The last attempt of their schedule was cut short, or their watch was deleted.
    """
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
                needs_you=attempts.OF_DELETED_WATCH
                if one.ends
                else "The outcome of the last attempt is unknown: send the event again.",
            )
        )
        if not one.ends:
            ended += [one.id] * given_up.rowcount
    announce_exhausted(connection, ended, mint=mint, now=now)


def oldest_past_due(connection: Connection, *, now: float) -> float | None:
    """Since when the delivery that is most overdue has waited.

    Leases do not count, nor does what waits for an endpoint: one that is paused, disabled, behind
    an open breaker, or served at the rate it wants; of an ordered one only the first counts. Asks
    one question for each endpoint that something waits for, however much that is.
    """
    times = {"now": now, "served": now - MARGIN_SECONDS}
    since: float | None = connection.execute(OLDEST, times).scalar_one()
    return since


OLDEST = text(f"""
WITH RECURSIVE ring(id) AS (
  SELECT (SELECT min(endpoint_id) FROM deliveries WHERE state = 'pending')
  UNION ALL
  SELECT (SELECT min(d.endpoint_id) FROM deliveries d
          WHERE d.state = 'pending' AND d.endpoint_id > ring.id)
  FROM ring WHERE ring.id IS NOT NULL)
SELECT min(first.due_at) FROM (
  SELECT CASE WHEN e.ordered
    THEN (SELECT {due_next("h")} FROM deliveries h
          WHERE h.project_id = e.project_id AND h.endpoint_id >= e.id AND h.state = 'pending'
          ORDER BY h.project_id, h.endpoint_id, h.id LIMIT 1)
    ELSE (SELECT {due_next("d")} FROM deliveries d
          WHERE d.endpoint_id = e.id AND d.state = 'pending' AND {claimable("d")}
          ORDER BY d.due_at LIMIT 1)
    END AS due_at
  FROM ring JOIN endpoints e ON e.id = ring.id
  WHERE (e.rate_limit IS NULL OR coalesce(e.rate_at, 0) <= :served)
    AND e.state <> 'disabled' AND coalesce(e.paused_until, 0) <= :now AND e.opened_at IS NULL
) AS first WHERE first.due_at <= :now
""")  # noqa: S608 - no value is put in


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
    sent = attachments(connection, {row[12] for row in rows if row[12] and row[11] != NONE})
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
            occurred_at=row[8],
            first_due_at=row[9],
            message_id=row[10],
            results=MODES[row[11]],
            attachment=sent.get(row[12]),
            ends=bool(row[13]),
            event_body=row[14],
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
  events.created_at, coalesce(deliveries.resent_at, deliveries.created_at),
  deliveries.message_id, deliveries.results, events.results_id, deliveries.ends"""
"""What is claimed of each; the body of its event comes after it."""


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
    now, chosen = times["now"], list[int]()
    if heads:
        first = (now, now, now + LEASE_MOST_SECONDS, json.dumps(heads))
        found = in_one_step(connection, HEADS_SQLITE, first)
        chosen = [row for row in found if row is not None][:limit]
    if rest:
        due_of = (now, max(rest.values()), json.dumps(list(rest)))
        found = in_one_step(connection, DUE_SQLITE, due_of)
        for endpoint_id, due in found:
            chosen += due[: min(rest[endpoint_id], limit - len(chosen))]
    if not chosen:
        return []
    rows = json.dumps(chosen)
    connection.exec_driver_sql(TAKE_SQLITE, (times["lease"], times["token"], rows))
    taken, bodies = connection.exec_driver_sql(TAKEN_SQLITE, (rows,)).one()
    each = zip(msgspec.json.decode(taken), bodies.split(BETWEEN_BODIES), strict=True)
    return [(*row, body) for row, body in each]


BETWEEN_BODIES = "\x1e"
"""JSON holds no such character. To put a body of 1 KB into JSON and take it out again would cost as
much as all else of a row."""
DUE_SQLITE = """
SELECT json_group_array(json_array(room.value,
  (SELECT json_group_array(row) FROM (
    SELECT rowid AS row FROM deliveries
    WHERE endpoint_id = room.value AND state = 'pending' AND due_at <= ?
    ORDER BY due_at LIMIT ?))))
FROM json_each(?) AS room
"""
HEADS_SQLITE = """
SELECT json_group_array((
  SELECT row FROM (
    SELECT rowid AS row, due_at FROM deliveries
    WHERE project_id = (SELECT project_id FROM endpoints WHERE id = room.value)
    AND endpoint_id = room.value AND state = 'pending' ORDER BY id LIMIT 1)
  WHERE due_at <= ? AND NOT EXISTS (
    SELECT 1 FROM deliveries WHERE endpoint_id = room.value AND state = 'pending'
    AND due_at > ? AND due_at <= ? AND lease_token IS NOT NULL)))
FROM json_each(?) AS room
"""
"""While another is under way, as when an older one is sent again, the first waits too."""
TAKE_SQLITE = """
UPDATE deliveries SET due_at = ?, lease_token = ?, attempts = attempts + 1
WHERE rowid IN (SELECT value FROM json_each(?))
"""
TAKEN_SQLITE = f"""
SELECT json_group_array(json_array({_TAKEN})),
  group_concat(events.body, char({ord(BETWEEN_BODIES)}))
FROM json_each(?) AS taken JOIN deliveries ON deliveries.rowid = taken.value
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


_KEPT = """id, endpoint_id, event_id, attempts, attempts_before, dialect, watch_id, watch_metadata,
  resent_at, created_at, message_id, results, ends"""


def _taking(leased: str) -> str:
    """Each event is read for what was taken: where none was counted, all might be read for it."""
    return f""",
taken AS (
  UPDATE deliveries SET {leased} = :lease, lease_token = :token, attempts = attempts + 1
  WHERE id = ANY(ARRAY(SELECT id FROM due)) RETURNING {_KEPT})
SELECT {_TAKEN}, events.body FROM taken AS deliveries
CROSS JOIN LATERAL (
  SELECT created_at, results_id, body FROM events WHERE id = deliveries.event_id OFFSET 0) events
"""  # noqa: S608 - no value is put in


TAKE_POSTGRESQL = text(f"""
WITH due AS MATERIALIZED (
  SELECT d.id FROM unnest(CAST(:ids AS text[]), CAST(:takes AS int[])) AS room(id, k)
  CROSS JOIN LATERAL (
    SELECT id FROM deliveries
    WHERE endpoint_id = room.id AND state = 'pending' AND {claimable("deliveries")}
    ORDER BY due_at LIMIT room.k FOR UPDATE SKIP LOCKED) d
  LIMIT :limit)
{_taking("lease_until")}""")  # noqa: S608 - no value is put in
"""`due_at`, which is in an index, stays: the row is written beside the old one, and no index is."""
TAKE_HEADS_POSTGRESQL = text(f"""
WITH due AS MATERIALIZED (
  SELECT d.id FROM unnest(CAST(:ids AS text[])) AS room(id)
  JOIN endpoints ON endpoints.id = room.id
  CROSS JOIN LATERAL (
    SELECT id FROM deliveries
    WHERE project_id = endpoints.project_id AND endpoint_id >= room.id AND state = 'pending'
    ORDER BY project_id, endpoint_id, id LIMIT 1) head
  CROSS JOIN LATERAL (
    SELECT id FROM deliveries
    WHERE id = head.id AND endpoint_id = room.id AND state = 'pending' AND {claimable("deliveries")}
    AND NOT EXISTS (
      SELECT 1 FROM deliveries other WHERE other.endpoint_id = room.id
      AND other.state = 'pending' AND other.due_at > :now AND other.due_at <= :longest
      AND other.lease_token IS NOT NULL)
    FOR UPDATE SKIP LOCKED) d
  LIMIT :limit)
{_taking("due_at")}""")  # noqa: S608 - no value is put in
"""`due_at` moves: by its index the next claim finds that one is under way."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What one of them allows, and from when on its next call may go."""

    rate: float | None
    rate_at: float | None
    ordered: bool

    def room(self, now: float) -> int:
        """How many deliveries may be claimed: no more than can be sent at once."""
        allowed = (
            MOST if self.rate is None else min(MOST, rate.tokens(self.rate, self.rate_at, now))
        )
        return min(1, allowed) if self.ordered else allowed


def take_limits(connection: Connection, ids: Sequence[str]) -> dict[str, Limit]:
    """The limits of those that nobody else claims for: held until the transaction ends."""
    if not ids:
        return {}
    columns = (endpoints.c.id, endpoints.c.rate_limit, endpoints.c.rate_at, endpoints.c.ordered)
    free = select(*columns).where(among(connection, endpoints.c.id, ids)).order_by(endpoints.c.id)
    rows = connection.execute(free.with_for_update(skip_locked=True, key_share=True))
    return {row.id: Limit(row.rate_limit, row.rate_at, row.ordered) for row in rows}


def spend(
    connection: Connection, limits: Mapping[str, Limit], taken: Mapping[str, int], *, now: float
) -> None:
    """Count what was claimed for these endpoints against their rates."""
    rows = [
        {"id": id, "rate_at": rate.after(limit.rate, limit.rate_at, now, taken=taken[id])}
        for id, limit in limits.items()
        if limit.rate is not None and taken.get(id)
    ]
    update_all(connection, endpoints, "id", rows)


def next_token_at(connection: Connection, ids: Sequence[str]) -> float | None:
    """When the first of these endpoints may be called again."""
    if not ids:
        return None
    first = select(func.min(endpoints.c.rate_at)).where(among(connection, endpoints.c.id, ids))
    at: float | None = connection.execute(first).scalar_one()
    return at
