"""Clocks: the database server's, and times that were written before ours was set back.

A time that lies further ahead than anything we would schedule counts as come. When we know that
the clock was set back, whatever lies ahead of its own longest wait does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    func,
    literal_column,
    select,
    text,
    tuple_,
    update,
)

from batchbell.core.backoff import JITTER_MAX_SECONDS, RETRY_AFTER_MAX_SECONDS
from batchbell.core.ids import time_of
from batchbell.core.lifecycle import longest_wait_seconds
from batchbell.storage.bulk import among
from batchbell.storage.engine import (
    DELIVERIES,
    REPLAYS,
    RESULTS,
    SUBMISSIONS,
    dialect_of,
    wake,
)
from batchbell.storage.leases import due_next
from batchbell.storage.schema import (
    batches,
    deletions,
    deliveries,
    endpoints,
    events,
    parts,
    replays,
    results,
    submissions,
)

MARGIN_SECONDS = 60.0
"""By how much clocks may differ, and times may be rounded."""
FURTHEST_SECONDS = RETRY_AFTER_MAX_SECONDS + JITTER_MAX_SECONDS
"""Nothing is scheduled further ahead, but the slowest of schedules that owners choose."""
LEASE_SECONDS = 120.0
"""No job is held for longer at a time."""
STEP = 1000
"""Deliveries that one step looks at."""

Place = tuple[str, str]
START: Place = ("", "")


def database_time(connection: Connection) -> float | None:
    """Seconds since the epoch by the database server's clock; None for SQLite, which has ours."""
    if dialect_of(connection) != "postgresql":
        return None
    return float(
        connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
    )


def is_set_back(connection: Connection, *, now: float) -> bool:
    """Whether something was written later than `now`: the clock was set back, or one is wrong."""
    newest = (connection.execute(select(func.max(t.c.id))).scalar() for t in (events, deliveries))
    return any(id is not None and time_of(id) > now + MARGIN_SECONDS for id in newest)


WAITS: tuple[tuple[Table, Column[Any], ColumnElement[bool]], ...] = (
    (replays, replays.c.due_at, replays.c.state == "running"),
    (results, results.c.due_at, results.c.state == "waiting"),
    (deletions, deletions.c.due_at, deletions.c.state == "due"),
    (submissions, submissions.c.due_at, submissions.c.lease_token.is_(None)),
    (parts, parts.c.due_at, parts.c.state == "waiting"),
    (batches, batches.c.check_at, batches.c.ended_at.is_(None)),
    (endpoints, endpoints.c.paused_until, endpoints.c.paused_until.isnot(None)),
)
"""What waits for a time, and where."""


def bring_back(connection: Connection, *, set_back: bool, now: float) -> int:
    """Have jobs, open batches and paused endpoints wait no longer than they may.

    That is not at all where the clock was `set_back`: each is tried once too early at most.
    Returns how many were changed.
    """
    ahead = now + MARGIN_SECONDS + (0.0 if set_back else FURTHEST_SECONDS)
    changed = 0
    for table, column, waits in WAITS:
        late = update(table).where(waits, column > ahead).values({column.name: now})
        changed += connection.execute(late).rowcount
    for jobs in (replays, results, deletions, submissions):
        held = jobs.c.lease_until > now + LEASE_SECONDS + MARGIN_SECONDS
        changed += connection.execute(update(jobs).where(held).values(lease_until=now)).rowcount
    if changed:
        for channel in (DELIVERIES, REPLAYS, RESULTS, SUBMISSIONS):
            wake(connection, channel)
    return changed


@dataclass(frozen=True, slots=True)
class Brought:
    """How many deliveries a step has made due, and where the next one goes on."""

    changed: int
    place: Place


def bring_deliveries_back(
    connection: Connection, *, after: Place = START, set_back: bool, now: float
) -> Brought:
    """Make those of the next deliveries due that wait for longer than they may.

    At the end the place is `START` again.
    """
    where = (deliveries.c.endpoint_id, deliveries.c.id)
    step = (
        select(
            *where,
            literal_column(due_next("deliveries")).label("due_at"),
            deliveries.c.lease_token,
            (deliveries.c.attempts - deliveries.c.attempts_before).label("attempts"),
            endpoints.c.schedule,
        )
        .join(endpoints, endpoints.c.id == deliveries.c.endpoint_id)
        .where(text("deliveries.state = 'pending'"), tuple_(*where) > after)
        .order_by(*where)
        .limit(STEP)
    )
    rows = connection.execute(step).all()
    late = [row.id for row in rows if row.due_at > now + _most(row, set_back=set_back)]
    changed = 0
    if late:
        chosen = (among(connection, deliveries.c.id, late), text("state = 'pending'"))
        ahead = literal_column(due_next("deliveries")) > now
        made_due = update(deliveries).where(*chosen, ahead).values(due_at=now, lease_until=None)
        changed = connection.execute(made_due).rowcount
        wake(connection, DELIVERIES)
    return Brought(changed, tuple(rows[-1][:2]) if len(rows) == STEP else START)


def _most(row: Any, *, set_back: bool) -> float:
    schedule = (0.0, *json.loads(row.schedule)) if row.schedule else None
    leased = row.lease_token is not None
    own = longest_wait_seconds(row.attempts, leased=leased, schedule=schedule)
    asked = 0.0 if set_back or leased or row.attempts < 1 else FURTHEST_SECONDS
    return max(own, asked) + MARGIN_SECONDS
