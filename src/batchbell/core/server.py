"""How a server may be named."""

from __future__ import annotations

import re

HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}(?:/\S*)?")


def server_url(text: str) -> str:
    """The URL, without a slash at its end. `host:port` is taken for `http://host:port`."""
    url = text.strip().rstrip("/")
    return f"http://{url}" if HOST_AND_PORT.fullmatch(url) else url
