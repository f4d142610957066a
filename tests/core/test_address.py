"""Credentials stay with their address."""

from __future__ import annotations

import pytest

from batchbell.core.address import is_another


@pytest.mark.parametrize(
    ("before", "after", "another"),
    [
        ("https://a.example/v1", "https://a.example/v1", False),
        ("https://a.example/v1", "https://a.example/v1/", False),
        ("https://a.example/v1", "HTTPS://A.Example.:443/v1", False),
        ("https://a.example/v1", "https://b.example/v1", True),
        ("https://a.example/v1", "https://a.example.evil.example/v1", True),
        ("https://a.example/v1", "http://a.example/v1", True),
        ("https://a.example/v1", "https://a.example:8443/v1", True),
        ("https://a.example/mine", "https://a.example/theirs", True),
        ("https://a.example/?u=mine", "https://a.example/?u=theirs", True),
        ("https://[::1", "https://[::1", False),
        ("https://a.example/", "https://a.example:x/", True),
    ],
)
def test_another_place_is_another_address(before: str, after: str, another: bool) -> None:
    assert is_another(before, after) is another
    assert is_another(after, before) is another
