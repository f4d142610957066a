"""Ids by the real mint: in the order in which they are made, whatever the clock does."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.ids import ALPHABET, Minter, id_after, new_id, time_of
from batchbell.parts import mint

HOUR = 3600.0


def test_the_real_mint_and_the_real_clock_make_ids_in_order() -> None:
    made = [mint("evt") for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {len(id) for id in made} == {len(new_id("evt", now=0.0, rand=bytes(10)))}
    assert abs(time_of(made[-1]) - time.time()) < 60


@given(ms=st.integers(0, 2**45 - 1), rand=st.binary(min_size=10, max_size=10))
def test_an_id_is_its_time_and_its_random_bits_in_32_digits(ms: int, rand: bytes) -> None:
    digits = new_id("evt", now=ms / 1000, rand=rand).removeprefix("evt_")
    value = 0
    for digit in digits:
        value = value * 32 + ALPHABET.index(digit)
    assert (len(digits), value & (1 << 80) - 1) == (25, int.from_bytes(rand, "big"))
    assert abs((value >> 80) - ms) <= 1


def test_several_threads_never_make_the_same() -> None:
    with ThreadPoolExecutor(8) as threads:
        parts = list(threads.map(lambda _: [mint("x") for _ in range(500)], range(8)))
    assert len({id for part in parts for id in part}) == 4000
    assert all(part == sorted(part) for part in parts)


@pytest.mark.parametrize(
    "clock", [[0.0], [0.0, -HOUR], [0.0, HOUR, -HOUR, 0.001], [0.0, 0.0005, 0.001, 0.0009]]
)
def test_a_clock_that_stands_or_goes_back_changes_no_order(clock: list[float]) -> None:
    now = [1_790_000_000.0]
    minter = Minter(clock=lambda: now[0], randomness=os.urandom)
    made = []
    for step in clock:
        now[0] += step
        made += [minter("dlv") for _ in range(2000)]
    assert made == sorted(set(made))


def test_the_worst_randomness_still_makes_ids_in_order() -> None:
    for byte in (b"\x00", b"\xff"):
        minter = Minter(clock=lambda: 1_790_000_000.0, randomness=lambda n, b=byte: b * n)
        made = [minter("dlv") for _ in range(100_000)]
        assert made == sorted(set(made))


def test_an_id_after_another_sorts_behind_it_and_is_as_hard_to_guess() -> None:
    ahead = new_id("dlv", now=2e9, rand=b"\xff" * 10)
    after = {id_after(ahead, mint("dlv")) for _ in range(1000)}
    assert len(after) == 1000
    assert min(after) > ahead
