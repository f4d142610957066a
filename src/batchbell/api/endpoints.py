"""Webhook endpoints: OpenAI's fields, and ours beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

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
from batchbell.core.endpoint import GRACE_MAX_SECONDS, TIMEOUT_SECONDS, header_problem
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
