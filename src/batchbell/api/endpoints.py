"""Webhook endpoints: OpenAI's fields, and ours beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from batchbell.api.answers import Answer, EventWord, Metadata, Object, Second, about, one_of
from batchbell.api.deliveries import Attempt
from batchbell.api.fields import (
    LEFT_OUT,
    AnyEvent,
    AnyEvents,
    Conflict,
    Flag,
    Pairs,
    Request,
    Results,
    Storable,
    Text,
    WebhookUrl,
)
from batchbell.core.attachment import ResultsMode
from batchbell.core.endpoint import (
    GRACE_MAX_SECONDS,
    TIMEOUT_SECONDS,
    EndpointState,
    header_problem,
)
from batchbell.core.rate import RATE_PER_SECOND

DESCRIPTION_MAX = 500
HEADERS_MAX = 20
HEADER_VALUE_MAX = 2048
ACCOUNTS_MAX = 100
WAITS_MAX = 30
WAIT_SECONDS = (1.0, 86_400.0)
SECRET_MAX = 200
MASK = "***"
"""Stands in answers for the value of a header."""

Headers = Annotated[
    dict[str, Annotated[str, Field(max_length=HEADER_VALUE_MAX)]],
    Field(max_length=HEADERS_MAX, examples=[{"X-Team": "research"}]),
]
Wait = Annotated[float, Field(ge=WAIT_SECONDS[0], le=WAIT_SECONDS[1])]
Timeout = Annotated[float, Field(ge=TIMEOUT_SECONDS[0], le=TIMEOUT_SECONDS[1], examples=[15.0])]
Rate = Annotated[float, Field(ge=RATE_PER_SECOND[0], le=RATE_PER_SECOND[1], examples=[10.0])]
Grace = Annotated[float, Field(ge=0, le=GRACE_MAX_SECONDS)]
EndpointName = Annotated[Text, Field(examples=["nightly"])]
Secret = Annotated[str, Field(min_length=1, max_length=SECRET_MAX), Storable]


class _Options(Request):
    event_types: AnyEvents | None = None
    description: (
        Annotated[str, Field(min_length=1, max_length=DESCRIPTION_MAX), Storable] | None
    ) = None
    accounts: Annotated[list[str], Field(min_length=1, max_length=ACCOUNTS_MAX)] | None = None
    metadata: Pairs | None = None
    headers: Headers | None = None
    timeout_seconds: Timeout | None = None
    schedule: Annotated[list[Wait], Field(max_length=WAITS_MAX, examples=[[5, 60]])] | None = None
    rate_limit: Rate | None = None
    ordered: Flag = None
    results: Results | None = None

    @classmethod
    def conflicts(cls, sound: Mapping[str, Any], spoilt: Collection[str]) -> Iterator[Conflict]:
        headers = sound.get("headers") or {}
        for name, value in headers.items():
            if value == MASK:
                problem: str | None = (
                    f"{MASK} stands in answers for the value of {name!r}: send the value itself."
                )
            else:
                problem = header_problem(name, value)
            if problem:
                yield Conflict("headers", f"cannot be sent: {problem}")
        if len({name.lower() for name in headers}) < len(headers):
            yield Conflict("headers", "name one header twice; case makes no difference.")


class EndpointRequest(_Options):
    """`schedule` are the seconds to wait before each retry. `signing_secret` imports one."""

    url: WebhookUrl
    name: EndpointName
    signing_secret: Secret | None = None


class EndpointChanges(_Options):
    """What is left out stays; what is null is as if it had never been set."""

    url: WebhookUrl = LEFT_OUT
    name: EndpointName = LEFT_OUT


class RotateRequest(Request):
    keep_old_secret_active_for_24_hours: Flag = None
    keep_old_secret_active_seconds: Grace | None = None
    signing_secret: Secret | None = None


class TestRequest(Request):
    event_type: AnyEvent | None = None


class Breaker(Answer, frozen=True, kw_only=True):
    """While it is open all deliveries wait, but for one at a time that is sent to try."""

    open: bool
    opened_at: Second | None
    next_probe_at: Second | None


class Endpoint(Object, frozen=True, kw_only=True, tag="webhook_endpoint"):
    """A webhook endpoint. `signing_secret` is there once: where it was made or rotated."""

    id: str
    name: str
    url: str
    event_types: tuple[EventWord, ...]
    signing_secret_hint: str
    created_at: Second
    updated_at: Second
    description: str | None
    accounts: Annotated[
        tuple[str, ...] | None, about("Names of accounts whose batches it hears of.")
    ]
    metadata: Annotated[Metadata, about("Pairs that a batch must have among its own.")]
    headers: Annotated[
        dict[str, str], about("Names, and `***` for each value: they are not shown again.")
    ]
    timeout_seconds: float | None
    schedule: Annotated[tuple[float, ...] | None, about("Seconds to wait before each retry.")]
    rate_limit: Annotated[float | None, about("Calls a second at most.")]
    ordered: bool
    results: Annotated[str, one_of(ResultsMode)]
    active_secrets: Annotated[int, about("How many sign just now: more than one after a rotation.")]
    implied: Annotated[bool, about("Whether it is there because watches name its URL.")]
    state: Annotated[str, one_of(EndpointState)]
    state_since: Second
    reason: str | None
    failures: int
    failing_since: Second | None
    paused_until: Second | None
    breaker: Breaker
    waiting: Annotated[
        int | None,
        about("Deliveries that wait, up to 10,000. Only where one endpoint is asked for."),
    ] = None
    held: Annotated[int | None, about("Deliveries that are held, likewise.")] = None
    signing_secret: str | None = None

    def __repr__(self) -> str:
        return f"Endpoint(id={self.id!r}, name={self.name!r}, url={self.url!r})"


class EndpointDeleted(Object, frozen=True, kw_only=True, tag="webhook_endpoint.deleted"):
    id: str
    deleted: Literal[True]


class EndpointTest(Object, frozen=True, kw_only=True, tag="webhook_endpoint.test"):
    """`status_code` is 0, and `success` false, where the endpoint gave no HTTP answer."""

    webhook_endpoint_id: str
    event_type: EventWord
    event_id: str
    status_code: int
    success: bool
    attempt: Attempt


class EventTypes(Object, frozen=True, kw_only=True, tag="list"):
    data: tuple[EventWord, ...]
