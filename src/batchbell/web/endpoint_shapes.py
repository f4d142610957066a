"""What is sent and answered about endpoints, as types. OpenAI's fields, and ours beside them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from batchbell.core.attachment import ResultsMode
from batchbell.core.endpoint import GRACE_MAX_SECONDS, TIMEOUT_SECONDS, EndpointState
from batchbell.core.model import EventType
from batchbell.core.rate import RATE_PER_SECOND
from batchbell.web.shapes import Attempt, WebhookUrl

NAME_MAX = 100
DESCRIPTION_MAX = 500
HEADERS_MAX = 20
HEADER_VALUE_MAX = 2048
ACCOUNTS_MAX = 100
WAITS_MAX = 30
WAIT_SECONDS = (1.0, 86_400.0)

Name = Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]
Types = Annotated[list[EventType], Meta(min_length=1)]
Pairs = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]
Headers = Annotated[dict[str, str], Meta(max_length=HEADERS_MAX)]
Wait = Annotated[float, Meta(ge=WAIT_SECONDS[0], le=WAIT_SECONDS[1])]
Timeout = Annotated[float, Meta(ge=TIMEOUT_SECONDS[0], le=TIMEOUT_SECONDS[1])]
Rate = Annotated[float, Meta(ge=RATE_PER_SECOND[0], le=RATE_PER_SECOND[1])]
Grace = Annotated[float, Meta(ge=0, le=GRACE_MAX_SECONDS)]


class _Wanted(Struct, frozen=True, kw_only=True):
    description: Annotated[str, Meta(min_length=1, max_length=DESCRIPTION_MAX)] | None = None
    accounts: Annotated[list[str], Meta(min_length=1, max_length=ACCOUNTS_MAX)] | None = None
    metadata: Pairs | None = None
    headers: Headers | None = None
    timeout_seconds: Timeout | None = None
    schedule: Annotated[list[Wait], Meta(max_length=WAITS_MAX)] | None = None
    rate_limit: Rate | None = None
    ordered: bool | None = None
    results: ResultsMode | None = None


class EndpointRequest(_Wanted, frozen=True, kw_only=True):
    """`schedule` are the seconds to wait before each retry. `signing_secret` imports one."""

    url: WebhookUrl
    name: Name
    event_types: Types | None = None
    signing_secret: str | None = None


class EndpointChanges(_Wanted, frozen=True, kw_only=True):
    """What is left out stays; what is null is as if it had never been set."""

    url: WebhookUrl | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    event_types: Types | None = None


class RotateRequest(Struct, frozen=True, kw_only=True):
    keep_old_secret_active_for_24_hours: bool | None = None
    keep_old_secret_active_seconds: Grace | None = None
    signing_secret: str | None = None


class TestRequest(Struct, frozen=True, kw_only=True):
    event_type: EventType | None = None


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
