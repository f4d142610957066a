"""The headers of a call, as people may see them afterwards: every name, and no secret.

What an endpoint asked to be sent beside ours may be a password, and a signature lets whoever reads
it send the same message again: both are masked.
"""

from __future__ import annotations

from collections.abc import Mapping

MASK = "***"
CONTENT_TYPE = "application/json"
OPEN = frozenset(
    {"content-type", "user-agent", "webhook-attempt", "webhook-id", "webhook-timestamp"}
)
"""Ours that hold no secret; they are written in lower case, and an endpoint may not have them."""


def shown(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with all values masked but those that are open."""
    return {name: value if name in OPEN else MASK for name, value in headers.items()}


def implied(*, message_id: str, attempt: int, started_at: float) -> dict[str, str]:
    """An attempt's headers, as far as what else is known of it says them.

    It need not be stored; where it was otherwise (a second may pass between the signature and the
    call), `beyond` keeps what was sent.
    """
    return {
        "content-type": CONTENT_TYPE,
        "webhook-id": message_id,
        "webhook-timestamp": str(int(started_at)),
        "webhook-attempt": str(attempt),
    }


def beyond(headers: Mapping[str, str], implied_headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that `implied_headers` does not hold."""
    return {name: value for name, value in headers.items() if implied_headers.get(name) != value}
