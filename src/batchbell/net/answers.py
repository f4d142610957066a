"""What is kept of a receiver's answer: a little, cleaned, and none of its secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from weakref import WeakSet

from aiohttp import ClientConnectionError, ClientResponse
from aiohttp.connector import Connection

from batchbell.core.sent import MASK

BODY_MAX_BYTES = 16 * 1024
HEADERS_MAX = 32
HEADER_MAX_CHARACTERS = 500
LOCATION_MAX_CHARACTERS = 200
CREDENTIALS = re.compile(r"(bearer|basic|digest) |v1,|whsec_", re.IGNORECASE | re.ASCII)
"""How values begin that may be somebody's: an echo of what was sent, say."""

SECRET_HEADERS = frozenset({"set-cookie", "set-cookie2", "cookie", "www-authenticate"})
SECRET_PARTS = (
    "auth",
    "token",
    "secret",
    "signature",
    "api-key",
    "apikey",
    "password",
    "session",
    "credential",
)
REPLACEMENT = "\ufffd"


class StaleConnection(ClientConnectionError):
    """A kept connection turned out to be closed: the other side had not said so in time."""


class Answer(ClientResponse):
    """A response that remembers whom it came from: aiohttp forgets once the body has ended."""

    remote_address: str | None = None

    async def start(self, connection: Connection) -> Answer:
        """As aiohttp's, but a closed connection that had served before is a StaleConnection."""
        protocol, transport = connection.protocol, connection.transport
        peer = transport.get_extra_info("peername") if transport is not None else None
        self.remote_address = peer[0] if peer else None
        try:
            await super().start(connection)
        except ClientConnectionError as error:
            if protocol in _SERVED:
                raise StaleConnection from error
            raise
        _SERVED.add(protocol)
        return self


_SERVED: WeakSet[object] = WeakSet()
"""Connections that have brought an answer before."""


async def read_some(answer: ClientResponse, chunks: list[bytes]) -> bool:
    """Read the body into `chunks` up to the cap; whether that was all of it."""
    room = BODY_MAX_BYTES
    content = answer.content
    while room > 0:
        chunk = await content.readany()
        if not chunk:
            return True
        chunks.append(chunk[:room])
        room -= len(chunk)
    return False


def body_text(answer: ClientResponse, chunks: Iterable[bytes]) -> str:
    """The body as text that any database takes. A compressed body is not unpacked: a bomb."""
    body = b"".join(chunks)
    encoding = answer.headers.get("Content-Encoding")
    if body and encoding not in (None, "", "identity"):
        return f"[{len(body)} bytes of {clean(encoding, 40)}, not unpacked]"
    return body.decode("utf-8", "replace").replace("\x00", REPLACEMENT)


def shown_headers(answer: ClientResponse) -> dict[str, str]:
    """The first headers, names in lower case, without what looks like a secret."""
    shown: dict[str, str] = {}
    for name, value in answer.headers.items():
        if len(shown) == HEADERS_MAX:
            break
        key, secret = _header_name(name)
        shown[key] = (
            MASK if secret or CREDENTIALS.match(value) else clean(value, HEADER_MAX_CHARACTERS)
        )
    return shown


@lru_cache(maxsize=1024)
def _header_name(name: str) -> tuple[str, bool]:
    key = clean(name.lower(), 100)
    return key, key in SECRET_HEADERS or any(part in key for part in SECRET_PARTS)


def location(answer: ClientResponse) -> str | None:
    """Where a redirect points, for people to read; never followed."""
    value = answer.headers.get("Location")
    return clean(value, LOCATION_MAX_CHARACTERS) if value else None


def clean(text: str, limit: int) -> str:
    """Printable text of at most `limit` characters."""
    text = text[:limit]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else REPLACEMENT for c in text)
