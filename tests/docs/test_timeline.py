"""The timeline of an outage, in the picture and in the table, is the schedule."""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path

from batchbell.core.backoff import SCHEDULE_SECONDS

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "when-you-are-down.md"
TIMELINE = re.compile(r"^```mermaid\ntimeline\n(.*?)^```$", re.DOTALL | re.MULTILINE)
POINT = re.compile(r"^ +([^:\n]+) : attempt (\d+)$", re.MULTILINE)
ROW = re.compile(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
UNITS = {"s": 1, "min": 60, "h": 3600}


def seconds(text: str) -> float:
    """`2 h 42 min` in seconds."""
    if text == "at once":
        return 0.0
    words = text.split()
    return sum(
        float(number) * UNITS[unit] for number, unit in zip(words[::2], words[1::2], strict=True)
    )


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


SINCE_THE_FIRST = dict(enumerate(accumulate(SCHEDULE_SECONDS), start=1))


def test_the_picture_shows_each_attempt_at_its_time() -> None:
    (picture,) = TIMELINE.findall(page())
    points = {int(number): seconds(when) for when, number in POINT.findall(picture)}
    assert points == SINCE_THE_FIRST


def test_the_table_says_each_wait_and_the_sum_of_them() -> None:
    rows = [(int(n), seconds(wait), seconds(since)) for n, wait, since in ROW.findall(page())]
    waits = enumerate(SCHEDULE_SECONDS, start=1)
    assert rows == [(n, wait, SINCE_THE_FIRST[n]) for n, wait in waits]


def test_the_text_says_how_long_it_takes_in_all() -> None:
    assert f"over {sum(SCHEDULE_SECONDS) / 3600:.1f} hours" in page()
