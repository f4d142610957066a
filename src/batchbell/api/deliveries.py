"""Deliveries: what was sent to whom, and what came of each attempt."""

from __future__ import annotations

from typing import Annotated

from batchbell.api.answers import Answer, EventWord, Object, Second, about, one_of
from batchbell.core.model import DeliveryState


class Timings(Answer, frozen=True, kw_only=True):
    """Milliseconds. A kept connection has no `dns_ms`, `connect_ms` and `tls_ms`.

    `first_byte_ms` counts from the begin of the call; the others are each stage alone.
    """

    dns_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    first_byte_ms: float | None


class Attempt(Answer, frozen=True, kw_only=True):
    """One HTTP try."""

    number: int
    result: Annotated[str, one_of(("delivered", "failed", "unknown"))]
    explanation: Annotated[str | None, about("Why the result is `unknown`.")]
    status: int | None
    fault: Annotated[str | None, about("Why there is no status.")]
    detail: str | None
    location: str | None
    remote_address: str | None
    request_headers: Annotated[dict[str, str], about("Values that may be secret are `***`.")]
    response_headers: dict[str, str]
    response_body: str | None
    started_at: Annotated[float | None, about("Exact: seconds with a fraction.")]
    duration_ms: float | None
    timings: Timings | None


class Delivery(Object, frozen=True, kw_only=True, tag="delivery"):
    """One event for one endpoint. Lists leave `attempts` and `attempts_deleted` out."""

    id: str
    event_id: str
    event_type: EventWord
    batch_id: str | None
    endpoint_id: str
    watch_id: str | None
    webhook_id: str
    url: str
    state: Annotated[str, one_of(DeliveryState)]
    in_flight: bool
    attempt_count: int
    next_attempt_at: Second | None
    created_at: Second
    finished_at: Second | None
    last_status: int | None
    last_error: str | None
    needs_you: Annotated[str | None, about("What only the owner of the endpoint can mend.")]
    reason: Annotated[str | None, about("Why it waits, where it does.")]
    attempts: tuple[Attempt, ...] | None = None
    attempts_deleted: Annotated[
        int | None, about("Attempts whose records were too old to be kept.")
    ] = None
