"""What an attempt makes of its delivery."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.backoff import (
    JITTER_MAX_SECONDS,
    RETRY_AFTER_MAX_SECONDS,
    SCHEDULE_SECONDS,
)
from batchbell.core.lifecycle import (
    DELIVERY_MOVES,
    PAUSE_MOST_SECONDS,
    advice,
    pause_seconds,
    settle,
)
from batchbell.core.model import DeliveryState, Fault, Outcome

from .making import NOW

PENDING = DeliveryState.PENDING
NEEDS_YOU = [Fault.TLS, Fault.DNS, Fault.REFUSED, Fault.DAMAGED]
PASSES = [fault for fault in Fault if fault not in NEEDS_YOU]


def settled(outcome: Outcome, *, attempt: int = 1, rand: float = 0.0) -> Any:
    return settle(outcome, attempt=attempt, now=NOW, rand=rand)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize("attempt", [1, 7, 12, 13])
def test_any_2xx_is_delivered_whenever_it_comes(status: int, attempt: int) -> None:
    result = settled(Outcome(status=status), attempt=attempt)
    assert (result.state, result.due_at, result.needs_you) == (DeliveryState.DELIVERED, None, None)


@pytest.mark.parametrize("status", [101, 199, 300, 400, 404, 429, 500, 502, 503, 504, 599, 999])
@pytest.mark.parametrize("attempt", range(1, len(SCHEDULE_SECONDS)))
def test_every_other_answer_is_tried_again_on_schedule(status: int, attempt: int) -> None:
    result = settled(Outcome(status=status), attempt=attempt)
    assert result.state is PENDING
    assert result.due_at == NOW + SCHEDULE_SECONDS[attempt]


@pytest.mark.parametrize("fault", list(Fault))
def test_every_fault_is_tried_again_on_schedule(fault: Fault) -> None:
    """Pitfall 25: DNS errors were never tried again. A refused address may be mended, too."""
    result = settled(Outcome(fault=fault))
    assert (result.state, result.due_at) == (PENDING, NOW + SCHEDULE_SECONDS[1])


@pytest.mark.parametrize("outcome", [Outcome(status=500), Outcome(fault=Fault.TIMEOUT), Outcome()])
def test_the_twelfth_failure_is_the_last(outcome: Outcome) -> None:
    """Pitfall 4: there was no limit to the retries."""
    assert settled(outcome, attempt=11).state is PENDING
    for attempt in (12, 13, 500):
        result = settled(outcome, attempt=attempt)
        assert (result.state, result.due_at) == (DeliveryState.EXHAUSTED, None)


@pytest.mark.parametrize("attempt", [1, 12])
def test_410_holds_the_delivery_and_says_so(attempt: int) -> None:
    """Pitfall 25: what a disabled endpoint misses must not vanish."""
    result = settled(Outcome(status=410), attempt=attempt)
    assert (result.state, result.due_at) == (DeliveryState.HELD, None)
    assert "410" in result.needs_you


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_that_says_where_to_point_the_url(status: int) -> None:
    """Pitfall 27: redirects without an explanation."""
    result = settled(Outcome(status=status, location="https://new.example/hook"))
    assert result.state is PENDING
    assert "set the URL to https://new.example/hook" in result.needs_you
    assert "not followed" in settled(Outcome(status=status)).needs_you


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422, 451])
def test_a_4xx_needs_you_after_the_first_attempt(status: int) -> None:
    assert str(status) in settled(Outcome(status=status)).needs_you


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_waiting_may_cure_needs_nobody(status: int) -> None:
    assert advice(Outcome(status=status)) is None


@pytest.mark.parametrize("fault", NEEDS_YOU)
def test_a_fault_of_address_certificate_or_secret_needs_you_in_plain_words(fault: Fault) -> None:
    """Pitfall 27: a blocked address without an explanation."""
    assert advice(Outcome(fault=fault, detail="10.0.0.8 is private")) == "10.0.0.8 is private"
    assert fault.value in (advice(Outcome(fault=fault)) or "")


@pytest.mark.parametrize("fault", PASSES)
def test_a_passing_fault_needs_nobody(fault: Fault) -> None:
    assert advice(Outcome(fault=fault, detail="no answer in 15 s")) is None


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked", "attempt", "waits"),
    [
        (2.0, 1, 5.0),
        (60.0, 1, 60.0),
        (60.0, 4, 600.0),
        (0.0, 1, 5.0),
        (7 * 86_400.0, 1, RETRY_AFTER_MAX_SECONDS),
        (float("inf"), 1, RETRY_AFTER_MAX_SECONDS),
        (None, 2, 30.0),
    ],
)
def test_429_and_503_wait_for_the_longer_of_schedule_and_retry_after(
    status: int, asked: float | None, attempt: int, waits: float
) -> None:
    """The wish of a receiver counts, up to a day."""
    result = settled(Outcome(status=status, retry_after_seconds=asked), attempt=attempt)
    assert result.due_at == NOW + waits


@pytest.mark.parametrize("status", [200, 400, 500, 502, 504, None])
def test_a_retry_after_on_any_other_answer_is_ignored(status: int | None) -> None:
    assert pause_seconds(Outcome(status=status, retry_after_seconds=60.0)) is None


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked", "scheduled", "pauses"),
    [
        (None, 5.0, 5.0),
        (60.0, 5.0, 60.0),
        (60.0, 120.0, 120.0),
        (None, 24 * 3600.0, PAUSE_MOST_SECONDS),
        (7 * 86_400.0, 5.0, RETRY_AFTER_MAX_SECONDS),
    ],
)
def test_the_whole_endpoint_waits_as_long_as_it_asks_or_the_delivery_does(
    status: int, asked: float | None, scheduled: float, pauses: float
) -> None:
    """But one delivery that was tried often does not keep new ones waiting for a day."""
    outcome = Outcome(status=status, retry_after_seconds=asked)
    assert pause_seconds(outcome, scheduled_seconds=scheduled) == pauses


def test_what_was_parked_for_the_whole_schedule_is_tried_once_more_and_that_was_it() -> None:
    whole = sum(SCHEDULE_SECONDS)
    down = Outcome(status=500)
    parked = settle(down, attempt=2, now=NOW, rand=0.0, parked_seconds=whole)
    assert parked.state is DeliveryState.EXHAUSTED
    still = settle(down, attempt=2, now=NOW, rand=0.0, parked_seconds=whole - 1)
    assert still.state is PENDING
    told = settle(Outcome(status=200), attempt=2, now=NOW, rand=0.0, parked_seconds=whole)
    assert told.state is DeliveryState.DELIVERED


outcomes = st.builds(
    Outcome,
    status=st.one_of(st.none(), st.integers(100, 999)),
    fault=st.one_of(st.none(), st.sampled_from(Fault)),
    detail=st.one_of(st.none(), st.text(max_size=5)),
    retry_after_seconds=st.one_of(st.none(), st.floats(min_value=0)),
)


@given(
    walk=st.lists(
        st.tuples(outcomes, st.booleans(), st.floats(0, 1, exclude_max=True)), max_size=60
    )
)
def test_no_sequence_of_outcomes_leaves_the_table(
    walk: list[tuple[Outcome, bool, float]],
) -> None:
    """Pitfall 4: and no life of a delivery has more attempts than the schedule."""
    state, attempt = PENDING, 0
    for outcome, resend, rand in walk:
        if state is not PENDING:
            if not resend:
                continue
            assert PENDING in DELIVERY_MOVES[state]
            state, attempt = PENDING, 0
        attempt += 1
        result = settle(outcome, attempt=attempt, now=NOW, rand=rand)
        assert result.state is PENDING or result.state in DELIVERY_MOVES[PENDING]
        assert (result.due_at is not None) == (result.state is PENDING)
        if result.due_at is not None:
            late = result.due_at - NOW
            assert late >= SCHEDULE_SECONDS[attempt]
            assert late <= RETRY_AFTER_MAX_SECONDS + JITTER_MAX_SECONDS
        state = result.state
    assert attempt <= len(SCHEDULE_SECONDS)


def test_only_a_resend_leads_back_to_pending() -> None:
    assert set(DELIVERY_MOVES) == set(DeliveryState)
    for state in set(DeliveryState) - {PENDING}:
        assert DELIVERY_MOVES[state] == {PENDING}
