"""What is heard of an endpoint: its states, its breaker, and when it is said aloud."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.backoff import RETRY_AFTER_MAX_SECONDS, SCHEDULE_SECONDS
from batchbell.core.health import (
    ENDPOINT_MOVES,
    PROBE_MOST_SECONDS,
    WARN_SECONDS,
    Change,
    endpoint_after,
    parked_seconds,
)
from batchbell.core.model import Endpoint, EndpointState, Fault, Outcome

from .making import NOW, an_endpoint

OK = Outcome(status=200)
DOWN = Outcome(status=500)
GONE = Outcome(status=410)
BUSY = Outcome(status=429, retry_after_seconds=60.0)
DAY = 86_400.0


def after(endpoint: Endpoint, outcomes: list[Outcome], now: float) -> Endpoint:
    return endpoint_after(endpoint, [(outcome, 5.0) for outcome in outcomes], now)


def down_for(*seconds: float) -> Endpoint:
    """Failed at each of these moments."""
    endpoint = an_endpoint()
    for at in seconds:
        endpoint = after(endpoint, [DOWN], NOW + at)
    return endpoint


def test_failures_add_up_from_the_first() -> None:
    once = after(an_endpoint(), [DOWN], NOW)
    more = after(once, [DOWN, Outcome(fault=Fault.TIMEOUT)], NOW + 50)
    assert (more.state, more.failures, more.failing_since) == (EndpointState.FAILING, 3, NOW)
    assert more.state_since == NOW


def test_a_success_forgives_everything() -> None:
    parked = down_for(0, 20, 40, 60, 80)
    assert parked.opened_at is not None
    assert after(parked, [OK], NOW + 90) == an_endpoint(state_since=NOW + 90)


def test_a_healthy_success_changes_nothing_so_that_nothing_is_written() -> None:
    endpoint = an_endpoint()
    assert after(endpoint, [OK] * 3, NOW) is endpoint


def test_410_disables_now_and_nothing_heard_later_enables() -> None:
    """Pitfall 25: an auto-disable that never happened."""
    gone = after(an_endpoint(), [DOWN, GONE, OK, DOWN], NOW)
    assert gone.state is EndpointState.DISABLED
    assert gone.reason
    assert after(gone, [OK, BUSY], NOW + 9).state is EndpointState.DISABLED


def test_a_429_pauses_the_whole_endpoint_and_the_longest_wish_wins() -> None:
    busy = after(an_endpoint(), [BUSY, Outcome(status=503, retry_after_seconds=5.0)], NOW)
    assert busy.paused_until == NOW + 60
    assert after(busy, [DOWN], NOW + 1).paused_until == NOW + 60


def test_a_503_that_says_nothing_pauses_for_as_long_as_the_schedule_waits() -> None:
    assert after(an_endpoint(), [Outcome(status=503)], NOW).paused_until == NOW + 5


def test_a_success_that_was_under_way_does_not_cut_a_pause_short() -> None:
    busy = after(an_endpoint(), [BUSY, OK], NOW)
    assert (busy.state, busy.failures) == (EndpointState.ACTIVE, 0)
    assert busy.paused_until == NOW + 60


def test_a_success_after_the_pause_ends_it() -> None:
    busy = after(an_endpoint(), [BUSY], NOW)
    assert after(busy, [OK], NOW + 60).paused_until is None


# --- the breaker ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moments", "opens"),
    [
        ((0, 0, 0, 0, 0, 0, 0, 0), False),
        ((0, 1, 2, 3, 59.9), False),
        ((0, 20, 40, 60), False),
        ((0, 1, 2, 3, 60), True),
        ((0, 5, 35, 155, 755), True),
    ],
)
def test_five_failures_over_a_minute_open_the_breaker(
    moments: tuple[float, ...], opens: bool
) -> None:
    assert (down_for(*moments).opened_at is not None) is opens


def test_probes_wait_30_s_and_double_to_15_min() -> None:
    endpoint = down_for(0, 1, 2, 3, 60)
    waits, now = [], NOW + 60
    for _ in range(8):
        assert endpoint.probe_at is not None
        waits.append(endpoint.probe_at - now)
        now = endpoint.probe_at
        endpoint = after(endpoint, [DOWN], now)
    assert waits == [30, 60, 120, 240, 480, 900, 900, 900]


def test_a_lone_delivery_keeps_its_own_schedule_but_for_a_probes_wait() -> None:
    """It is never tried earlier, and at most 15 minutes later; and never disables alone."""
    endpoint, due, now = an_endpoint(), NOW, NOW
    made = []
    for wait in (*SCHEDULE_SECONDS[1:], 0.0):
        now = max(due, endpoint.probe_at or 0.0)
        assert 0 <= now - due <= PROBE_MOST_SECONDS
        made.append(now)
        endpoint = after(endpoint, [DOWN], now)
        due = now + wait
    assert len(made) == 12
    for (a, b), wait in zip(pairwise(made), SCHEDULE_SECONDS[1:], strict=True):
        assert b - a == wait, "here the schedule is always longer than the probe's wait"
    assert endpoint.state is EndpointState.FAILING


def test_five_days_and_twenty_attempts_without_a_success_disable() -> None:
    often = down_for(*range(0, 100, 5))
    assert (often.failures, often.state) == (20, EndpointState.FAILING)
    assert after(often, [DOWN], NOW + 5 * DAY - 1).state is EndpointState.FAILING
    given_up = after(often, [DOWN], NOW + 5 * DAY)
    assert given_up.state is EndpointState.DISABLED
    assert given_up.reason == "no success in 5 days"
    assert (given_up.opened_at, given_up.probe_at) == (None, None)
    seldom = down_for(*(n * DAY / 2 for n in range(19)))
    assert (seldom.failures, seldom.state) == (19, EndpointState.FAILING)


def test_a_delivery_is_parked_only_while_the_breaker_is_open() -> None:
    closed = down_for(0, 1)
    assert parked_seconds(closed, first_due_at=0.0, now=NOW + DAY) == 0.0
    parked = down_for(0, 1, 2, 3, 60)
    assert parked_seconds(parked, first_due_at=0.0, now=NOW + DAY) == DAY
    assert parked_seconds(parked, first_due_at=NOW + 10, now=NOW + DAY) == DAY - 10
    assert parked_seconds(parked, first_due_at=NOW + DAY, now=NOW) == 0.0


# --- what is said aloud --------------------------------------------------------------------------


def change(before: Endpoint, outcome: Outcome, at: float) -> Change:
    return Change(before, after(before, [outcome], at), at)


def test_it_is_said_once_after_an_hour_a_day_and_three_days() -> None:
    endpoint, said = down_for(0), []
    for minutes in range(15, 80 * 60, 15):
        step = change(endpoint, DOWN, NOW + minutes * 60)
        if step.warned_seconds is not None:
            said.append((minutes * 60.0, step.warned_seconds))
        endpoint = step.after
    assert said == [(seconds, seconds) for seconds in WARN_SECONDS]


def test_after_a_recovery_it_may_be_said_again() -> None:
    endpoint = down_for(0, 3600)
    assert endpoint.warnings == 1
    assert after(endpoint, [OK], NOW + 3700).warnings == 0


def test_a_short_trouble_is_no_outage_and_its_end_no_recovery() -> None:
    assert not change(down_for(0, 1), OK, NOW + 59).recovered
    assert change(down_for(0, 1), OK, NOW + 60).recovered
    assert not change(an_endpoint(), OK, NOW).recovered
    assert not change(down_for(0, 60), DOWN, NOW + 61).recovered


def test_what_disables_and_what_opens_is_told_once() -> None:
    gone = change(down_for(0), GONE, NOW)
    assert gone.disabled
    assert not change(gone.after, GONE, NOW).disabled
    opened = change(down_for(0, 1, 2, 3), DOWN, NOW + 60)
    assert opened.opened
    assert not change(opened.after, DOWN, NOW + 61).opened


# --- whatever is heard ---------------------------------------------------------------------------

outcomes = st.builds(
    Outcome,
    status=st.one_of(st.none(), st.sampled_from([200, 410, 429, 500, 503]), st.integers(100, 999)),
    fault=st.one_of(st.none(), st.sampled_from(Fault)),
    retry_after_seconds=st.one_of(st.none(), st.floats(min_value=0)),
)
steps = st.tuples(st.lists(outcomes, max_size=5), st.floats(-7200, 3 * DAY))


@given(walk=st.lists(steps, max_size=20))
def test_an_endpoints_state_and_its_figures_always_agree(
    walk: list[tuple[list[Outcome], float]],
) -> None:
    endpoint, now = an_endpoint(), NOW
    for heard, seconds in walk:
        now += seconds
        before, endpoint = endpoint, after(endpoint, heard, now)
        state = endpoint.state
        if len(heard) == 1 and state is not before.state:
            assert state in ENDPOINT_MOVES[before.state]
        assert (endpoint.opened_at is None) == (endpoint.probe_at is None)
        assert endpoint.opened_at is None or state is EndpointState.FAILING
        assert (endpoint.reason is not None) == (state is EndpointState.DISABLED)
        assert (endpoint.failing_since is None) == (endpoint.failures == 0)
        if state is EndpointState.ACTIVE:
            assert (endpoint.failures, endpoint.warnings) == (0, 0)
        if heard and endpoint.probe_at is not None:
            assert endpoint.probe_at <= now + PROBE_MOST_SECONDS or endpoint == before
        assert endpoint.paused_until is None or (
            endpoint.paused_until <= max(now, NOW + 20 * 3 * DAY) + RETRY_AFTER_MAX_SECONDS
        )


def test_every_state_has_its_moves() -> None:
    assert set(ENDPOINT_MOVES) == set(EndpointState)
