"""A project at a glance: how many of everything, and how it went lately.

Each figure is read from an index, or from a bounded number of rows: what is finished makes none of
them slower, but for the charts, whose cost grows with what happened in their time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    text,
    union_all,
)

from batchbell.core.alarms import OVERDUE_GRACE_SECONDS
from batchbell.core.ids import first_id
from batchbell.core.model import DEFAULT_EVENTS, Alarm, Batch, DeliveryState, EventType, Status
from batchbell.storage.batches import joined_batches, to_batch
from batchbell.storage.engine import dialect_of
from batchbell.storage.events import in_state
from batchbell.storage.paging import Said
from batchbell.storage.schema import batches, deliveries, endpoints, events

COUNTED_MOST = 10_000
"""Deliveries that are counted one by one."""
LAGS_MOST = 500
"""The latest deliveries of which the lag is known."""
TYPES = tuple(EventType)
"""Named one by one, so that an index that begins with the type is read along each of them."""
UNDELIVERED = tuple(state for state in DeliveryState if state is not DeliveryState.DELIVERED)
OPEN = tuple(status for status in Status if not status.ended)
BAD = (Status.FAILED, Status.EXPIRED, Status.LOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The batches that have not ended."""

    by_status: Mapping[Status, int]
    ending_soon: int
    stalled: int

    @property
    def total(self) -> int:
        return sum(self.by_status.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Deliveries that are not done, among the first COUNTED_MOST of each state."""

    pending: int
    due: int
    """Those of the pending ones that should have been sent by now."""
    parked: int
    """Those of the due ones whose endpoint's breaker is open."""
    held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """Seconds from the end of a batch to the 2xx of its receiver, over `number` deliveries."""

    number: int
    p50: float | None
    p95: float | None


@dataclass(frozen=True, slots=True)
class Period:
    """A time of equal steps, the last of which holds this moment."""

    start: float
    step_seconds: float
    steps: int

    @property
    def end(self) -> float:
        return self.start + self.steps * self.step_seconds

    def begin_of(self, step: int) -> float:
        return self.start + step * self.step_seconds


def period_until(now: float, *, step_seconds: float, steps: int) -> Period:
    """The last `steps` whole steps, counted from the epoch, with the one that runs."""
    last = now // step_seconds * step_seconds
    return Period(last - (steps - 1) * step_seconds, step_seconds, steps)


def running(connection: Connection, project_id: str, *, now: float, soon_seconds: float) -> Running:
    """What has not ended, by status; how much of it expires soon, and how much stalls."""
    soon, stalled = _ends_soon(now, soon_seconds), _is_stalled(now)
    query = (
        select(batches.c.status, func.count(), _sum(soon), _sum(stalled))
        .where(batches.c.project_id == project_id, batches.c.status.in_(OPEN))
        .group_by(batches.c.status)
    )
    rows = connection.execute(query).all()
    return Running(
        by_status={Status(row[0]): row[1] for row in rows},
        ending_soon=sum(row[2] for row in rows),
        stalled=sum(row[3] for row in rows),
    )


def late(
    connection: Connection, project_id: str, *, now: float, soon_seconds: float, limit: int
) -> list[Batch]:
    """Batches that stall or expire soon, those that expire first before the others."""
    query = joined_batches().where(
        batches.c.project_id == project_id,
        batches.c.status.in_(OPEN),
        or_(_is_stalled(now), _ends_soon(now, soon_seconds)),
    )
    rows = connection.execute(query.order_by(batches.c.expires_at).limit(limit))
    return [to_batch(row) for row in rows]


def _ends_soon(now: float, soon_seconds: float) -> ColumnElement[bool]:
    return and_(batches.c.expires_at > now, batches.c.expires_at <= now + soon_seconds)


def _is_stalled(now: float) -> ColumnElement[bool]:
    return or_(
        batches.c.unknown_status.isnot(None),
        batches.c.expires_at <= now - OVERDUE_GRACE_SECONDS,
        batches.c.alarms.contains(Alarm.NO_PROGRESS.value),
    )


def _sum(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def waiting(connection: Connection, project_id: str, *, now: float) -> Waiting:
    """The deliveries that wait, and why, among the first COUNTED_MOST of each state."""
    is_open = (
        select(endpoints.c.id)
        .where(endpoints.c.project_id == project_id, endpoints.c.opened_at.isnot(None))
        .scalar_subquery()
    )
    some = _some(project_id, DeliveryState.PENDING).limit(COUNTED_MOST).subquery()
    due = and_(deliveries.c.due_at <= now, deliveries.c.lease_token.is_(None))
    parked = and_(due, deliveries.c.endpoint_id.in_(is_open))
    query = select(func.count(), _sum(due), _sum(parked)).select_from(some)
    counts = connection.execute(query.join(deliveries, deliveries.c.id == some.c.id)).one()
    held = _some(project_id, DeliveryState.HELD).limit(COUNTED_MOST).subquery()
    number: int = connection.execute(select(func.count()).select_from(held)).scalar_one()
    return Waiting(pending=counts[0], due=counts[1], parked=counts[2], held=number)


def _some(project_id: str, state: DeliveryState) -> Select[Any]:
    """Those in one state, in the order of ids for each type, along an index of them."""
    return select(deliveries.c.id).where(*_standing(state, project_id, None))


def _standing(
    state: DeliveryState | None, project_id: str, endpoint_id: str | None
) -> Sequence[Said]:
    """Of a project or of its endpoint, and in this state: as an index of such deliveries has it."""
    of_endpoint = endpoint_id is not None
    said = [] if state is None else in_state(state, of_endpoint=of_endpoint)
    if not of_endpoint:
        said.append(deliveries.c.project_id == project_id)
    else:
        said.append(deliveries.c.endpoint_id == endpoint_id)
        if state is DeliveryState.PENDING:  # along the ring, in the order of ids whatever the type
            return [*said, deliveries.c.project_id == project_id]
    return [*said, deliveries.c.event_type.in_(TYPES)]


def lag(connection: Connection, project_id: str, *, since: float) -> Lag:
    """How long receivers waited for the news that a batch has ended."""
    latest = (
        select(deliveries.c.event_id, deliveries.c.finished_at, deliveries.c.state)
        .where(
            deliveries.c.project_id == project_id,
            deliveries.c.id >= first_id("dlv", at=since),
            deliveries.c.resent_at.is_(None),
        )
        .order_by(deliveries.c.id.desc())
        .limit(LAGS_MOST)
        .subquery()
    )
    query = (
        select(latest.c.finished_at - events.c.created_at)
        .join(events, events.c.id == latest.c.event_id)
        .where(latest.c.state == DeliveryState.DELIVERED, events.c.type.in_(DEFAULT_EVENTS))
    )
    found = sorted(max(0.0, seconds) for seconds in connection.execute(query).scalars())
    return Lag(number=len(found), p50=_quantile(found, 0.5), p95=_quantile(found, 0.95))


def _quantile(found: Sequence[float], share: float) -> float | None:
    return found[min(int(share * len(found)), len(found) - 1)] if found else None


def ended(
    connection: Connection, project_id: str, within: Period
) -> Sequence[Mapping[Status, int]]:
    """How many batches ended in each step, by status."""
    steps = (batches.c.ended_at - within.start) / within.step_seconds
    # SQLite may have no `floor`, and cuts off what PostgreSQL would round.
    step = cast(steps if dialect_of(connection) == "sqlite" else func.floor(steps), Integer)
    query = (
        select(step, batches.c.status, func.count())
        .where(
            batches.c.project_id == project_id,
            batches.c.ended_at >= within.start,
            batches.c.ended_at < within.end,
        )
        .group_by(text("1"), batches.c.status)
    )
    counts: list[Counter[Status]] = [Counter() for _ in range(within.steps)]
    for at, status, number in connection.execute(query):
        counts[min(max(at, 0), within.steps - 1)][Status(status)] += number
    return list(counts)


def made(
    connection: Connection, project_id: str, within: Period, *, endpoint_id: str | None = None
) -> list[Mapping[DeliveryState, int]]:
    """How many deliveries were made in each step, by how they stand now.

    All of the project's, or those of one of its endpoints. From indexes alone: an id has the time
    at which it was made, and what does not wait, is not held and was not given up is delivered.
    """
    steps = union_all(*(_step(within, at) for at in range(within.steps))).cte("steps")
    numbers = [
        select(func.count())
        .select_from(deliveries)
        .where(
            *_standing(state, project_id, endpoint_id),
            deliveries.c.id >= steps.c.since,
            deliveries.c.id < steps.c.until,
        )
        .correlate(steps)
        .scalar_subquery()
        for state in (*UNDELIVERED, None)
    ]
    # One short statement: to write it out for each step took longer than all counting.
    found: list[dict[DeliveryState, int]] = [{} for _ in range(within.steps)]
    for at, *some, total in connection.execute(select(steps.c.at, *numbers)):
        found[at] = dict(zip(UNDELIVERED, some, strict=True))
        found[at][DeliveryState.DELIVERED] = total - sum(some)
    return [*found]


def _step(within: Period, at: int) -> Select[Any]:
    """Its place, and the ids between which those made in it lie."""
    ends = {"since": within.begin_of(at), "until": within.begin_of(at + 1)}
    ids = (literal(first_id("dlv", at=end)).label(name) for name, end in ends.items())
    return select(literal(at).label("at")).add_columns(*ids)


def ended_badly(connection: Connection, project_id: str, *, since: float) -> dict[Status, int]:
    """How many batches failed, expired or were lost: of each as many as there are, if any."""
    query = (
        select(batches.c.status, func.count())
        .where(
            batches.c.project_id == project_id,
            batches.c.ended_at >= since,
            batches.c.status.in_(BAD),
        )
        .group_by(batches.c.status)
    )
    return {Status(status): count for status, count in connection.execute(query)}
