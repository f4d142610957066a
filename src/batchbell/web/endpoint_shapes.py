"""What is answered about endpoints. OpenAI's fields, and ours beside them."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from batchbell.core.attachment import ResultsMode
from batchbell.core.endpoint import EndpointState
from batchbell.core.model import EventType
from batchbell.web.shapes import Attempt


class Breaker(Struct, frozen=True, kw_only=True):
    """While it is open all deliveries wait, but for one at a time that is sent to try."""

    open: bool
    opened_at: int | None
    next_probe_at: int | None


class Endpoint(Struct, frozen=True, kw_only=True):
    """A webhook endpoint. `signing_secret` is there once: where it was made or rotated."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    name: str
    url: str
    event_types: list[EventType]
    signing_secret_hint: str
    created_at: int
    updated_at: int
    description: str | None
    accounts: list[str] | None
    metadata: dict[str, str]
    headers: dict[str, str]
    """Names, and `***` for each value: they are not shown again."""
    timeout_seconds: float | None
    schedule: list[float] | None
    rate_limit: float | None
    ordered: bool
    results: ResultsMode
    active_secrets: int
    """How many sign just now: more than one after a rotation."""
    implied: bool
    """Whether it is there because watches name its URL."""
    state: EndpointState
    state_since: int
    reason: str | None
    failures: int
    failing_since: int | None
    paused_until: int | None
    breaker: Breaker
    waiting: int | UnsetType = UNSET
    """Deliveries that wait, up to 10,000; `held` likewise. Only where one endpoint is asked for."""
    held: int | UnsetType = UNSET
    signing_secret: str | UnsetType = UNSET


class EndpointDeleted(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: bool = True


class TestResult(Struct, frozen=True, kw_only=True):
    """`status_code` is 0, and `success` false, where the endpoint gave no HTTP answer."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: EventType
    event_id: str
    status_code: int
    success: bool
    attempt: Attempt


class EventTypes(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[EventType]
