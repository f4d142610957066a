"""Replays: counted first, then a job that is walked in steps, by one worker at a time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, delete, func, or_, select, text, update

from batchbell import failpoints
from batchbell.core.errors import LeaseLost, NotFound
from batchbell.core.ids import new_id
from batchbell.core.model import EventType, Mint
from batchbell.core.replay import (
    PACE,
    Replay,
    ReplayFilter,
    ReplayState,
    ReplayStatus,
)
from batchbell.storage import replay_walk
from batchbell.storage.endpoints import enable as enable_endpoint
from batchbell.storage.engine import DELIVERIES, REPLAYS, wake
from batchbell.storage.events import get_event
from batchbell.storage.paging import Page, page_of
from batchbell.storage.schema import endpoints, replays

CLOCKS_APART_SECONDS = 3600.0
"""By how much the clocks that made ids may differ."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a replay would do: start so many, and leave so many of disabled endpoints."""

    total: int
    skipped: int
    disabled: frozenset[str] = field(default=frozenset(), compare=False)
    """The ids of those endpoints."""


def count(
    connection: Connection,
    project_id: str,
    filter: ReplayFilter,
    *,
    enable: bool = False,
    now: float,
) -> Counted:
    """Try a replay dry: nothing is written. Raises NotFound for an endpoint or event.

    It looks at all that there is, so it is to be read, and not to hold up those who write.
    """
    _check(connection, project_id, filter)
    counts = _counts(connection, project_id, filter, now=now)
    disabled = frozenset(endpoint_id for endpoint_id, open_ in counts if not open_)
    skipped = 0 if enable else sum(counts[id, False] for id in disabled)
    return Counted(counts.total() - skipped, skipped, disabled)


def _counts(
    connection: Connection, project_id: str, filter: ReplayFilter, *, now: float
) -> Counter[tuple[str, bool]]:
    """How many, by endpoint and whether they may be sent."""
    if filter.status is ReplayStatus.MISSING:
        return replay_walk.count(connection, filter, project_id, before=now)
    counts: Counter[tuple[str, bool]] = Counter()
    for state in replay_walk.STATES[filter.status]:
        # One state after the other, spelled out: each has an index of its own.
        matching = replay_walk.matching(filter, project_id, before=now)
        found = matching.where(text(f"deliveries.state = '{state.value}'")).subquery()
        by = (found.c.endpoint_id, found.c.open)
        for endpoint_id, open_, number in connection.execute(
            select(*by, func.count()).group_by(*by)
        ):
            counts[endpoint_id, bool(open_)] += number
    return counts


def _check(connection: Connection, project_id: str, filter: ReplayFilter) -> None:
    if filter.event_id is not None:
        get_event(connection, project_id, filter.event_id)
    if filter.endpoint_id is not None:
        query = select(endpoints.c.id).where(
            endpoints.c.project_id == project_id,
            endpoints.c.id == filter.endpoint_id,
            endpoints.c.deleted_at.is_(None),
        )
        if connection.execute(query).first() is None:
            raise NotFound("endpoint", filter.endpoint_id)


def create(
    connection: Connection,
    project_id: str,
    filter: ReplayFilter,
    counted: Counted,
    *,
    as_new: bool = False,
    enable: bool = False,
    pace: float = PACE,
    mint: Mint,
    now: float,
) -> Replay:
    """Begin a replay of what was `counted`; a worker walks it.

    Raises NotFound for an endpoint or event. With `enable`, the disabled endpoints among it are
    enabled now, and not again later.
    """
    _check(connection, project_id, filter)
    for endpoint_id in sorted(counted.disabled) if enable else ():
        enable_endpoint(connection, endpoint_id, now=now)
    id = mint("rpl")
    row = {
        "id": id,
        "project_id": project_id,
        "status": filter.status.value,
        "endpoint_id": filter.endpoint_id,
        "event_id": filter.event_id,
        "since": filter.since,
        "until": filter.until,
        "types": json.dumps(filter.types),
        "as_new": as_new,
        "pace": pace,
        "state": ReplayState.RUNNING.value,
        "total": counted.total,
        "done": 0,
        "skipped": 0,
        "cursor": _start(filter),
        "due_at": now,
        "created_at": now,
        "updated_at": now,
    }
    connection.execute(replays.insert().values(row))
    wake(connection, REPLAYS)
    return get_replay(connection, project_id, id)


def _start(filter: ReplayFilter) -> str:
    """An id that sorts before all of interest: the deliveries of an event are younger than it."""
    if filter.since is None:
        return ""
    prefix = "evt" if filter.status is ReplayStatus.MISSING else "dlv"
    return new_id(prefix, now=max(0.0, filter.since - CLOCKS_APART_SECONDS), rand=bytes(10))


def get_replay(connection: Connection, project_id: str, replay_id: str) -> Replay:
    """One replay of the project. Raises NotFound."""
    query = select(replays).where(replays.c.project_id == project_id, replays.c.id == replay_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("replay", replay_id)
    return _replay(row)


def list_replays(
    connection: Connection, project_id: str, *, limit: int, after: str | None = None
) -> Page[Replay]:
    """The project's replays, newest first."""
    query = select(replays).where(replays.c.project_id == project_id)
    if after is not None:
        query = query.where(replays.c.id < get_replay(connection, project_id, after).id)
    rows = connection.execute(query.order_by(replays.c.id.desc()).limit(limit + 1))
    return page_of([_replay(row) for row in rows], limit)


def cancel(connection: Connection, project_id: str, replay_id: str, *, now: float) -> Replay:
    """Walk no further. What was made due already stays so; an ended replay stays as it is."""
    get_replay(connection, project_id, replay_id)
    ended = {"state": ReplayState.CANCELLED.value, "finished_at": now, "updated_at": now}
    connection.execute(
        update(replays)
        .where(replays.c.id == replay_id, replays.c.state == ReplayState.RUNNING)
        .values(lease_token=None, lease_until=None, **ended)
    )
    return get_replay(connection, project_id, replay_id)


def claim_due(
    connection: Connection, *, now: float, lease_seconds: float, token: str
) -> Replay | None:
    """Take the replay that has waited longest for its next step; None when none is due."""
    due = (
        select(replays.c.id)
        .where(replays.c.state == ReplayState.RUNNING, replays.c.due_at <= now)
        .where(or_(replays.c.lease_until.is_(None), replays.c.lease_until <= now))
        .order_by(replays.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    claimed = (
        update(replays)
        .where(replays.c.id.in_(due))
        .values(lease_until=now + lease_seconds, lease_token=token)
        .returning(*replays.c)
    )
    row = connection.execute(claimed).one_or_none()
    return None if row is None else _replay(row)


def next_due(connection: Connection) -> float | None:
    """When a worker is next wanted: for a step, or because another's lease has run out."""
    query = select(replays.c.due_at, replays.c.lease_until).where(
        replays.c.state == ReplayState.RUNNING
    )
    times = [max(row.due_at, row.lease_until or 0.0) for row in connection.execute(query)]
    return min(times, default=None)


def step(connection: Connection, claimed: Replay, *, mint: Mint, now: float) -> Replay:
    """Begin the next few deliveries again, and give the lease back, in one transaction.

    Raises LeaseLost, and writes nothing, when another worker has the replay, or it was cancelled.
    """
    query = select(replays).where(
        replays.c.id == claimed.id,
        replays.c.lease_token == claimed.lease_token,
        replays.c.state == ReplayState.RUNNING,
    )
    row = connection.execute(query.with_for_update()).one_or_none()
    if row is None:
        raise LeaseLost(f"replay {claimed.id}")
    replay = _replay(row)
    stepped = replay_walk.step(connection, replay, mint=mint, now=now)
    failpoints.reach(failpoints.INSIDE_REPLAY)
    _save(connection, replay, stepped, now=now)
    if stepped.started:
        wake(connection, DELIVERIES)
    return get_replay(connection, replay.project_id, replay.id)


def _save(
    connection: Connection, replay: Replay, stepped: replay_walk.Stepped, *, now: float
) -> None:
    connection.execute(
        update(replays)
        .where(replays.c.id == replay.id)
        .values(
            done=replay.done + stepped.started,
            skipped=replay.skipped + stepped.skipped,
            cursor=stepped.cursor,
            due_at=now + stepped.started / replay.pace,
            updated_at=now,
            state=(ReplayState.DONE if stepped.over else ReplayState.RUNNING).value,
            finished_at=now if stepped.over else None,
            lease_token=None,
            lease_until=None,
        )
    )


def forget_old(connection: Connection, *, before: float, limit: int) -> int:
    """Delete up to `limit` replays that ended before a time; returns how many were deleted."""
    old = select(replays.c.id).where(replays.c.finished_at < before).limit(limit)
    return connection.execute(delete(replays).where(replays.c.id.in_(old))).rowcount


def _types(words: str) -> Sequence[EventType]:
    return tuple(EventType(word) for word in json.loads(words))


def _replay(row: Row[Any]) -> Replay:
    return Replay(
        id=row.id,
        project_id=row.project_id,
        filter=ReplayFilter(
            status=ReplayStatus(row.status),
            endpoint_id=row.endpoint_id,
            event_id=row.event_id,
            since=row.since,
            until=row.until,
            types=tuple(_types(row.types)),
        ),
        as_new=row.as_new,
        pace=row.pace,
        state=ReplayState(row.state),
        total=row.total,
        done=row.done,
        skipped=row.skipped,
        cursor=row.cursor,
        due_at=row.due_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
        lease_token=row.lease_token,
    )
