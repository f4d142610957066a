"""When to look again, and how."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core import polling
from batchbell.core.account import Account, AccountState, Arrivals
from batchbell.core.backoff import RETRY_AFTER_MAX_SECONDS
from batchbell.core.errors import (
    ProviderAuthError,
    ProviderBillingError,
    ProviderError,
    ProviderRateLimited,
    ProviderUnavailable,
)
from batchbell.core.polling import (
    AUTH_RETRY_SECONDS,
    PAGE_SIZE,
    TROUBLE_MAX_SECONDS,
    Pace,
    after_failure,
    next_sweep,
    pages_expected,
    reached_oldest,
    rest_seconds,
    should_list,
)

from .making import NOW

PACE = Pace()


@pytest.mark.parametrize(
    ("open_batches", "last_pages", "pages"),
    [(0, None, 1), (1, None, 1), (100, None, 1), (101, None, 2), (1000, 3, 10), (1, 40, 40)],
)
def test_pages_are_expected_as_last_time_or_as_the_open_batches_need(
    open_batches: int, last_pages: int | None, pages: int
) -> None:
    assert pages_expected(open_batches, last_pages) == pages


@pytest.mark.parametrize(
    ("unseen", "pages_read", "expected", "listing"),
    [
        (0, 0, 1, False),
        (1, 0, 1, False),  # one call either way; a retrieve is sure to find it
        (2, 0, 1, True),
        (100, 0, 40, True),
        (40, 0, 40, False),
        (41, 0, 40, True),
        (3, 37, 40, False),
        (4, 37, 40, True),
        (2, 40, 40, True),
        (2, 41, 40, True),
        (2, 42, 40, False),
    ],
)
def test_a_sweep_takes_whichever_costs_fewer_calls(
    unseen: int, pages_read: int, expected: int, listing: bool
) -> None:
    """Not one retrieve for each batch in each cycle."""
    assert should_list(unseen, pages_read, expected) is listing


def calls_of_a_sweep(open_batches: int, pages_there: int, expected: int, found_at: int) -> int:
    """Sweep a history where every open batch shows up on page `found_at` (never, if beyond)."""
    unseen, read = open_batches, 0
    while read < pages_there and should_list(unseen, read, expected):
        read += 1
        if read == found_at:
            unseen = 0
    return read + unseen


@given(
    open_batches=st.integers(1, 500),
    pages_there=st.integers(1, 2000),
    found_at=st.integers(1, 2000),
)
def test_a_history_deeper_than_expected_costs_little_more_than_the_better_way(
    open_batches: int, pages_there: int, found_at: int
) -> None:
    """Two old batches under ten thousand pages must not be looked for page by page."""
    expected = pages_expected(open_batches, None)
    calls = calls_of_a_sweep(open_batches, pages_there, expected, found_at)
    listing = found_at if found_at <= pages_there else pages_there + open_batches
    assert calls <= 2 * min(open_batches, listing) + expected + 1


@pytest.mark.parametrize("open_batches", [1, 2, 99, 100, 101, 1000, 10_000, 100_000])
def test_a_sweep_costs_at_most_a_call_for_each_hundred_open_batches(open_batches: int) -> None:
    unseen, read = open_batches, 0
    expected = pages_expected(open_batches, None)
    while unseen and should_list(unseen, read, expected):
        read += 1
        unseen -= min(unseen, PAGE_SIZE)
    assert read + unseen <= -(-open_batches // PAGE_SIZE)


@pytest.mark.parametrize(
    ("page", "oldest", "reached"),
    [
        ([90, 80, 70], 100.0, True),
        ([90, 90, 90], 100.0, True),
        ([90], 100.0, True),
        ([100, 90], 100.0, False),  # made in the same second: it may be on this page yet
        ([110, 90], 100.0, False),
        ([70, 80, 90], 100.0, False),  # not newest first: no order is promised
        ([90, 70, 80], 100.0, False),
        ([90, None, 70], 100.0, False),
        ([None], 100.0, False),
        ([], 100.0, False),
        ([90, 80], None, False),  # some open batch was never seen: nobody knows how old it is
    ],
)
def test_listing_stops_only_behind_the_oldest_open_batch_of_an_ordered_list(
    page: list[int | None], oldest: float | None, reached: bool
) -> None:
    """Pitfall 17: the order of lists is not documented."""
    assert reached_oldest(page, oldest) is reached


@given(calls=st.integers(0, 10**6), rand=st.floats(0, 1, exclude_max=True))
def test_sweeps_keep_their_interval_and_never_break_the_call_budget(
    calls: int, rand: float
) -> None:
    """Pitfall 24: a fixed pace burns the rate limit."""
    wait = next_sweep(now=NOW, calls=calls, pace=PACE, rand=rand) - NOW
    assert wait >= calls * 60 / PACE.calls_per_minute - 1e-6
    assert wait >= 0.97 * PACE.poll_interval_seconds - 1e-6
    assert wait <= max(PACE.poll_interval_seconds, calls * 60 / PACE.calls_per_minute) + 1e-6


def test_the_budget_is_reached_only_beyond_thirty_thousand_open_batches() -> None:
    assert next_sweep(now=0, calls=300, pace=PACE, rand=0.0) <= PACE.poll_interval_seconds
    assert next_sweep(now=0, calls=1000, pace=PACE, rand=0.0) == 50.0


def test_no_sweep_begins_sooner_than_the_provider_asks_for() -> None:
    pace = Pace(poll_interval_seconds=5.0, look_seconds=60.0)
    assert next_sweep(now=0, calls=1, pace=pace, rand=0.0) == 60.0
    assert rest_seconds(1, pace) == 60.0
    assert rest_seconds(1, PACE) == 0.05
    assert rest_seconds(2_000, pace) == 100.0


@pytest.mark.parametrize("failures", [1, 2, 50])
@pytest.mark.parametrize(
    "error",
    [
        ProviderUnavailable("503"),
        ProviderUnavailable("503", retry_after_seconds=1.0),
        ProviderRateLimited("429", retry_after_seconds=1.0),
        ProviderAuthError("401"),
    ],
)
def test_nor_does_one_after_a_sweep_that_failed(error: ProviderError, failures: int) -> None:
    pace = Pace(poll_interval_seconds=5.0, look_seconds=60.0)
    for rand in (0.0, 0.999):
        assert after_failure(error, failures=failures, now=0.0, pace=pace, rand=rand) >= 60.0


def test_larger_pages_mean_fewer_of_them() -> None:
    assert pages_expected(1_001, None, page_size=1_000) == 2


def wait_after(error: ProviderError, *, failures: int = 1, rand: float = 0.0) -> float:
    return after_failure(error, failures=failures, now=NOW, pace=PACE, rand=rand) - NOW


def test_a_provider_in_trouble_is_called_less_and_less_up_to_a_limit() -> None:
    waits = [wait_after(ProviderUnavailable("503"), failures=n) for n in range(1, 8)]
    assert waits == [15, 30, 60, 120, 240, TROUBLE_MAX_SECONDS, TROUBLE_MAX_SECONDS]


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        (60.0, 60.0),
        (3600.0, 3600.0),
        (0.0, PACE.poll_interval_seconds),
        (1.0, PACE.poll_interval_seconds),
        (float("inf"), RETRY_AFTER_MAX_SECONDS),
        (None, 30.0),
    ],
)
def test_a_429_is_waited_out_as_asked_but_zero_seconds_make_no_tight_loop(
    asked: float | None, waits: float
) -> None:
    """Pitfall 24: 429 pauses the account."""
    error = ProviderRateLimited("slow down", retry_after_seconds=asked)
    assert wait_after(error, failures=2) == waits


def test_another_errors_retry_after_can_only_lengthen_the_wait() -> None:
    assert wait_after(ProviderUnavailable("x", retry_after_seconds=1.0), failures=3) == 60.0
    assert wait_after(ProviderUnavailable("x", retry_after_seconds=99.0), failures=3) == 99.0


@pytest.mark.parametrize("kind", [ProviderAuthError, ProviderBillingError])
@pytest.mark.parametrize("failures", [1, 50])
def test_what_only_a_person_can_mend_is_tried_again_now_and_then(
    kind: type[ProviderError], failures: int
) -> None:
    assert wait_after(kind("401"), failures=failures) == AUTH_RETRY_SECONDS
    slow = Pace(poll_interval_seconds=900.0)
    assert after_failure(kind("401"), failures=1, now=0.0, pace=slow, rand=0.0) == 900.0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"due_at": NOW - 60}, None),
        ({"due_at": NOW - 61}, "no worker"),
        ({"due_at": NOW - 999, "not_before": NOW}, None),
        ({"due_at": NOW - 999, "state": AccountState.PAUSED}, None),
        ({"due_at": NOW + 1e9, "lease_until": NOW - 30}, None),
        ({"due_at": NOW + 1e9, "lease_until": NOW - 90}, "no worker"),
        ({"due_at": NOW - 999, "state": AccountState.FAILING}, "no worker"),
        ({"due_at": NOW + 9, "swept_at": NOW + 3600}, "clock"),
    ],
)
def test_an_account_that_nobody_sweeps_is_seen_by_its_row(
    changes: dict[str, Any], expected: str | None
) -> None:
    values: dict[str, Any] = {"id": "acc_1", "project_id": "default", "name": "a"}
    values |= {"provider": "openai", "base_url": "https://x", "due_at": NOW, "swept_at": NOW - 5}
    why = polling.unswept(Account(**(values | changes)), NOW)
    assert why is None if expected is None else expected in (why or "")


@pytest.mark.parametrize(
    ("ended", "known", "hinted", "announced"),
    [
        (-5, -900, -4, True),
        (-500, -900, -1, True),
        (None, -900, -1, True),
        (-60, -900, None, False),
        (-3_600, -90_000, None, False),
        (-59, -900, None, None),
        (-500, -400, None, None),
        (-500, -500, None, None),
        (None, -900, None, None),
        (+30, -900, None, None),
    ],
)
def test_an_end_counts_as_missed_once_its_webhook_is_not_going_to_come(
    ended: float | None, known: float, hinted: float | None, announced: bool | None
) -> None:
    """Not where it ended before anybody here knew of it."""
    found = polling.was_announced(
        ended_at=None if ended is None else NOW + ended,
        known_since=NOW + known,
        hinted_at=None if hinted is None else NOW + hinted,
        now=NOW,
    )
    assert found is announced


@pytest.mark.parametrize(
    ("before", "ends", "after", "missed"),
    [
        (0, [True], 1, False),
        (2, [True, True], 4, False),
        (2, [None], 2, False),
        (2, [], 2, False),
        (9, [False], 0, True),
        (9, [True, False, True], 0, True),
        (9, [None, False], 0, True),
    ],
)
def test_one_end_that_was_missed_undoes_all_before(
    before: int, ends: list[bool | None], after: int, missed: bool
) -> None:
    arrivals = polling.after_ends(Arrivals(in_a_row=before, missed_at=7.0), ends, now=NOW)
    assert arrivals == Arrivals(in_a_row=after, missed_at=NOW if missed else 7.0)


@pytest.mark.parametrize(
    ("in_a_row", "pace", "seconds"),
    [
        (2, Pace(relaxed_seconds=240), 15),
        (3, Pace(relaxed_seconds=240), 240),
        (99, Pace(), 15),
        (3, Pace(poll_interval_seconds=3_600, relaxed_seconds=240), 3_600),
        (3, Pace(look_seconds=60, relaxed_seconds=240), 240),
        (0, Pace(look_seconds=60, relaxed_seconds=240), 60),
    ],
)
def test_sweeps_relax_where_ends_are_announced_and_nobody_has_chosen_a_pace(
    in_a_row: int, pace: Pace, seconds: float
) -> None:
    arrivals = Arrivals(in_a_row=in_a_row)
    assert next_sweep(now=0, calls=1, pace=pace, rand=1.0, arrivals=arrivals) == seconds


def test_relaxed_sweeps_sound_no_alarm() -> None:
    rules = Path(__file__).parents[2] / "docs" / "howto" / "monitor.md"
    alerted = re.search(r"batchbell_sweep_age_seconds > (\d+)", rules.read_text(encoding="utf-8"))
    assert alerted is not None
    assert float(alerted[1]) > polling.RELAXED_SECONDS + 30


@pytest.mark.parametrize(
    ("hinted", "pages", "all_"), [(1, 1, False), (16, 1, False), (17, 1, True), (17, 50, False)]
)
def test_hints_are_many_where_a_list_costs_fewer_calls(hinted: int, pages: int, all_: bool) -> None:
    assert polling.sweeps_all(hinted, pages) is all_
