"""Which headers go on with a call that is passed on, and which come back with its answer."""

from __future__ import annotations

from collections.abc import Iterable

Header = tuple[bytes, bytes]
"""A name in lower case, and a value, as ASGI has them."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""They are about one connection, not about the call (RFC 9110, 7.6.1)."""
OURS_ALONE = frozenset(
    {
        b"api-key",
        b"authorization",
        b"cookie",
        b"expect",
        b"forwarded",
        b"host",
        b"origin",
        b"referer",
        b"via",
        b"x-api-key",
        b"x-goog-api-key",
        b"x-real-ip",
    }
)
"""They are between the caller and us: credentials, and where the caller is."""
BACK = frozenset(
    {
        b"accept-ranges",
        b"allow",
        b"apim-request-id",
        b"cf-ray",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-length",
        b"content-range",
        b"content-type",
        b"deprecation",
        b"etag",
        b"last-modified",
        b"request-id",
        b"retry-after",
        b"retry-after-ms",
        b"sunset",
        b"vary",
        b"warning",
        b"x-request-id",
        b"x-should-retry",
    }
)
"""What of a provider's answer is about the call, beside its own headers. All else would be taken
for ours: cookies, CORS, `Refresh`, `Link`, and orders to browsers and to the proxy before us."""
HARMLESS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox"),
    (b"cache-control", b"no-store"),
)
"""A provider's page must not run as one of ours, and no cache may show one caller's to another."""
DISPOSITION = b"content-disposition"
FOR_ANYBODY = frozenset({b"accept", b"accept-encoding", b"if-range", b"range", b"user-agent"})
"""They tell nothing of whose call it is."""


def onward(headers: Iterable[Header]) -> list[Header]:
    """The headers of a caller that are for the provider."""
    return [
        (name, value)
        for name, value in _end_to_end(headers)
        if name not in OURS_ALONE and not name.startswith((b"bb-", b"x-forwarded-"))
    ]


def without_credentials(headers: Iterable[Header]) -> list[Header]:
    """The headers of a call that may go to another host than the API's."""
    return [(name, value) for name, value in headers if name.lower() in FOR_ANYBODY]


def backward(headers: Iterable[Header], prefixes: tuple[bytes, ...] = ()) -> list[Header]:
    """The headers of a provider that are for the caller; its own begin with one of `prefixes`."""
    return [
        (name, value)
        for name, value in _end_to_end(headers)
        if name in BACK or name.startswith(prefixes)
    ]


def harmless(headers: Iterable[Header], *, is_file: bool) -> list[Header]:
    """An answer's headers, so that no browser shows it as a page of ours.

    JSON cannot be one. All else is to be saved, as is a file.
    """
    sent = list(headers)
    kinds = [value.strip().lower() for name, value in sent if name == b"content-type"]
    is_json = len(kinds) == 1 and kinds[0].partition(b";")[0].strip().endswith((b"/json", b"+json"))
    if is_json and not is_file:
        return [*sent, *HARMLESS]
    own = [value for name, value in sent if name == DISPOSITION]
    is_safe = len(own) == 1 and own[0].lower().startswith(b"attachment")
    kept = [header for header in sent if header[0] != DISPOSITION]
    return [*kept, (DISPOSITION, own[0] if is_safe else b"attachment"), *HARMLESS]


def _end_to_end(headers: Iterable[Header]) -> list[Header]:
    known = [(name.lower(), value) for name, value in headers]
    named = {
        word.strip().lower()
        for name, value in known
        if name == b"connection"
        for word in value.split(b",")
    }
    return [(name, value) for name, value in known if name not in HOP_BY_HOP | named]
