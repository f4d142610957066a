"""A webhook destination: how it wants to be called, and how it has been doing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from batchbell.core import sent_headers, signing
from batchbell.core.outcome import Fault, Outcome

TIMEOUT_SECONDS = (5.0, 30.0)
"""The least and the most that an endpoint may ask for."""
SECRETS_MAX = 5
"""Secrets that may sign at once: receivers try each signature of a header."""
GRACE_MAX_SECONDS = 7 * 86_400.0

OUR_HEADERS = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
OUR_PREFIXES = ("webhook-", "proxy-")
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
HEADER_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?", re.ASCII)


class EndpointState(StrEnum):
    ACTIVE = "active"
    FAILING = "failing"
    DISABLED = "disabled"


class Endpoint(Struct, frozen=True, kw_only=True):
    """A webhook destination, and how it has been doing."""

    id: str
    project_id: str
    url: str
    secrets: tuple[str, ...]
    """What to sign with, the current secret first."""
    damage: str | None = None
    """Why it cannot be called: what is kept of its secrets or headers is damaged."""
    name: str | None = None
    """Only of managed ones: a URL that is watched has none."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Its own, sent beside ours."""
    timeout_seconds: float | None = None
    """Wall clock for one call; None is the default of the process."""
    schedule: tuple[float, ...] | None = None
    """Seconds to wait before each attempt, the first included; None is the default."""
    rate_limit: float | None = None
    """Calls a second at most, all processes together; None is no limit."""
    ordered: bool = False
    """One delivery at a time, in the order of their events: the next waits until one is done."""
    state: EndpointState = EndpointState.ACTIVE
    state_since: float | None = None
    """When the state became what it is; None where it never changed."""
    reason: str | None = None
    failures: int = 0
    """Failures since the last success."""
    failing_since: float | None = None
    paused_until: float | None = None
    """Nothing is sent before this time: the endpoint asked for it (429, 503)."""
    opened_at: float | None = None
    """Since when the breaker is open: all waits, but for one probe at a time."""
    probe_at: float | None = None
    """When the next probe may be sent. Set exactly while the breaker is open."""
    warnings: int = 0
    """How often it was said aloud that it fails (after 1 h, 24 h, 72 h)."""


def header_problem(name: str, value: str) -> str | None:
    """Why an endpoint may not have this header; None where it may.

    What it lets through cannot end a line, and so cannot begin a header of its own.
    """
    if not HEADER_NAME.fullmatch(name):
        return f"{name[:100]!r} is no name of a header."
    if name.lower() in OUR_HEADERS or name.lower().startswith(OUR_PREFIXES):
        return f"{name} is set by Batchbell."
    if not HEADER_VALUE.fullmatch(value):
        return f"the value of {name} must be printable ASCII without white space around it."
    return None


def unsendable(endpoint: Endpoint, *, now: float) -> Outcome | None:
    """What comes of a call that cannot even be tried; None where it can."""
    if endpoint.damage is None:
        return None
    return Outcome(fault=Fault.DAMAGED, detail=endpoint.damage, started_at=now)


def request_headers(
    endpoint: Endpoint,
    *,
    user_agent: str,
    message_id: str,
    timestamp: int,
    body: bytes,
    attempt: int = 1,
) -> dict[str, str]:
    """All headers of one call: the endpoint's own, and ours, which win."""
    ours = {
        "content-type": sent_headers.CONTENT_TYPE,
        "user-agent": user_agent,
        **signing.headers(endpoint.secrets, message_id=message_id, timestamp=timestamp, body=body),
        "webhook-attempt": str(attempt),
    }
    own = {name: value for name, value in endpoint.headers.items() if name.lower() not in ours}
    return {**own, **ours}
