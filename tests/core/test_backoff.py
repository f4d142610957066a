"""The schedule, the jitter, and `Retry-After`."""

from __future__ import annotations

import os
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.backoff import (
    JITTER_MAX_SECONDS,
    RETRY_AFTER_MAX_SECONDS,
    SCHEDULE_SECONDS,
    delay_after,
    duration_seconds,
    exponential,
    jittered,
    retry_after,
)

from .making import NOW

rands = st.floats(min_value=0, max_value=1, exclude_max=True)
MINUTES, HOURS = 60, 3600


def test_the_schedule_is_twelve_attempts_over_75_7_hours() -> None:
    assert list(SCHEDULE_SECONDS) == [
        0,
        5,
        30,
        2 * MINUTES,
        10 * MINUTES,
        30 * MINUTES,
        2 * HOURS,
        5 * HOURS,
        10 * HOURS,
        14 * HOURS,
        20 * HOURS,
        24 * HOURS,
    ]
    assert round(sum(SCHEDULE_SECONDS) / HOURS, 1) == 75.7


def test_without_jitter_each_failure_waits_as_the_schedule_says_and_the_last_has_no_next() -> None:
    """Pitfall 4: no limit and no backoff."""
    waits = [delay_after(attempt, rand=0.0) for attempt in range(1, 14)]
    assert waits == [*SCHEDULE_SECONDS[1:], None, None]


@given(seconds=st.floats(min_value=0, max_value=1e7), rand=rands)
def test_jitter_is_never_early_and_never_more_than_a_tenth_or_a_quarter_of_an_hour(
    seconds: float, rand: float
) -> None:
    late = jittered(seconds, rand) - seconds
    assert late >= 0
    assert late <= min(seconds / 10, JITTER_MAX_SECONDS) + 1e-6


def test_jitter_uses_the_whole_of_its_room() -> None:
    assert jittered(100.0, 0.5) == 105.0
    assert jittered(86_400.0, 0.5) == 86_400.0 + JITTER_MAX_SECONDS / 2
    assert JITTER_MAX_SECONDS == 15 * MINUTES


@given(attempt=st.integers(1, 11), rand=rands)
def test_every_delay_of_the_schedule_is_jittered(attempt: int, rand: float) -> None:
    assert delay_after(attempt, rand=rand) == jittered(SCHEDULE_SECONDS[attempt], rand)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("86400", 86_400.0),
        ("86401", RETRY_AFTER_MAX_SECONDS),
        ("9" * 400, RETRY_AFTER_MAX_SECONDS),
        ("9" * 5000, RETRY_AFTER_MAX_SECONDS),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        (formatdate(NOW + 10**8, usegmt=True), RETRY_AFTER_MAX_SECONDS),
        ("Sunday, 23-Jun-24 18:41:00 GMT", 60.0),
        ("Sun Jun 23 18:41:00 2024", 60.0),
        ("Sun, 23 Jun 2024 18:41:00 -0000", 60.0),
        ("Sun, 23 Jun 2024 20:41:00 +0200", 60.0),
        ("2024-06-23T18:41:00Z", 60.0),
        (str(int(NOW) + 75), 75.0),
        (str((int(NOW) + 75) * 1000), 75.0),
        (str(int(NOW) - 75), 0.0),
        (str((int(NOW) - 75) * 1000), 0.0),
        (f"{int(NOW) + 75}.5", 75.5),
        ("6m0s", 360.0),
        ("1s", 1.0),
        ("1500ms", 1.5),
        ("1h2m3.5s", 3723.5),
        ("2 s", 2.0),
        ("90S", 90.0),
        ("999h", RETRY_AFTER_MAX_SECONDS),
    ],
)
def test_retry_after_is_read_as_seconds_times_and_durations(value: str, seconds: float) -> None:
    assert retry_after(value, now=NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        ".",
        "-1",
        "+1",
        "1e3",
        "1.2.3",
        "inf",
        "nan",
        "soon",
        "1s later",
        "-1s",
        "1d",
        "2 minutes",
        "٣",
        "1_000",
        "0x10",
        "Wed, 99 Foo 2024 99:99:99 GMT",
        "Sun, 23 Jun 99999 18:41:00 GMT",
        "Sun, 23 Jun 2024 18:41:00 +99999999999999",
    ],
)
def test_a_retry_after_that_makes_no_sense_is_none(value: str | None) -> None:
    assert retry_after(value, now=NOW) is None


@given(value=st.text(max_size=60))
def test_no_retry_after_raises_or_leaves_its_bounds(value: str) -> None:
    seconds = retry_after(value, now=NOW)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_MAX_SECONDS


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles"])
def test_a_date_without_a_zone_means_the_same_on_every_machine(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.environ.get("TZ")
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        assert retry_after("Sun Jun 23 18:41:00 2024", now=NOW) == 60.0
    assert os.environ.get("TZ") == before
    time.tzset()


def test_a_duration_is_never_taken_for_a_time() -> None:
    assert duration_seconds("17") == 17.0
    assert duration_seconds(str(int(NOW))) == RETRY_AFTER_MAX_SECONDS
    assert duration_seconds("6m0s") == 360.0
    assert [duration_seconds(text) for text in (None, "", "soon", "Sun, 23 Jun")] == [None] * 4


def test_backoff_doubles_up_to_its_limit() -> None:
    waits = [
        exponential(failures, base_seconds=15.0, max_seconds=300.0, rand=0.0)
        for failures in range(8)
    ]
    assert waits == [15, 15, 30, 60, 120, 240, 300, 300]


@given(failures=st.integers(0, 10**9), rand=rands)
def test_backoff_never_overflows(failures: int, rand: float) -> None:
    wait = exponential(failures, base_seconds=15.0, max_seconds=300.0, rand=rand)
    assert 15.0 <= wait <= 330.0
