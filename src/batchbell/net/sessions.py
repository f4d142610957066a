"""aiohttp sessions for calls to providers: no cookies, and nothing from the environment."""

from __future__ import annotations

from typing import Any, TypedDict

import aiohttp

from batchbell.net.dialer import NAMES_KEPT_SECONDS, vetted_sockets
from batchbell.net.faults import CONNECT_TIMEOUT_SECONDS
from batchbell.net.guard import AddressRules
from batchbell.net.names import SystemNames, VettedNames
from batchbell.net.pool import KEEPALIVE_SECONDS
from batchbell.net.proxy import Proxy


class HeadLimits(TypedDict):
    """The arguments of an aiohttp session that bound the head of an answer."""

    max_line_size: int
    max_field_size: int
    max_headers: int


HEAD_LIMITS = HeadLimits(max_line_size=128 * 2**10, max_field_size=128 * 2**10, max_headers=1000)
"""aiohttp's own limits (8,190 bytes, 128 headers) are below what some hosts send: content security
policies, cookies, a header for each rate limit.
"""


CONNECT_ONLY = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS)
"""For calls whose time is watched by whoever makes them."""


def provider_session(
    rules: AddressRules | None = None, *, proxy: Proxy | None = None, limit: int = 100, **how: Any
) -> aiohttp.ClientSession:
    """A session that several clients may share. Needs a running loop.

    With `rules` it connects to addresses only that they allow. Behind a proxy no address is seen:
    whoever calls has asked the rules about the URL. `how` goes to aiohttp.
    """
    connector: dict[str, Any] = {"keepalive_timeout": KEEPALIVE_SECONDS, "limit": limit}
    if rules is not None and proxy is None:
        connector |= {
            "resolver": VettedNames(rules, SystemNames()),
            "socket_factory": vetted_sockets(rules),
            "ttl_dns_cache": int(NAMES_KEPT_SECONDS),
        }
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(**connector),
        timeout=CONNECT_ONLY,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        proxy=proxy.url if proxy else None,
        **HEAD_LIMITS,
        **how,
    )
