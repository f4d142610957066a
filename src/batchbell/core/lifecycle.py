"""The two state machines: what may become of a batch, and of a delivery.

`BATCH_MOVES` and `DELIVERY_MOVES` are the law; the diagrams in the docs are drawn from them.
`observe` and `settle` decide what happens next and write nothing. The third machine, that of an
endpoint, is in `health`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, assert_never

from msgspec import Struct
from msgspec.structs import replace

from batchbell.core import alarms, backoff
from batchbell.core.model import (
    ENDED,
    HISTORY_MOST,
    Batch,
    DeliveryState,
    Doubtful,
    EventType,
    Fault,
    Missing,
    Outcome,
    Sighting,
    Snapshot,
    Status,
    StatusChange,
)
from batchbell.core.results import INLINE_WAIT_SECONDS

BATCH_MOVES: Mapping[Status, frozenset[Status]] = {
    Status.VALIDATING: frozenset(Status) - {Status.VALIDATING},
    Status.IN_PROGRESS: ENDED | {Status.FINALIZING, Status.CANCELLING},
    Status.FINALIZING: ENDED | {Status.CANCELLING},
    Status.CANCELLING: ENDED,
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.EXPIRED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.LOST: frozenset(Status) - {Status.LOST},
}
"""An end is final, but for `lost`: what is seen again, or registered anew, begins a new life."""

DELIVERY_MOVES: Mapping[DeliveryState, frozenset[DeliveryState]] = {
    DeliveryState.PENDING: frozenset(
        {DeliveryState.DELIVERED, DeliveryState.EXHAUSTED, DeliveryState.HELD}
    ),
    DeliveryState.DELIVERED: frozenset({DeliveryState.PENDING}),
    DeliveryState.EXHAUSTED: frozenset({DeliveryState.PENDING}),
    DeliveryState.HELD: frozenset({DeliveryState.PENDING}),
}
"""Every way back to `pending` is a resend that somebody asked for."""

LOST_AFTER_SECONDS = 60.0
"""The API itself must have said for so long that it has nothing of a batch nobody has ever seen."""
LOST_ALIVE_AFTER_SECONDS = 6 * 3600.0
"""The same for a batch that was seen alive, at least `LOST_ALIVE_MISSES` times in a row."""
LOST_ALIVE_MISSES = 4
LOST_WATCH_SECONDS = 7 * 86_400.0
"""How long a lost batch is still asked for, ever more rarely."""

DOUBTS_MAX = 2
"""So many doubtful answers in a row are asked again at the next sweep; further ones wait."""
DOUBT_SECONDS = 60.0
POISON_SECONDS = 3600.0
"""The longest wait of a batch of which no answer makes sense."""

BUSY_STATUSES = frozenset({429, 503})
PAUSE_MOST_SECONDS = 900.0
"""How long the whole endpoint is left alone at most when it does not say for how long."""

EVENT_OF: Mapping[Status, EventType] = {
    Status.IN_PROGRESS: EventType.IN_PROGRESS,
    Status.FINALIZING: EventType.FINALIZING,
    Status.COMPLETED: EventType.COMPLETED,
    Status.FAILED: EventType.FAILED,
    Status.EXPIRED: EventType.EXPIRED,
    Status.CANCELLED: EventType.CANCELLED,
    Status.LOST: EventType.LOST,
}

STANDS_IN: Mapping[EventType, EventType] = {EventType.LOST: EventType.FAILED}
"""What tells those of an end who did not ask for its own type."""

END_TIMESTAMP: Mapping[Status, str] = {
    Status.COMPLETED: "completed_at",
    Status.FAILED: "failed_at",
    Status.EXPIRED: "expired_at",
    Status.CANCELLED: "cancelled_at",
}


class Observation(Struct, frozen=True):
    """What a sighting makes of a batch: the batch to store, and the event it caused, if any."""

    batch: Batch
    event: EventType | None = None


def observe(batch: Batch, sighting: Sighting, now: float) -> Observation:
    """Decide what a provider's answer means for a batch.

    A batch that has ended is never moved by a late answer, and a running one never moves back:
    such an answer is stale, and changes nothing. Only what was called lost comes back when it is
    seen.
    """
    if batch.status.ended and batch.status is not Status.LOST:
        return Observation(batch)
    match sighting:
        case Missing():
            return _miss(batch, sighting, now)
        case Doubtful():
            return Observation(_doubt(batch, sighting, now))
        case Snapshot():
            return _see(batch, sighting, now)
        case _:
            assert_never(sighting)


def _remembered(batch: Batch, status: Status, word: str | None, now: float) -> dict[str, Any]:
    """The history, where the status or the provider's word for it is another one from now on."""
    said = batch.snapshot.provider_status if batch.snapshot else None
    if (batch.status, said) == (status, word):
        return {}
    theirs = None if status is Status.LOST else word
    change = StatusChange(at=now, status=status, provider_status=theirs)
    return {"history": (*batch.history, change)[-HISTORY_MOST:]}


def _miss(batch: Batch, missing: Missing, now: float) -> Observation:
    if batch.status is Status.LOST:
        return Observation(_still_lost(batch, now))
    known_since = batch.missing_since
    if known_since is not None and known_since <= now < batch.check_at:
        return Observation(batch)  # too early to count as another one
    since = now if known_since is None else min(known_since, now)
    misses = 1 if known_since is None else batch.doubts + 1
    alive = batch.snapshot is not None
    patience = LOST_ALIVE_AFTER_SECONDS if alive else LOST_AFTER_SECONDS
    if misses >= (LOST_ALIVE_MISSES if alive else 2) and now >= since + patience:
        said = batch.snapshot.provider_status if batch.snapshot else None
        history = _remembered(batch, Status.LOST, said, now)
        lost = replace(batch, status=Status.LOST, ended_at=now, updated_at=now, **history)
        return Observation(_still_lost(lost, now), EventType.LOST)
    waiting = replace(
        batch,
        missing_since=since,
        doubts=misses,
        check_at=now + _doubling(LOST_AFTER_SECONDS, misses - 1),
        look_error=missing.reason or batch.look_error,
    )
    return Observation(waiting)


def _still_lost(batch: Batch, now: float) -> Batch:
    """Asked for again after half as long again as it has been lost for."""
    age = now - (now if batch.ended_at is None else batch.ended_at)
    return replace(batch, check_at=now + max(LOST_AFTER_SECONDS, age / 2))


def _doubt(batch: Batch, doubt: Doubtful, now: float) -> Batch:
    """Ask again at the next sweep; from the third in a row on wait, longer each time."""
    if batch.status is Status.LOST:
        return _still_lost(batch, now)
    doubts = batch.doubts + 1
    waits = doubts > DOUBTS_MAX
    return replace(
        batch,
        doubts=doubts,
        check_at=now + _doubling(DOUBT_SECONDS, doubts - DOUBTS_MAX - 1) if waits else 0.0,
        missing_since=None if doubt.there else batch.missing_since,
        look_error=doubt.reason,
        updated_at=batch.updated_at if doubt.reason == batch.look_error else now,
    )


def _doubling(first_seconds: float, times: int) -> float:
    return min(first_seconds * 2.0 ** min(times, 32), max(first_seconds, POISON_SECONDS))


def _see(batch: Batch, seen: Snapshot, now: float) -> Observation:
    if batch.status is Status.LOST:
        if seen.status is Status.LOST:
            return Observation(batch)
        again = _see(reopen(batch, now), seen, now)
        history = _remembered(batch, again.batch.status, seen.provider_status, now)
        return Observation(replace(again.batch, **history), again.event)
    status = seen.status or batch.status
    stays = status is batch.status
    if (stays and seen == batch.snapshot) or (
        not stays and status not in BATCH_MOVES[batch.status]
    ):
        return Observation(_here(batch))
    changes = {"snapshot": seen, "updated_at": now}
    changes |= _remembered(batch, status, seen.provider_status, now)
    if status.ended:
        changes["ended_at"] = _end_time(seen, status, now)
    else:
        changes |= alarms.noted(batch, seen, now)
    if stays:
        return Observation(_here(batch, **changes))
    return Observation(_here(batch, status=status, **changes), EVENT_OF.get(status))


def _here(batch: Batch, **changes: Any) -> Batch:
    """The batch with these changes, and without any doubt: it was seen."""
    return replace(batch, missing_since=None, look_error=None, check_at=0.0, doubts=0, **changes)


def _end_time(seen: Snapshot, status: Status, now: float) -> float:
    """By the provider's clock, but nothing has ended in the future or before 1970.

    Azure stamps a failed batch with `completed_at` alone.
    """
    for name in (END_TIMESTAMP.get(status), "completed_at"):
        stamp = seen.timestamps.get(name) if name else None
        if stamp is not None and stamp > 0:
            return float(min(stamp, now))
    return now


def reopen(batch: Batch, now: float) -> Batch:
    """Begin a new life of a lost batch: it was seen, or somebody says again that it is there."""
    return begin_anew(batch, now) if batch.status is Status.LOST else batch


def begin_anew(batch: Batch, now: float) -> Batch:
    """Begin a new life, which has events and results of its own."""
    return replace(
        alarms.begun_anew(batch, now),
        status=Status.VALIDATING,
        ended_at=None,
        missing_since=None,
        check_at=0.0,
        doubts=0,
        look_error=None,
        expunged_at=None,
        merged_outcome=None,
        updated_at=now,
        generation=batch.generation + 1,
        **_remembered(batch, Status.VALIDATING, None, now),
    )


def type_for(event: EventType, wanted: Collection[EventType]) -> EventType | None:
    """The type under which somebody who wants `wanted` hears of `event`; None if they do not."""
    if event in wanted:
        return event
    stand_in = STANDS_IN.get(event)
    return stand_in if stand_in in wanted else None


class Settlement(Struct, frozen=True, kw_only=True):
    """What one attempt makes of its delivery."""

    state: DeliveryState
    due_at: float | None
    """When to try next; None unless `pending`."""
    needs_you: str | None = None
    scheduled_seconds: float = 0.0
    """How long the schedule waits; `due_at` may be later, where the receiver asked for it."""


DELIVERED = Settlement(state=DeliveryState.DELIVERED, due_at=None)


def settle(
    outcome: Outcome,
    *,
    attempt: int,
    now: float,
    rand: float,
    schedule: Sequence[float] | None = None,
    parked_seconds: float = 0.0,
) -> Settlement:
    """Decide what an outcome makes of the delivery that was tried for the `attempt`th time.

    `attempt` counts from the last resend. `rand` in [0, 1) spreads the retries. `schedule` is
    the endpoint's own, if any. A delivery that was parked for as long as the whole schedule takes
    is tried once more, and that was it.
    """
    if outcome.success:
        return DELIVERED
    if outcome.status == 410:
        return Settlement(state=DeliveryState.HELD, due_at=None, needs_you=advice(outcome))
    delay = backoff.delay_after(attempt, rand=rand, schedule=schedule)
    if delay is None or parked_seconds >= sum(schedule or backoff.SCHEDULE_SECONDS):
        return Settlement(state=DeliveryState.EXHAUSTED, due_at=None, needs_you=advice(outcome))
    wait = max(delay, pause_seconds(outcome) or 0.0)
    return Settlement(
        state=DeliveryState.PENDING,
        due_at=now + wait,
        needs_you=advice(outcome),
        scheduled_seconds=delay,
    )


LEASE_MOST_SECONDS = 120.0
"""No lease of a delivery is longer: twice the longest timeout, and a margin."""


def longest_wait_seconds(
    attempts: int, *, leased: bool, schedule: Sequence[float] | None = None
) -> float:
    """How long a delivery may wait that was tried so often since it was last sent again.

    One that waits longer was written before the clock was set back, unless its endpoint asked for
    a pause.
    """
    if leased:
        return LEASE_MOST_SECONDS
    if attempts < 1:
        return INLINE_WAIT_SECONDS
    return backoff.delay_after(attempts, rand=1.0, schedule=schedule) or 0.0


def pause_seconds(outcome: Outcome, *, scheduled_seconds: float = 0.0) -> float | None:
    """How long a 429 or 503 keeps the whole endpoint from being called; None for all else.

    As long as it asks for, and as the delivery itself waits: but for 15 minutes of that at most,
    so that one delivery that was tried often does not keep the new ones waiting for hours.
    """
    if outcome.status not in BUSY_STATUSES:
        return None
    asked = min(outcome.retry_after_seconds or 0.0, backoff.RETRY_AFTER_MAX_SECONDS)
    return max(asked, min(scheduled_seconds, PAUSE_MOST_SECONDS))


def advice(outcome: Outcome) -> str | None:
    """What the endpoint's owner should do, where waiting alone will hardly help."""
    status = outcome.status
    if status == 410:
        return "The endpoint answered 410 Gone and was disabled; its deliveries are held."
    if status is not None and 300 <= status < 400:
        where = outcome.location or "the address it redirects to"
        return f"Redirects are not followed: set the URL to {where}."
    if status is not None and 400 <= status < 500 and status not in (408, 425, 429):
        return f"The endpoint refuses the call with {status}: look at its log."
    if outcome.fault in (Fault.TLS, Fault.DNS, Fault.REFUSED, Fault.DAMAGED):
        return outcome.detail or f"The endpoint cannot be called: {outcome.fault}."
    return None
