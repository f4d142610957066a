"""What the health of endpoints does to what waits for them: parked, held, pulled forward.

Each step is bounded, so that no transaction is long; the janitor goes on where one ended.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Update,
    case,
    func,
    select,
    text,
    update,
)

from batchbell import failpoints
from batchbell.core import health, notices
from batchbell.core.health import Change
from batchbell.core.model import DeliveryState, Endpoint, EndpointState, Mint, Outcome
from batchbell.storage import endpoints as stored
from batchbell.storage.attempts import Tried
from batchbell.storage.bulk import among, in_one_step, update_all
from batchbell.storage.endpoints import (
    JOINED,
    NO_OUTAGE,
    disabled_ids,
    has_some,
    to_endpoint,
    unsent,
)
from batchbell.storage.engine import DELIVERIES, OUTAGES, dialect_of, wake
from batchbell.storage.leases import claimable
from batchbell.storage.outbox import announce
from batchbell.storage.schema import deliveries, endpoints

STEP = 1000
"""Retries of one endpoint that one step pulls forward."""
OPEN = "open"
ENDPOINT_WORDS = (EndpointState.ACTIVE, EndpointState.FAILING, OPEN, EndpointState.DISABLED)
"""How endpoints are counted: `open` are the failing ones that are only probed."""
PULLS_MOST = 3
"""How often a delivery is pulled forward in one life.

Else one that its endpoint always refuses would spend its schedule on the successes of others.
"""


def fold(connection: Connection, tried: Sequence[Tried], *, mint: Mint, now: float) -> list[Change]:
    """Fold what was heard into the endpoints, have their deliveries follow, and tell of it.

    Only where there is news: a failure, or a success after failures.
    """
    heard: dict[str, list[tuple[Outcome, float]]] = {}
    for one in tried:
        said = (one.outcome, one.settlement.scheduled_seconds)
        heard.setdefault(one.delivery.endpoint_id, []).append(said)
    bad = {one.delivery.endpoint_id for one in tried if not one.outcome.success}
    news = sorted(bad | failing_among(connection, list(heard)))
    if not news:
        return []
    before = locked(connection, news)
    changes = [
        Change(before[id], after, now)
        for id in news
        if (after := health.endpoint_after(before[id], heard[id], now)) != before[id]
    ]
    save_health(connection, [change.after for change in changes])
    for change in changes:
        _follow(connection, change)
    raised = [notice for change in changes for notice in notices.of_change(change)]
    announce(connection, raised, mint=mint, now=now)
    return changes


def _follow(connection: Connection, change: Change) -> None:
    if change.after.state is EndpointState.DISABLED:
        failpoints.reach(failpoints.INSIDE_DISABLE)
        if hold_back(connection, change.after.id, now=change.at) == stored.STEP:
            wake(connection, OUTAGES)
    if change.recovered:
        wake(connection, DELIVERIES)
        if pull_forward(connection, change.after.id, now=change.at) == STEP:
            connection.execute(_flush_of(change.after.id).values(flush_at=change.at))
            wake(connection, OUTAGES)


def disable(connection: Connection, project_id: str, endpoint_id: str, *, now: float) -> None:
    """Call an endpoint no more until it is enabled; what waits for it is held. Raises NotFound.

    What is being sent at this moment is sent.
    """
    stored.get(connection, project_id, endpoint_id, now=now)
    before = locked(connection, [endpoint_id])[endpoint_id]
    after = health.disabled_on_request(before, now)
    if after != before:
        save_health(connection, [after])
        _follow(connection, Change(before, after, now))


def hold_back(connection: Connection, endpoint_id: str, *, now: float) -> int:
    """Set aside up to STEP of what waits for a disabled endpoint; returns how many."""
    waiting = unsent(endpoint_id, DeliveryState.PENDING, now)
    held = {"state": DeliveryState.HELD, "due_at": None, "lease_token": None}
    number = _change(connection, waiting, held)
    failpoints.reach(failpoints.INSIDE_HOLD)
    return number


def hold_back_disabled(
    connection: Connection, *, only: Collection[str] | None = None, now: float
) -> int:
    """Go on setting aside what waits for disabled endpoints, all or `only` some of them.

    Returns how many in this step.
    """
    which: list[ColumnElement[bool]] = [endpoints.c.deleted_at.is_(None)]
    if only is not None:
        which.append(among(connection, endpoints.c.id, only))
    ids = disabled_ids(connection, *which, has_some(deliveries.c.endpoint_id, "state = 'pending'"))
    return sum(hold_back(connection, id, now=now) for id in ids)


def pull_forward(connection: Connection, endpoint_id: str, *, now: float) -> int:
    """Make up to STEP of the retries that wait for an endpoint due now; returns how many."""
    waiting = (
        select(deliveries.c.id)
        .where(
            deliveries.c.endpoint_id == endpoint_id,
            text("deliveries.state = 'pending'"),
            deliveries.c.due_at > now,
            deliveries.c.lease_token.is_(None),
            deliveries.c.pulled < PULLS_MOST,
        )
        .order_by(deliveries.c.due_at)
        .limit(STEP)
        .with_for_update(skip_locked=True)
    )
    pulled = {"due_at": now, "pulled": deliveries.c.pulled + 1}
    number = _change(connection, waiting, pulled)
    failpoints.reach(failpoints.INSIDE_FLUSH)
    return number


def _change(connection: Connection, chosen: Select[Any], values: Mapping[str, Any]) -> int:
    """Chosen and changed in two statements: in one, PostgreSQL may read the whole table."""
    ids = connection.execute(chosen).scalars().all()
    changed = update(deliveries).where(among(connection, deliveries.c.id, ids)).values(**values)
    return connection.execute(changed).rowcount if ids else 0


def pull_forward_recovered(connection: Connection, *, now: float) -> int:
    """Go on pulling forward for endpoints that have recovered; returns how many in this step.

    One that fails again is left to the schedule.
    """
    left = select(endpoints.c.id, endpoints.c.state).where(endpoints.c.flush_at.isnot(None))
    return sum(_go_on(connection, *row, now=now) for row in connection.execute(left).all())


def _go_on(connection: Connection, endpoint_id: str, state: str, *, now: float) -> int:
    active = state == EndpointState.ACTIVE
    pulled = pull_forward(connection, endpoint_id, now=now) if active else 0
    if pulled:
        wake(connection, DELIVERIES)
    if pulled < STEP:
        connection.execute(_flush_of(endpoint_id).values(flush_at=None))
    return pulled


def _flush_of(endpoint_id: str) -> Update:
    return update(endpoints).where(endpoints.c.id == endpoint_id)


def take_probes(
    connection: Connection, ids: Sequence[str], *, now: float, until: float
) -> list[str]:
    """Those of these endpoints that the caller may probe.

    Nobody else does before `until`, unless the probe has been settled. A time that lies further
    ahead than any probe was written before the clock went back, and counts as come.
    """
    if not ids:
        return []
    probe_at = endpoints.c.probe_at
    free = (
        select(endpoints.c.id)
        .where(
            among(connection, endpoints.c.id, ids),
            (probe_at <= now) | (probe_at > now + health.PROBE_FURTHEST_SECONDS),
        )
        .order_by(endpoints.c.id)
        .with_for_update(skip_locked=True, key_share=True)
    )
    mine = list(connection.execute(free).scalars())
    taken = update(endpoints).where(among(connection, endpoints.c.id, mine))
    connection.execute(taken.values(probe_at=until))
    return mine


def count_parked(connection: Connection, *, now: float) -> int:
    """How many deliveries are due and wait for the breaker of their endpoint to close."""
    open_ = select(endpoints.c.id).where(endpoints.c.opened_at.isnot(None))
    parked = (
        select(func.count())
        .select_from(deliveries)
        .where(
            deliveries.c.endpoint_id.in_(open_),
            text("deliveries.state = 'pending'"),
            text(claimable("deliveries")).bindparams(now=now),
        )
    )
    count: int = connection.execute(parked).scalar_one()
    return count


def count_endpoints(connection: Connection) -> dict[str, int]:
    """How many endpoints there are, by the ENDPOINT_WORDS."""
    state = case((endpoints.c.opened_at.isnot(None), OPEN), else_=endpoints.c.state)
    query = select(state, func.count()).where(endpoints.c.deleted_at.is_(None)).group_by(state)
    return {row[0]: row[1] for row in connection.execute(query)}


COUNT_MOST = 10_000
"""Counting on would cost the more, the longer an outage lasts."""


def count_waiting(connection: Connection, endpoint_id: str) -> dict[DeliveryState, int]:
    """How many deliveries wait for an endpoint and how many are held, up to COUNT_MOST of each."""
    counts = {}
    for state in (DeliveryState.PENDING, DeliveryState.HELD):
        word = text(f"deliveries.state = '{state}'")
        some = select(deliveries.c.id).where(deliveries.c.endpoint_id == endpoint_id, word)
        query = select(func.count()).select_from(some.limit(COUNT_MOST).subquery())
        counts[state] = connection.execute(query).scalar_one()
    return counts


def failing_among(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Those of these endpoints that have failed since their last success."""
    if dialect_of(connection) == "sqlite":
        packed = (json.dumps(list(ids)),)
        return set(in_one_step(connection, FAILING_SQLITE, packed))
    return set(connection.execute(FAILING_POSTGRESQL, {"ids": list(ids)}).scalars())


FAILING_POSTGRESQL = text("SELECT id FROM endpoints WHERE id = ANY(:ids) AND failures > 0")
FAILING_SQLITE = """
SELECT json_group_array(id) FROM endpoints
WHERE id IN (SELECT value FROM json_each(?)) AND failures > 0
"""


def locked(connection: Connection, ids: Sequence[str]) -> dict[str, Endpoint]:
    """The same, kept from being changed by others until the transaction ends.

    Deliveries to them may be made meanwhile: two that tell each other's endpoints wait for none.
    """
    query = JOINED.where(among(connection, endpoints.c.id, ids)).order_by(endpoints.c.id)
    rows = connection.execute(query.with_for_update(of=endpoints, key_share=True))
    return {row.id: to_endpoint(row) for row in rows}


def save_health(connection: Connection, changed: Sequence[Endpoint]) -> None:
    """Write how these endpoints are doing."""
    names = (
        "id",
        "state",
        "state_since",
        "reason",
        "failures",
        "failing_since",
        "paused_until",
        *NO_OUTAGE,
    )
    rows = [{name: getattr(endpoint, name) for name in names} for endpoint in changed]
    update_all(connection, endpoints, "id", rows)
