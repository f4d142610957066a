"""Alarms of open batches: which are due to be looked at, and what is written when one rings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace
from sqlalchemy import Connection, and_, case, func, or_, select

from batchbell.core import alarms as rules
from batchbell.core.alarms import Decision, Patience
from batchbell.core.model import Alarm, Batch, BatchKind, Mint, Status
from batchbell.storage import outbox
from batchbell.storage.batches import alarm_values, joined_batches, to_batch
from batchbell.storage.bulk import among, update_all
from batchbell.storage.outbox import Rung
from batchbell.storage.schema import batches, parts, submissions

FURTHEST_SECONDS = 2 * rules.LOOK_AGAIN_SECONDS
"""No look lies further ahead, unless the clock has been put back."""
COMPLETED_MOST = 1000
"""Of so many batches that ended last, of all accounts, it is learnt how long batches take."""

_open = batches.c.ended_at.is_(None)


@dataclass(frozen=True, slots=True)
class Looked:
    """How many batches were looked at, and what rang."""

    batches: int
    rung: Sequence[Rung]


def next_look(connection: Connection, *, now: float) -> float | None:
    """When an open batch is next to be looked at; None while none is open."""
    ends = select(func.min(batches.c.alarm_at), func.max(batches.c.alarm_at)).where(_open)
    first, last = connection.execute(ends).one()
    return now if last is not None and last > now + FURTHEST_SECONDS else first


def ring_due(
    connection: Connection, *, patience: Patience, limit: int, mint: Mint, now: float
) -> Looked:
    """Look at up to `limit` batches that are due for it, and record the alarms that ring.

    Reads nothing of the batches that are well. An alarm of a part rings for its submission too,
    once for each kind of alarm: nobody but a watch of its own hears of a part.
    """
    due = or_(batches.c.alarm_at <= now, batches.c.alarm_at > now + FURTHEST_SECONDS)
    query = joined_batches().where(_open, due).order_by(batches.c.alarm_at).limit(limit)
    locked = query.with_for_update(of=batches, skip_locked=True)
    found = [to_batch(row) for row in connection.execute(locked)]
    if not found:
        return Looked(0, ())
    usual = _usual(connection)
    decisions = [
        rules.decide(b, now, patience=patience, usual_seconds=usual.get(b.account_id))
        for b in found
    ]
    changed = {one.batch.key: one.batch for one in decisions}
    rung = [Rung(one.batch, alarm, one.batch) for one in decisions for alarm in one.rings]
    rung += _of_submissions(connection, decisions, changed)
    rows = [{"key": b.key, **alarm_values(b)} for b in changed.values()]
    update_all(connection, batches, "key", rows)
    outbox.record_alarms(connection, rung, mint=mint, now=now)
    return Looked(len(found), rung)


def _usual(connection: Connection) -> dict[str, float]:
    """How long the batches of each account usually take, where that can be said."""
    last = (
        select(
            batches.c.account_id,
            batches.c.status,
            batches.c.kind,
            (batches.c.ended_at - batches.c.provider_created_at).label("seconds"),
        )
        .where(batches.c.ended_at.isnot(None))
        .order_by(batches.c.ended_at.desc())
        .limit(COMPLETED_MOST)
        .subquery()
    )
    query = select(last.c.account_id, last.c.seconds).where(
        last.c.status == Status.COMPLETED,
        last.c.kind != BatchKind.JOINED,
        last.c.seconds.isnot(None),
    )
    times: dict[str, list[float]] = defaultdict(list)
    for account_id, seconds in connection.execute(query):
        times[account_id].append(seconds)
    usual = {id: rules.usual_seconds(found) for id, found in times.items()}
    return {id: seconds for id, seconds in usual.items() if seconds is not None}


def _of_submissions(
    connection: Connection, decisions: Sequence[Decision], changed: dict[int, Batch]
) -> list[Rung]:
    """What rings for whole submissions, because it has rung for one of their parts."""
    ringing = {
        one.batch.key: one for one in decisions if one.rings and one.batch.kind is BatchKind.PART
    }
    rung = []
    for part_key, found in _wholes(connection, list(ringing)).items():
        part, whole = ringing[part_key], changed.get(found.key, found)
        new = [a for a in part.rings if a is not Alarm.NO_PROGRESS and a not in whole.alarms]
        after = replace(whole, alarms=whole.alarms | set(new))
        changed[whole.key] = after
        rung += [Rung(after, alarm, part.batch) for alarm in new]
    return rung


def _wholes(connection: Connection, part_keys: Sequence[int]) -> Mapping[int, Batch]:
    """The submissions of these parts, each as a batch of ours, by the part's key."""
    if not part_keys:
        return {}
    query = (
        joined_batches()
        .join(submissions, submissions.c.batch_key == batches.c.key)
        .join(parts, parts.c.submission_id == submissions.c.id)
        .where(_open, among(connection, parts.c.batch_key, part_keys))
        .add_columns(parts.c.batch_key.label("part_key"))
        .order_by(batches.c.key)
        .with_for_update(of=batches)
    )
    return {row.part_key: to_batch(row) for row in connection.execute(query)}


def count_stalled(connection: Connection, *, now: float) -> dict[Alarm, int]:
    """How many open batches stall, by the reason. What is overdue is so by the clock alone."""
    overdue = batches.c.expires_at <= now - rules.OVERDUE_GRACE_SECONDS
    still = batches.c.alarms.contains(Alarm.NO_PROGRESS.value)
    unknown = batches.c.unknown_status.isnot(None)
    conditions = {
        Alarm.UNKNOWN_STATUS: unknown,
        Alarm.OVERDUE: overdue,
        Alarm.NO_PROGRESS: still,
    }
    sums = [func.coalesce(func.sum(case((c, 1), else_=0)), 0) for c in conditions.values()]
    row = connection.execute(select(*sums).where(and_(_open, or_(*conditions.values())))).one()
    return dict(zip(conditions, row, strict=True))
