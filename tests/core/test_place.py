"""Which results places count, and when they are apart."""

from __future__ import annotations

import pytest

from batchbell.core.place import SEEN_SECONDS, Place, apart, former, in_use

NOW = 1_790_000_000.0


def a_place(marker: str, *, age: float) -> Place:
    return Place(marker=marker, name=f"/{marker}", host="h", seen_at=NOW - age)


@pytest.mark.parametrize(
    ("ages", "used", "left"),
    [
        ({}, "", ""),
        ({"a": 0}, "a", ""),
        ({"a": 0, "b": 60}, "ab", ""),
        ({"a": 0, "b": SEEN_SECONDS}, "ab", ""),
        ({"a": 0, "b": SEEN_SECONDS + 1}, "a", "b"),
        ({"a": -SEEN_SECONDS, "b": 0}, "ab", ""),  # somebody's clock is ahead
        ({"a": 0, "b": -86400}, "a", "b"),  # the clock was set back
        ({"a": 0, "b": 1001}, "a", ""),  # its results are over
        ({"a": 900, "b": 901}, "", "ab"),
    ],
)
def test_places_in_use_and_former_ones(ages: dict[str, float], used: str, left: str) -> None:
    known = [a_place(marker, age=age) for marker, age in ages.items()]
    assert "".join(place.marker for place in in_use(known, now=NOW)) == used
    found = former(known, now=NOW, keep_seconds=1000.0)
    assert "".join(place.marker for place in found) == left
    assert (apart(known, now=NOW) is not None) == (len(used) > 1)
