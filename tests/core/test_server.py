"""What a server may be named by."""

from __future__ import annotations

import pytest

from batchbell.core.server import server_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:3000", "http://localhost:3000"),
        ("127.0.0.1:3000/", "http://127.0.0.1:3000"),
        ("[::1]:3000", "http://[::1]:3000"),
        ("bell.example.com:8080/base/", "http://bell.example.com:8080/base"),
        (" localhost:80 ", "http://localhost:80"),
        ("https://bell.example.com/", "https://bell.example.com"),
        ("http:3000", "http://http:3000"),
        ("nonsense", "nonsense"),
        ("ftp://host", "ftp://host"),
        ("localhost:port", "localhost:port"),
        ("mailto:a@b", "mailto:a@b"),
        ("user:123@host", "user:123@host"),
        ("::1", "::1"),
    ],
)
def test_a_host_with_a_port_is_taken_for_http(text: str, url: str) -> None:
    assert server_url(text) == url
