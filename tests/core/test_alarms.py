"""Which batches need somebody's eyes, and how often that is said."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from batchbell.core import alarms, lifecycle
from batchbell.core.alarms import Patience
from batchbell.core.model import Alarm, Batch, BatchKind, Counts, Doubtful, EventType, Status
from tests.core.making import NOW, a_batch, a_snapshot

HOUR = 3600
UNKNOWN, OVERDUE, STILL, SOON = (
    Alarm.UNKNOWN_STATUS,
    Alarm.OVERDUE,
    Alarm.NO_PROGRESS,
    Alarm.EXPIRING_SOON,
)


def running(status: Status | None = Status.IN_PROGRESS, **seen: Any) -> Batch:
    """A batch that was made an hour ago, got on just now, and has 23 hours left."""
    created = int(NOW) - HOUR
    values: dict[str, Any] = {
        "timestamps": {"created_at": created, "expires_at": created + 24 * HOUR},
        "counts": Counts(total=10, completed=3, failed=0),
    }
    snapshot = a_snapshot(status, **(values | seen))
    return a_batch(Status.IN_PROGRESS, snapshot=snapshot, progress_at=NOW)


def rings(batch: Batch, now: float, usual: float | None = None, **patience: Any) -> set[Alarm]:
    decision = alarms.decide(batch, now, patience=Patience(**patience), usual_seconds=usual)
    return set(decision.rings)


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (0, set()),
        (5.9, set()),
        (6.1, {STILL}),
        (21.1, {STILL, SOON}),
        (23.1, {STILL}),
        (23.3, {STILL, OVERDUE}),
        (90, {STILL, OVERDUE}),
    ],
)
def test_a_batch_that_never_changes_rings_each_alarm_when_its_time_has_come(
    hours: float, expected: set[Alarm]
) -> None:
    assert rings(running(), NOW + hours * HOUR) == expected


@pytest.mark.parametrize("hours", [21.1, 23.3, 90])
def test_one_that_may_run_on_is_never_overdue_and_never_expires(hours: float) -> None:
    """Azure: "we do not expire the jobs that take longer"."""
    batch = running(runs_on=True, completion_window="24h")
    assert rings(batch, NOW + hours * HOUR) == {STILL}
    assert not alarms.is_overdue(batch, NOW + hours * HOUR)
    assert alarms.expires_at(batch) is None


@pytest.mark.parametrize(
    ("usual", "patience", "seconds"),
    [
        (None, {}, 6 * HOUR),
        (60.0, {}, HOUR),
        (1 * HOUR, {}, 3 * HOUR),
        (20 * HOUR, {}, 24 * HOUR),
        (20 * HOUR, {"stalled_after": 30.0}, 30),
    ],
)
def test_much_longer_than_usual_is_measured_and_bounded(
    usual: float | None, patience: dict[str, float], seconds: float
) -> None:
    batch = replace(running(), snapshot=a_snapshot())
    assert STILL not in rings(batch, NOW + seconds - 1, usual, **patience)
    assert STILL in rings(batch, NOW + seconds, usual, **patience)


@pytest.mark.parametrize(
    ("durations", "usual"),
    [
        ([], None),
        ([10.0] * 4, None),
        ([10.0] * 5, 10.0),
        ([10.0] * 9 + [9_000.0], 9_000.0),
        ([10.0] * 19 + [9_000.0], 10.0),
        ([0.0, -5.0] * 10, None),
    ],
)
def test_one_slow_batch_among_many_is_not_usual(
    durations: list[float], usual: float | None
) -> None:
    assert alarms.usual_seconds(durations) == usual


@pytest.mark.parametrize(
    ("seen", "end"),
    [
        ({}, 23 * HOUR),
        ({"timestamps": {}}, None),
        ({"timestamps": {"created_at": int(NOW)}}, None),
        ({"timestamps": {"created_at": int(NOW)}, "completion_window": "24h"}, 24 * HOUR),
        ({"timestamps": {"created_at": int(NOW)}, "completion_window": " 7D"}, 168 * HOUR),
        ({"timestamps": {"created_at": int(NOW)}, "completion_window": "30m"}, HOUR / 2),
        ({"timestamps": {"created_at": int(NOW)}, "completion_window": "soon"}, None),
        ({"timestamps": {"created_at": int(NOW)}, "completion_window": "24h\n24h"}, None),
        ({"timestamps": {"created_at": int(NOW), "expires_at": 0}}, None),
        ({"timestamps": {"created_at": int(NOW), "expires_at": 5}}, None),
        ({"timestamps": {"expires_at": int(NOW) + 5}}, 5),
        ({"timestamps": {"expires_at": 10**18}}, 10**18 - NOW),
    ],
)
def test_odd_times_of_expiry_are_no_facts(seen: dict[str, Any], end: float | None) -> None:
    batch = running(**seen)
    found = alarms.expires_at(batch)
    assert found == (None if end is None else NOW + end)
    assert alarms.expires_at(replace(batch, kind=BatchKind.JOINED)) is None
    for alarm in Alarm:
        assert alarms.reason(alarm, batch), "whatever the numbers are"


def test_a_batch_that_lives_an_hour_is_not_about_to_expire_when_it_begins() -> None:
    created = int(NOW)
    batch = running(timestamps={"created_at": created, "expires_at": created + HOUR})
    assert rings(batch, NOW) == set()
    assert rings(batch, NOW + 45 * 60) == {SOON}


def test_a_batch_that_is_being_cancelled_expires_by_nobody_s_surprise() -> None:
    batch = replace(running(), status=Status.CANCELLING)
    assert rings(batch, NOW + 22 * HOUR) == {STILL}
    assert rings(batch, NOW + 24 * HOUR) == {STILL, OVERDUE}


def test_an_unknown_status_rings_at_once_and_only_once() -> None:
    seen = running(None).snapshot
    assert seen is not None
    observed = lifecycle.observe(running(), seen, NOW).batch
    assert observed.alarm_at <= NOW
    assert alarms.unknown_status(observed) == "dreaming"
    decided = alarms.decide(observed, NOW, patience=Patience(), usual_seconds=None)
    assert decided.rings == (UNKNOWN,)
    assert rings(decided.batch, NOW + 60) == set()
    assert alarms.holding(decided.batch, NOW + 60) == [UNKNOWN]

    known = lifecycle.observe(decided.batch, replace(seen, status=Status.FINALIZING), NOW).batch
    assert alarms.holding(known, NOW) == []
    again = lifecycle.observe(known, seen, NOW).batch
    assert rings(again, NOW) == set()


def test_without_progress_it_rings_once_and_anew_after_there_was_some() -> None:
    stalled = alarms.decide(running(), NOW + 7 * HOUR, patience=Patience(), usual_seconds=None)
    assert stalled.rings == (STILL,)
    assert rings(stalled.batch, NOW + 20 * HOUR) == set()

    seen = stalled.batch.snapshot
    assert seen is not None
    touched = replace(seen, metadata={"touched": "yes"})
    same = lifecycle.observe(stalled.batch, touched, NOW + 8 * HOUR).batch
    assert same.progress_at == NOW, "metadata is no progress"
    moved = lifecycle.observe(
        stalled.batch, replace(seen, counts=Counts(total=10, completed=4, failed=0)), NOW + 8 * HOUR
    ).batch
    assert alarms.holding(moved, NOW + 8 * HOUR) == []
    assert moved.alarm_at <= NOW + 8 * HOUR + alarms.FIRST_LOOK_SECONDS
    assert rings(moved, NOW + 13 * HOUR) == set()
    assert rings(moved, NOW + 14.1 * HOUR) == {STILL}


def test_a_row_that_cannot_be_read_makes_no_progress() -> None:
    doubted = lifecycle.observe(running(), Doubtful("batch_1", "no sense"), NOW + 5 * HOUR)
    assert rings(doubted.batch, NOW + 7 * HOUR) == {STILL}


def test_it_is_looked_at_when_the_next_alarm_may_ring_and_once_a_day() -> None:
    def next_look(batch: Batch, now: float) -> float:
        decided = alarms.decide(batch, now, patience=Patience(), usual_seconds=None)
        return decided.batch.alarm_at - NOW

    assert next_look(running(), NOW) == 6 * HOUR
    assert next_look(running(), NOW + 6 * HOUR) == 21 * HOUR
    assert next_look(running(), NOW + 30 * HOUR) == 54 * HOUR
    assert next_look(a_batch(progress_at=NOW), NOW + 7 * HOUR) == 31 * HOUR


def test_a_sighting_brings_the_next_look_forward_and_never_puts_it_off() -> None:
    batch = replace(running(), alarm_at=NOW + 60)
    seen = batch.snapshot
    assert seen is not None
    late = replace(seen, timestamps={"created_at": int(NOW) - HOUR, "expires_at": int(NOW) - 1800})
    assert lifecycle.observe(batch, late, NOW).batch.alarm_at == NOW - 900
    later = replace(seen, counts=None)
    assert lifecycle.observe(batch, later, NOW).batch.alarm_at == NOW + 60


def test_a_new_life_has_no_alarms() -> None:
    lost = replace(running(), status=Status.LOST, ended_at=NOW, alarms=frozenset(Alarm))
    reopened = lifecycle.reopen(lost, NOW + HOUR)
    assert (reopened.alarms, reopened.progress_at) == (frozenset(), NOW + HOUR)


def test_every_alarm_has_an_event_and_what_has_ended_has_none() -> None:
    assert set(alarms.EVENT_OF) == set(Alarm)
    assert set(alarms.EVENT_OF.values()) == {EventType.STALLED, EventType.EXPIRING_SOON}
    assert set(alarms.ORDER) == set(Alarm)
    ended = replace(running(None), status=Status.FAILED, alarms=frozenset(Alarm))
    assert alarms.holding(ended, NOW + 90 * HOUR) == []
