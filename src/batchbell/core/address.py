"""Whether a URL is another one than before, where secrets are sent.

Credentials are written once and shown to nobody. Whoever may change where they go could read them
by sending them to a server of their own, so credentials stay with their address: another address
needs them anew. The path counts too, since many hosts give each of their users a path.
"""

from __future__ import annotations

from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}


def is_another(before: str, after: str) -> bool:
    """Whether the two lead to different places, as far as their text tells."""
    return _place(before) != _place(after)


def _place(url: str) -> tuple[object, ...]:
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return (url,)
    host = (parts.hostname or "").rstrip(".")
    return parts.scheme, host, port, parts.path.rstrip("/"), parts.query
