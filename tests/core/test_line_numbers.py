"""Lines of parts, as lines of the user's file."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.line_numbers import RUNS_MAX, LineNumbers, Runs, number_at


def runs_of(numbers: Iterable[int | None]) -> Runs:
    made = LineNumbers()
    for number in numbers:
        made.add(number)
    return made.runs


@given(st.lists(st.integers(1, 500), unique=True).map(sorted))
def test_each_line_is_found_again(numbers: list[int]) -> None:
    runs = runs_of(numbers)
    assert [number_at(runs, line) for line in range(1, len(numbers) + 1)] == numbers
    assert number_at(runs, 0) is None


@pytest.mark.parametrize(
    ("numbers", "runs"),
    [
        ([], ()),
        ([3], ((1, 3, 0),)),
        (range(7, 100_000), ((1, 7, 1),)),
        (range(1, 100_000, 2), ((1, 1, 2),)),
        ([1, 2, 3, 9, 10, 20], ((1, 1, 1), (4, 9, 1), (6, 20, 0))),
        ([None, None], ((1, 0, 0),)),
        ([None, 4, 5, None], ((1, 0, 0), (2, 4, 1), (4, 0, 0))),
    ],
)
def test_lines_in_even_steps_are_one_run(numbers: Iterable[int | None], runs: Runs) -> None:
    assert runs_of(numbers) == runs


def test_what_comes_after_too_many_runs_is_not_known() -> None:
    scattered = [n * n for n in range(1, 3 * RUNS_MAX)]
    runs = runs_of(scattered)
    assert len(runs) == RUNS_MAX + 1
    found = [number_at(runs, line) for line in range(1, len(scattered) + 1)]
    assert found == scattered[: 2 * RUNS_MAX] + [None] * (RUNS_MAX - 1)
    assert runs_of(found) == runs, "also where such lines are split or tried again"
