"""How many tokens may be enqueued: guessed, learnt, forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.governor import (
    BYTES_PER_TOKEN,
    CAP_SECONDS,
    MEMORY_TOKENS,
    Learnt,
    estimate,
    has_room,
    passed,
    refused,
    split_at,
    stated_limit,
    used,
)

NOW = 1_790_000_000.0
sizes = st.integers(0, 10**9)


def test_the_first_guess_is_four_bytes_a_token() -> None:
    assert estimate(Learnt(), 4_000) == 1_000
    assert BYTES_PER_TOKEN == 4.0


def test_what_batches_really_used_corrects_the_guess() -> None:
    known = used(Learnt(), size=2_000_000, tokens=1_000_000)
    assert known.bytes_per_token == pytest.approx(2.0, rel=0.01)
    assert estimate(known, 2_000) == pytest.approx(1_000, rel=0.01)


def test_a_tiny_batch_does_not_turn_the_guess_over() -> None:
    assert used(Learnt(), size=10, tokens=1).bytes_per_token == pytest.approx(4.0, rel=0.01)


def test_what_was_seen_long_ago_counts_less() -> None:
    known = Learnt()
    for _ in range(50):
        known = used(known, size=4 * 10**6, tokens=10**6)
    for _ in range(50):
        known = used(known, size=2 * 10**6, tokens=10**6)
    assert known.bytes_per_token == pytest.approx(2.0, rel=0.05)
    assert known.tokens <= MEMORY_TOKENS


@given(st.lists(st.tuples(sizes, sizes), max_size=20), sizes)
def test_an_estimate_is_never_negative_and_grows_with_the_size(
    seen: list[tuple[int, int]], size: int
) -> None:
    known = Learnt()
    for bytes_, tokens in seen:
        known = used(known, size=bytes_, tokens=tokens)
    assert 0 <= estimate(known, size) <= estimate(known, size + 1)


@pytest.mark.parametrize(
    ("cap", "enqueued", "tokens", "room"),
    [
        (None, 10**9, 10**9, True),
        (100, 60, 40, True),
        (100, 60, 41, False),
        (100, 0, 500, True),
    ],
)
def test_room(cap: int | None, enqueued: int, tokens: int, room: bool) -> None:
    known = Learnt(cap=cap, cap_at=NOW)
    assert has_room(known, enqueued=enqueued, tokens=tokens, now=NOW) is room


def test_a_cap_is_forgotten_after_a_day() -> None:
    """Accounts are moved to higher tiers, and nobody tells."""
    known = refused(Learnt(), enqueued=1_000, stated=None, now=NOW)
    assert known.cap_in_force(NOW) == 900
    assert not has_room(known, enqueued=800, tokens=200, now=NOW)
    assert has_room(known, enqueued=800, tokens=200, now=NOW + CAP_SECONDS)


def test_the_providers_own_word_counts_more_than_a_guess() -> None:
    known = refused(Learnt(), enqueued=1_000, stated=90_000, now=NOW)
    assert known.cap == 90_000


def test_refusals_lower_the_cap_and_what_passes_raises_it() -> None:
    known = Learnt()
    for enqueued in (1_000, 900, 5_000):
        before = known.cap_in_force(NOW) or 10**9
        known = refused(known, enqueued=enqueued, stated=None, now=NOW)
        assert known.cap is not None
        assert known.cap < before
    assert passed(known, enqueued=2_000).cap == 2_000
    assert passed(known, enqueued=1) == known


@pytest.mark.parametrize(
    ("stated", "tokens", "tries", "at"),
    [
        (True, 100, 0, None),
        (True, 101, 0, 61),
        (True, 1_000, 0, 100),
        (True, 60, 2, None),
        (True, 60, 3, 36),
        (True, 25, 9, None),
        (False, 1_000, 9, None),
    ],
)
def test_where_a_part_is_split(stated: bool, tokens: int, tries: int, at: int | None) -> None:
    known = Learnt(cap=100, cap_at=NOW, stated=stated)
    assert split_at(known, tokens=tokens, tries=tries, now=NOW) == at
    later = NOW + CAP_SECONDS
    assert split_at(known, tokens=tokens, tries=tries, now=later) is None


@given(st.integers(0, 10**12), st.none() | st.integers(0, 10**12))
def test_a_cap_always_lets_something_through(enqueued: int, stated: int | None) -> None:
    known = refused(Learnt(), enqueued=enqueued, stated=stated, now=NOW)
    assert known.cap is not None
    assert known.cap >= 1


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        (
            "Enqueued token limit reached for gpt-4o in organization org-x."
            " Limit: 90,000 enqueued tokens. Please try again once some in_progress batches have"
            " been completed.",
            90_000,
        ),
        ("limit 1_350_000 enqueued tokens", 1_350_000),
        ("Limit: many enqueued tokens", None),
        ("Limit: ,,, enqueued tokens", None),
        ("Limit: 5 requests", None),
        (None, None),
    ],
)
def test_the_limit_that_a_provider_names(message: str | None, limit: int | None) -> None:
    assert stated_limit(message) == limit


@given(st.text())
def test_no_message_breaks_the_reader(message: str) -> None:
    stated_limit(message)
    stated_limit(f"Limit: {message} enqueued tokens")
