"""What one HTTP try of a webhook can bring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Fault(StrEnum):
    """Why an attempt brought no HTTP status."""

    TIMEOUT = "timeout"
    CONNECT = "connection_failed"
    RESET = "connection_reset"
    DNS = "dns_failed"
    TLS = "tls_failed"
    REFUSED = "address_refused"
    PROTOCOL = "protocol_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one HTTP try brought: a status, or the fault that prevented one."""

    status: int | None = None
    fault: Fault | None = None
    detail: str | None = None
    retry_after_seconds: float | None = None
    location: str | None = None
    remote_address: str | None = None
    response_headers: Mapping[str, str] = field(default_factory=dict)
    response_body: str | None = None
    started_at: float = 0.0
    duration_ms: float = 0.0

    @property
    def success(self) -> bool:
        """Only a 2xx is one."""
        return self.status is not None and 200 <= self.status < 300
