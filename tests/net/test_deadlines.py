"""Deadlines on a loop whose time a test moves: who is late is told, once, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from batchbell.net.deadlines import Deadlines


class Handle:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call, self.cancelled = at, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Time:
    """What of a loop is asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.handles: list[Handle] = []
        self.made = 0

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[..., None], *args: Any) -> Handle:
        self.made += 1
        self.handles.append(Handle(self.now + seconds, lambda: call(*args)))
        return self.handles[-1]

    def pass_to(self, now: float) -> None:
        while due := [one for one in self.handles if one.at <= now and not one.cancelled]:
            first = min(due, key=lambda one: one.at)
            self.handles.remove(first)
            self.now = max(self.now, first.at)
            first.call()
        self.now = now


class One:
    def __init__(self, deadlines: Deadlines[One], time: Time, seconds: float) -> None:
        self.at, self.time, self.late_at = time.now + seconds, time, list[float]()
        deadlines.begin(self, seconds)

    def late(self) -> None:
        self.late_at.append(self.time.now)


def on(time: Time) -> Deadlines[One]:
    return Deadlines(cast("asyncio.AbstractEventLoop", time))


def test_many_of_one_length_share_a_timer_and_are_late_one_by_one() -> None:
    time = Time()
    deadlines = on(time)
    ones = []
    for _ in range(5):
        ones.append(One(deadlines, time, 10.0))
        time.pass_to(time.now + 1.0)
    assert time.made == 1
    time.pass_to(12.0)
    assert [one.late_at for one in ones] == [[10.0], [11.0], [12.0], [], []]
    assert list(deadlines) == ones[3:]


def test_what_has_ended_is_never_late_and_leaves_nothing_behind() -> None:
    time = Time()
    deadlines = on(time)
    one = One(deadlines, time, 5.0)
    for _ in range(2):
        deadlines.end(one, 5.0)
    time.pass_to(6.0)
    assert one.late_at == []
    assert time.handles == []


def test_nobody_is_late_after_the_close() -> None:
    time = Time()
    deadlines = on(time)
    one = One(deadlines, time, 5.0)
    deadlines.close()
    time.pass_to(9.0)
    assert one.late_at == []
    assert list(deadlines) == []


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 3.0), st.sampled_from([1.0, 2.5, 7.0]), st.none() | st.floats(0.0, 9.0)
        ),
        max_size=30,
    )
)
def test_whoever_does_not_end_in_time_is_late_at_that_time(
    calls: list[tuple[float, float, float | None]],
) -> None:
    time = Time()
    deadlines = on(time)
    made: list[tuple[One, float | None]] = []
    ends: list[tuple[float, One, float]] = []
    for pause, seconds, lasts in calls:
        for at, one, length in sorted(ends, key=lambda end: end[0]):
            if at <= time.now + pause:
                time.pass_to(max(time.now, at))
                deadlines.end(one, length)
                ends.remove((at, one, length))
        time.pass_to(time.now + pause)
        one = One(deadlines, time, seconds)
        ended = lasts is not None and lasts < seconds
        made.append((one, None if ended else one.at))
        if ended and lasts is not None:
            ends.append((time.now + lasts, one, seconds))
    for at, one, length in sorted(ends, key=lambda end: end[0]):
        time.pass_to(max(time.now, at))
        deadlines.end(one, length)
    time.pass_to(time.now + 100.0)
    for one, late_at in made:
        assert one.late_at == ([] if late_at is None else [late_at])
    assert time.handles == []
