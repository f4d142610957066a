"""When an open batch needs somebody's eyes: it stalls, or it is about to expire.

Some batches never end, and no answer of a provider says so: the snapshot never changes, the end is
overdue, or the status is a word that we do not know. Alarms are facts about such a batch. They
never end it. Each alarm rings once in the
life of a batch; `no_progress` may ring again, after there was progress.

`noted` and `decide` say what becomes of a batch and write nothing. `Batch.alarm_at` is when it
must be looked at next, so that nobody has to read the batches that are well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, assert_never

from msgspec import Struct
from msgspec.structs import replace

from batchbell.core.model import Alarm, Batch, BatchKind, EventType, Snapshot, Status

HOUR = 3600.0
DAY = 24 * HOUR

FIRST_LOOK_SECONDS = 60.0
"""When a batch is first looked at, counted from its registration. Many have ended by then."""
LOOK_AGAIN_SECONDS = DAY
"""No batch is left alone for longer, whatever was expected of it."""
OVERDUE_GRACE_SECONDS = 900.0
"""Providers take some minutes to write down what has expired."""
EXPIRING_SOON_SECONDS = 2 * HOUR
STALLED_SECONDS = 6 * HOUR
"""How long nothing may change where it is not known how long batches usually take."""
STALLED_LEAST_SECONDS = 1 * HOUR
STALLED_MOST_SECONDS = DAY
USUAL_TIMES = 3.0
"""Much longer than usual: so many times as long as nine in ten batches take from start to end."""
USUAL_LEAST = 5
"""What is usual cannot be said of fewer batches."""
WINDOW = re.compile(r"([0-9]{1,4})\s*([mhd])", re.ASCII)
UNITS = {"m": 60.0, "h": HOUR, "d": DAY}

ORDER = (Alarm.UNKNOWN_STATUS, Alarm.OVERDUE, Alarm.NO_PROGRESS, Alarm.EXPIRING_SOON)
STALLS = frozenset({Alarm.UNKNOWN_STATUS, Alarm.OVERDUE, Alarm.NO_PROGRESS})
EVENT_OF = dict.fromkeys(STALLS, EventType.STALLED) | {Alarm.EXPIRING_SOON: EventType.EXPIRING_SOON}


class Patience(Struct, frozen=True, kw_only=True):
    """What the operator allows, in seconds. `stalled_after` is None for what is usual."""

    stalled_after: float | None = None
    expiring_soon: float = EXPIRING_SOON_SECONDS

    def without_progress(self, usual_seconds: float | None) -> float:
        """How long nothing may change before the batch counts as stalled."""
        if self.stalled_after is not None:
            return self.stalled_after
        if usual_seconds is None:
            return STALLED_SECONDS
        long = USUAL_TIMES * usual_seconds
        return min(max(long, STALLED_LEAST_SECONDS), STALLED_MOST_SECONDS)


class Decision(Struct, frozen=True):
    """What a look at a batch came to: the batch to write, and the alarms that ring now."""

    batch: Batch
    rings: tuple[Alarm, ...]


def usual_seconds(durations: Iterable[float]) -> float | None:
    """How long nine in ten of some completed batches took; None for too few of them."""
    times = sorted(time for time in durations if time > 0)
    return times[len(times) * 9 // 10] if len(times) >= USUAL_LEAST else None


def expires_at(batch: Batch) -> float | None:
    """When the provider gives the batch up: by its own word, else by the completion window.

    None for a submission, whose parts each have a time of their own, where the provider never does,
    and where nothing is known.
    """
    return _expiry(batch.snapshot, batch.kind)


def _expiry(seen: Snapshot | None, kind: BatchKind) -> float | None:
    if seen is None or seen.runs_on or kind is BatchKind.JOINED:
        return None
    created_at = seen.created_at or 0
    said = seen.timestamps.get("expires_at")
    if said is not None and said > created_at:
        return float(said)
    window = WINDOW.fullmatch((seen.completion_window or "").strip().lower())
    if window is None or not created_at:
        return None
    return created_at + int(window[1]) * UNITS[window[2]]


def unknown_status(batch: Batch) -> str | None:
    """The provider's status where it is a word that we do not know."""
    seen = batch.snapshot
    unknown = seen is not None and seen.status is None and not batch.status.ended
    return seen.provider_status if seen is not None and unknown else None


def is_overdue(batch: Batch, now: float) -> bool:
    """Whether the batch should have ended for some time."""
    if batch.status.ended:
        return False
    end = expires_at(batch)
    return end is not None and end + OVERDUE_GRACE_SECONDS <= now


def holding(batch: Batch, now: float) -> list[Alarm]:
    """What is wrong with the batch at this moment, whether or not it has rung yet."""
    if batch.status.ended:
        return []
    facts = {
        Alarm.UNKNOWN_STATUS: unknown_status(batch) is not None,
        Alarm.OVERDUE: is_overdue(batch, now),
        Alarm.NO_PROGRESS: Alarm.NO_PROGRESS in batch.alarms,
    }
    return [alarm for alarm, holds in facts.items() if holds]


def noted(batch: Batch, seen: Snapshot, now: float) -> dict[str, Any]:
    """What a sighting that does not end the batch changes of its progress and alarms.

    It is looked at sooner where the sighting gives a reason, and never later: who looks at it
    then knows how long it may be left alone.
    """
    if seen == batch.snapshot:
        return {}
    changes: dict[str, Any] = {}
    rung, look_at = batch.alarms, batch.alarm_at
    if _progressed(batch.snapshot, seen):
        changes["progress_at"] = now
        if Alarm.NO_PROGRESS in rung:
            changes["alarms"] = rung = rung - {Alarm.NO_PROGRESS}
            look_at = min(look_at, now + FIRST_LOOK_SECONDS)
    if seen.status is None and Alarm.UNKNOWN_STATUS not in rung:
        look_at = min(look_at, 0.0)
    elif Alarm.OVERDUE not in rung and (end := _expiry(seen, batch.kind)) is not None:
        look_at = min(look_at, end + OVERDUE_GRACE_SECONDS)
    return changes | {"alarm_at": look_at}


def begun_anew(batch: Batch, now: float) -> Batch:
    """The batch at the beginning of a new life: nothing has rung yet."""
    fresh = frozenset[Alarm]()
    return replace(batch, progress_at=now, alarm_at=now + FIRST_LOOK_SECONDS, alarms=fresh)


def _progressed(was: Snapshot | None, seen: Snapshot) -> bool:
    if was is None:
        return True
    return (was.provider_status, was.counts) != (seen.provider_status, seen.counts)


def decide(
    batch: Batch, now: float, *, patience: Patience, usual_seconds: float | None
) -> Decision:
    """Which alarms of an open batch ring now, and when it is looked at next."""
    times = _times(batch, patience, usual_seconds)
    due = {alarm for alarm, time in times.items() if time <= now}
    end = expires_at(batch)
    if batch.status is Status.CANCELLING or (end is not None and end <= now):
        due.discard(Alarm.EXPIRING_SOON)
    rings = tuple(alarm for alarm in ORDER if alarm in due - batch.alarms)
    coming = [time for alarm, time in times.items() if alarm not in batch.alarms and time > now]
    after = replace(
        batch,
        alarms=batch.alarms | due,
        alarm_at=min([*coming, now + LOOK_AGAIN_SECONDS]),
    )
    return Decision(after, rings)


def _times(batch: Batch, patience: Patience, usual_seconds: float | None) -> dict[Alarm, float]:
    """From when on each alarm holds, if nothing happens until then."""
    times = {Alarm.NO_PROGRESS: batch.progress_at + patience.without_progress(usual_seconds)}
    if unknown_status(batch) is not None:
        times[Alarm.UNKNOWN_STATUS] = 0.0
    end = expires_at(batch)
    if end is not None:
        times[Alarm.OVERDUE] = end + OVERDUE_GRACE_SECONDS
        times[Alarm.EXPIRING_SOON] = end - _notice_seconds(batch, end, patience)
    return times


def _notice_seconds(batch: Batch, end: float, patience: Patience) -> float:
    """A batch with an hour to live is not about to expire when it begins."""
    begin = batch.snapshot.created_at if batch.snapshot else None
    life = end - begin if begin else DAY
    return min(patience.expiring_soon, life / 4)


def reason(alarm: Alarm, batch: Batch) -> str:
    """What an alarm says of a batch, in a sentence."""
    end = expires_at(batch)
    match alarm:
        case Alarm.UNKNOWN_STATUS:
            word = unknown_status(batch)
            return f"Batchbell does not know the provider's status {word!r}: it watches on."
        case Alarm.OVERDUE:
            return f"It should have ended by {moment(end)}, and still runs: Batchbell watches on."
        case Alarm.NO_PROGRESS:
            return f"No progress since {moment(batch.progress_at)}: much longer than usual."
        case Alarm.EXPIRING_SOON:
            return f"It expires at {moment(end)}: what has not run by then is not run."
        case _:
            assert_never(alarm)


def reasons(batch: Batch, now: float) -> Sequence[str]:
    """What is wrong with the batch at this moment, in sentences."""
    return [reason(alarm, batch) for alarm in holding(batch, now)]


def moment(time: float | None) -> str:
    """A time for people, in UTC."""
    if time is None:
        return "an unknown time"
    try:
        return datetime.fromtimestamp(int(time), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "a time that no calendar has"
