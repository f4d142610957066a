"""Following events: what came, what is new, and from where to look again."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.ids import EVENT_ID, first_id, time_of
from batchbell.core.model import new_id
from batchbell.core.stream import KEPT_BEFORE_PRUNING, OVERLAP_SECONDS, Window

from .making import NOW

times = st.floats(min_value=0, max_value=30_000_000_000)
chance = st.binary(min_size=10, max_size=10)


@given(at=times, rand=chance)
def test_an_id_tells_when_it_was_made_and_none_of_then_sorts_before_the_first(
    at: float, rand: bytes
) -> None:
    id = new_id("evt", now=at, rand=rand)
    assert time_of(id) == int(at * 1000) / 1000
    assert first_id("evt", at=at) <= id


def test_the_pattern_of_ids_fits_those_that_are_made() -> None:
    assert re.fullmatch(EVENT_ID, new_id("evt", now=NOW, rand=b"0123456789"))
    assert not re.fullmatch(EVENT_ID, new_id("dlv", now=NOW, rand=b"0123456789"))


def an_id(at: float, number: int = 1) -> str:
    return new_id("evt", now=at, rand=number.to_bytes(10, "big"))


def test_what_came_is_known_and_an_older_one_does_not_move_the_end() -> None:
    window = Window(an_id(NOW))
    late = an_id(NOW - 5)
    assert not window.is_new(an_id(NOW))
    assert window.is_new(late)
    window.add(late)
    assert not window.is_new(late)
    assert window.newest == an_id(NOW)


def test_the_window_ends_at_the_newest_id_unless_that_is_from_the_future() -> None:
    window = Window(an_id(NOW))
    assert time_of(window.start()) == pytest.approx(NOW - OVERLAP_SECONDS)
    assert time_of(window.start(now=NOW + 60)) == pytest.approx(NOW - OVERLAP_SECONDS)
    assert time_of(window.start(now=NOW - 60)) == pytest.approx(NOW - 60 - OVERLAP_SECONDS)


def test_the_beginning_of_time_has_a_window_too() -> None:
    assert Window(first_id("evt", at=0)).start() == first_id("evt", at=0)


def test_ids_are_forgotten_once_they_are_out_of_the_window_and_not_before() -> None:
    window = Window(an_id(NOW))
    for n in range(KEPT_BEFORE_PRUNING - 2):
        window.add(an_id(NOW, n))
    at = NOW + OVERLAP_SECONDS
    window.add(an_id(at), now=at)
    assert not window.is_new(an_id(NOW, 7)), "still in the window"
    for n in range(2 * KEPT_BEFORE_PRUNING):
        window.add(an_id(at + 1, n), now=at + 1)
    assert window.is_new(an_id(NOW, 7)), "what is never asked for again need not be kept"
    assert not window.is_new(an_id(at + 1, 7))
