"""A rate limit: a second's worth at once, and never more than its pace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core import rate

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("limit", "rested", "tokens"),
    [
        (1.0, None, 1),
        (10.0, None, 10),
        (1000.0, None, 1000),
        (2.5, None, 2),
        (0.01, None, 1),
        (10.0, 0.0, 1),
        (10.0, 0.25, 3),
        (10.0, 3600.0, 10),
        (0.01, 3600.0, 1),
        (10.0, -0.05, 0),
        (0.01, -100.0, 0),
    ],
)
def test_a_seconds_worth_at_once_and_no_more(
    limit: float, rested: float | None, tokens: int
) -> None:
    rate_at = None if rested is None else NOW - rested
    assert rate.tokens(limit, rate_at, NOW) == tokens


def test_each_call_moves_the_next_one_on() -> None:
    assert rate.after(10.0, None, NOW, taken=10) == pytest.approx(NOW + 0.1)
    assert rate.after(10.0, NOW - 3600, NOW, taken=1) == pytest.approx(NOW - 0.8)
    assert rate.after(0.01, NOW, NOW, taken=1) == pytest.approx(NOW + 100)


@pytest.mark.parametrize("limit", [0.01, 1.0, 50.0])
def test_a_clock_that_went_back_stops_nothing_and_lets_no_flood_through(limit: float) -> None:
    ahead = NOW + 1 / limit + rate.MARGIN_SECONDS + 1
    assert rate.tokens(limit, ahead, NOW) == 1
    assert rate.after(limit, ahead, NOW, taken=1) == pytest.approx(NOW + 1 / limit)


LIMITS = st.floats(*rate.RATE_PER_SECOND)
STEPS = st.lists(st.tuples(st.floats(0, 120), st.integers(0, 2000)), min_size=1, max_size=50)


@given(LIMITS, STEPS)
def test_over_any_time_no_more_go_than_a_second_and_the_pace_allow(
    limit: float, steps: list[tuple[float, int]]
) -> None:
    now, rate_at = NOW, None
    calls: list[tuple[float, int]] = []
    for waited, wanted in steps:
        now += waited
        taken = min(wanted, rate.tokens(limit, rate_at, now))
        if taken:
            rate_at = rate.after(limit, rate_at, now, taken=taken)
            assert now < rate_at <= now + (1 + 2 * rate.ROUNDING) / limit or taken == wanted
        calls.append((now, taken))
    for i, (begin, _) in enumerate(calls):
        gone = 0
        for end, taken in calls[i:]:
            gone += taken
            assert gone <= max(1.0, limit) + limit * (end - begin) + 0.01


@given(LIMITS, st.floats(0, 1))
def test_who_waits_until_the_next_call_may_go_may_make_it(limit: float, rested: float) -> None:
    taken = rate.tokens(limit, NOW - rested, NOW)
    next_at = rate.after(limit, NOW - rested, NOW, taken=taken)
    assert rate.tokens(limit, next_at, next_at) == 1
