"""What one HTTP try of a webhook can bring."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

NO_HEADERS: Mapping[str, str] = {}


class Fault(StrEnum):
    """Why an attempt brought no HTTP status."""

    TIMEOUT = "timeout"
    CONNECT = "connection_failed"
    RESET = "connection_reset"
    DNS = "dns_failed"
    TLS = "tls_failed"
    REFUSED = "address_refused"
    PROTOCOL = "protocol_error"
    DAMAGED = "secret_damaged"
    """It cannot be signed, or not sent as its owner wants it: nothing went out."""


class Timings(Struct, frozen=True):
    """How long the stages of one call took, in milliseconds; None is what was not reached.

    A call over a kept connection has no `dns_ms`, `connect_ms` and `tls_ms`, one without TLS no
    `tls_ms`. A stage that was cut short has lasted until the end of the call.
    """

    dns_ms: float | None = None
    connect_ms: float | None = None
    """From the addresses to the TCP connection, whichever of them it was."""
    tls_ms: float | None = None
    first_byte_ms: float | None = None
    """From the begin of the call until the status and headers of its answer were there."""


class Outcome(Struct, frozen=True):
    """What one HTTP try brought: a status, or the fault that prevented one."""

    status: int | None = None
    fault: Fault | None = None
    detail: str | None = None
    retry_after_seconds: float | None = None
    location: str | None = None
    remote_address: str | None = None
    response_headers: Mapping[str, str] = NO_HEADERS
    response_body: str | None = None
    request_headers: Mapping[str, str] = NO_HEADERS
    """As `core.sent.shown` lets them be seen."""
    started_at: float = 0.0
    duration_ms: float = 0.0
    timings: Timings = Timings()

    @property
    def success(self) -> bool:
        """Only a 2xx is one."""
        return self.status is not None and 200 <= self.status < 300
