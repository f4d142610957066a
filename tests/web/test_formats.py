"""How values are written on a page, and cookies beside it."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.responses import Response

from batchbell.web.dashboard import formats
from batchbell.web.dashboard.page import set_cookie


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (None, formats.DASH), (0.0, "0 ms"), (0.2504, "250 ms"), (0.9999, "1.0 s"), (4.26, "4.3 s"),
        (42.0, "42 s"), (60.0, "1 min"), (192.0, "3 min 12 s"), (7260.0, "2 h 1 min"),
        (90_000.0, "1 d 1 h"), (-3.0, "0 ms"),
    ],
)  # fmt: skip
def test_a_duration_has_two_units_at_most(seconds: float | None, says: str) -> None:
    assert formats.duration(seconds) == says


@pytest.mark.parametrize(
    ("bytes_", "says"),
    [
        (None, formats.DASH),
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 KB"),
        (185_000, "185 KB"),
        (2e13, "20.0 TB"),
    ],
)
def test_a_size_has_few_digits(bytes_: float | None, says: str) -> None:
    assert formats.size(bytes_) == says


@pytest.mark.parametrize(
    ("away", "says"),
    [
        (0, "just now"), (-4, "just now"), (42, "42 s ago"), (-42, "in 42 s"), (150, "2 min ago"),
        (7200, "2 h ago"), (172_800, "2 days ago"),
    ],
)  # fmt: skip
def test_a_moment_is_seen_from_now(away: float, says: str) -> None:
    assert formats.apart(1000.0, 1000.0 + away) == says


@pytest.mark.parametrize(
    ("part", "whole", "percent"), [(1, 3, 33.3), (5, 3, 100.0), (-1, 3, 0.0), (1, 0, 0.0)]
)
def test_a_part_is_never_more_than_the_whole(part: float, whole: float, percent: float) -> None:
    assert formats.percent(part, whole) == percent


def test_text_that_is_json_is_laid_out() -> None:
    assert formats.pretty('{"a":1}') == '{\n  "a": 1\n}'
    assert formats.pretty("<html>") == "<html>"


def test_the_cookie_is_secure_under_https() -> None:
    scope = {
        "type": "http", "scheme": "https", "path": "/", "headers": [], "server": ("x", 443),
    }  # fmt: skip
    response = Response()
    set_cookie(Request(scope), response, "name", "value", 60)
    assert "secure" in response.headers["set-cookie"].lower()
