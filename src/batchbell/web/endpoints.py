"""From a body to an endpoint: what may be wished for, field by field."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import Query, Request
from msgspec import UNSET, Struct
from starlette.responses import Response

from batchbell import __version__
from batchbell.core import signing
from batchbell.core.endpoint import (
    GRACE_MAX_SECONDS,
    TIMEOUT_SECONDS,
    header_problem,
    request_headers,
    unsendable,
)
from batchbell.core.errors import InvalidRequest
from batchbell.core.model import Account, Attempt, DeliveryState, Endpoint, EventType, Outcome
from batchbell.core.rate import RATE_PER_SECOND
from batchbell.core.samples import sample_body
from batchbell.core.signing import SECRET_PREFIX
from batchbell.storage import endpoints, health
from batchbell.storage.endpoints import EndpointFields, Known
from batchbell.web import describing, endpoint_shapes, shapes
from batchbell.web.bodies import Fields, read_json
from batchbell.web.call import Call, Caller, Context, answer, page_answer
from batchbell.web.endpoint_shapes import (
    ACCOUNTS_MAX,
    DESCRIPTION_MAX,
    HEADER_VALUE_MAX,
    HEADERS_MAX,
    NAME_MAX,
    WAIT_SECONDS,
    WAITS_MAX,
    EndpointChanges,
    EndpointRequest,
    RotateRequest,
)
from batchbell.web.errors import Code
from batchbell.web.openapi import answers, takes
from batchbell.web.parameters import LIMIT_DEFAULT, After, Limit, strict_router
from batchbell.web.watches import event_types, metadata_pairs, results_mode, webhook_url

DAY_SECONDS = 86_400.0
SECRET_MAX = 200


class EndpointForm:
    """Reads what a body asks of an endpoint, under the rules and accounts of this moment."""

    def __init__(self, context: Context, accounts: Mapping[str, Account]) -> None:
        rules = context.rules()
        self._readers: Mapping[str, Callable[[Fields], Any]] = {
            "url": lambda fields: webhook_url(fields, "url", rules),
            "name": lambda fields: fields.text("name", most=NAME_MAX),
            "event_types": lambda fields: event_types(fields, "event_types", list(EventType)),
            "description": lambda fields: fields.optional_text("description", most=DESCRIPTION_MAX),
            "accounts": lambda fields: _accounts(fields, accounts),
            "metadata": lambda fields: metadata_pairs(fields) or None,
            "headers": _headers,
            "timeout_seconds": _timeout,
            "schedule": _schedule,
            "rate_limit": _rate_limit,
            "ordered": lambda fields: fields.flag("ordered"),
            "results": results_mode,
        }

    def create(self, body: Any) -> tuple[EndpointFields, str]:
        """What is wished for, and the secret: a new one unless one is given."""
        fields = Fields(body, EndpointRequest)
        values = {name: read(fields) for name, read in self._readers.items()}
        secret = signing_secret(fields)
        fields.raise_problems()
        return EndpointFields(**values), secret

    def changes(self, body: Any) -> dict[str, Any]:
        """Those of the Wishes that the body names."""
        fields = Fields(body, EndpointChanges)
        values = {name: read(fields) for name, read in self._readers.items() if fields.has(name)}
        fields.raise_problems()
        return values


def rotation(body: Any) -> tuple[str, float]:
    """The next secret, and for how many seconds those before it go on signing."""
    fields = Fields(body, RotateRequest)
    day = fields.flag("keep_old_secret_active_for_24_hours")
    seconds = fields.optional_number(
        "keep_old_secret_active_seconds", least=0.0, most=GRACE_MAX_SECONDS
    )
    secret = signing_secret(fields)
    fields.raise_problems()
    if seconds is None:
        seconds = DAY_SECONDS if day else 0.0
    return secret, seconds


def tested_type(body: Any, shape: type[Struct], name: str) -> EventType:
    """What a test event tells of, from the field `name`; `batch.completed` by default."""
    fields = Fields(body, shape)
    value = fields.get(name)
    known = list(EventType)
    if value is not None and value not in known:
        fields.wrong(name, f"{name} is no event type: use {', '.join(known)}.")
    fields.raise_problems()
    return EventType.COMPLETED if value is None else EventType(value)


def signing_secret(fields: Fields) -> str:
    """The secret that is to be imported, or a new one."""
    given = fields.optional_text("signing_secret", most=SECRET_MAX)
    if given is None:
        return signing.make_secret(secrets.token_bytes(signing.SECRET_BYTES))
    try:
        signing.check_secret(given)
    except InvalidRequest as error:
        fields.wrong("signing_secret", error.message)
    return given


def _accounts(fields: Fields, known: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = fields.get("accounts")
    if value is None:
        return None
    if not isinstance(value, list) or not 1 <= len(value) <= ACCOUNTS_MAX:
        fields.wrong("accounts", f"accounts must be a list of 1 to {ACCOUNTS_MAX} names.")
        return None
    for i, name in enumerate(value):
        if not isinstance(name, str) or name not in known:
            there = ", ".join(known) or "none"
            message = f"There is no such account; there are: {there}."
            fields.wrong(f"accounts[{i}]", message, Code.UNKNOWN_ACCOUNT)
            return None
    return tuple(dict.fromkeys(value))


def _headers(fields: Fields) -> dict[str, str] | None:
    value = fields.get("headers")
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > HEADERS_MAX:
        fields.wrong("headers", f"headers must be an object of up to {HEADERS_MAX} headers.")
        return None
    for name, text in value.items():
        if problem := _header_problem(name, text):
            fields.wrong("headers", f"headers: {problem}")
    if len({name.lower() for name in value}) < len(value):
        fields.wrong("headers", "headers: a name is there twice; case makes no difference.")
    return value or None


def _header_problem(name: str, text: Any) -> str | None:
    if not isinstance(text, str) or len(text) > HEADER_VALUE_MAX:
        return f"a value is a string of up to {HEADER_VALUE_MAX} characters."
    if text == MASK:
        return f"{MASK} stands in answers for the value of {name!r}: send the value itself."
    return header_problem(name, text)


def _timeout(fields: Fields) -> float | None:
    least, most = TIMEOUT_SECONDS
    return fields.optional_number("timeout_seconds", least=least, most=most)


def _rate_limit(fields: Fields) -> float | None:
    least, most = RATE_PER_SECOND
    return fields.optional_number("rate_limit", least=least, most=most)


def _schedule(fields: Fields) -> tuple[float, ...] | None:
    value = fields.get("schedule")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > WAITS_MAX:
        fields.wrong("schedule", f"schedule must be a list of up to {WAITS_MAX} waits.")
        return None
    least, most = WAIT_SECONDS
    for i, wait in enumerate(value):
        if not _is_number(wait) or not least <= wait <= most:
            name = f"schedule[{i}]"
            fields.wrong(name, f"{name} must be a number of seconds from {least:g} to {most:g}.")
            return None
    return tuple(float(wait) for wait in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


HINT_CHARACTERS = 4
MASK = "***"


def endpoint(
    found: Known,
    *,
    secret: str | None = None,
    counts: Mapping[DeliveryState, int] | None = None,
) -> endpoint_shapes.Endpoint:
    """`secret` and the `counts` of its deliveries are shown where they are given."""
    wishes, health = found.wishes, found.endpoint
    return endpoint_shapes.Endpoint(
        id=found.id,
        name=wishes.name,
        url=wishes.url,
        event_types=list(wishes.event_types),
        signing_secret_hint=hint(next(iter(health.secrets), "")),
        created_at=int(found.created_at),
        updated_at=int(found.updated_at),
        description=wishes.description,
        accounts=None if wishes.accounts is None else list(wishes.accounts),
        metadata=dict(wishes.metadata or {}),
        headers=dict.fromkeys(wishes.headers or (), MASK),
        timeout_seconds=wishes.timeout_seconds,
        schedule=None if wishes.schedule is None else list(wishes.schedule),
        rate_limit=wishes.rate_limit,
        ordered=wishes.ordered,
        results=wishes.results,
        active_secrets=len(health.secrets),
        implied=not found.managed,
        state=health.state,
        state_since=int(found.state_since),
        reason=health.reason or health.trouble,
        failures=health.failures,
        failing_since=_second(health.failing_since),
        paused_until=_second(health.paused_until),
        breaker=endpoint_shapes.Breaker(
            open=health.opened_at is not None,
            opened_at=_second(health.opened_at),
            next_probe_at=_second(health.probe_at),
        ),
        waiting=UNSET if counts is None else counts[DeliveryState.PENDING],
        held=UNSET if counts is None else counts[DeliveryState.HELD],
        signing_secret=UNSET if secret is None else secret,
    )


def hint(secret: str) -> str:
    """Enough to tell secrets apart."""
    return f"{SECRET_PREFIX}{MASK}{secret[-HINT_CHARACTERS:]}"


def _second(time: float | None) -> int | None:
    return None if time is None else int(time)


router = strict_router("endpoints")

TEST_SECONDS_MAX = 25.0
"""Shorter than what most callers wait for an answer."""
Implied = Annotated[bool, Query(description="Whether to list endpoints of watched URLs too.")]


@router.post(
    "/v1/webhook_endpoints",
    summary="Make an endpoint that hears of the whole project",
    openapi_extra=takes(endpoint_shapes.EndpointRequest),
    **answers(
        endpoint_shapes.Endpoint, 413, says="The endpoint. `signing_secret` is shown this once."
    ),
)
async def create_endpoint(call: Caller, request: Request) -> Response:
    context = call.context
    body = await read_json(request)
    wishes, secret = EndpointForm(context, await call.accounts()).create(body)
    made = await context.store.write(
        endpoints.create,
        call.project_id,
        wishes,
        secret=secret,
        mint=context.mint,
        now=context.clock(),
    )
    return answer(endpoint(made, secret=secret))


@router.get(
    "/v1/webhook_endpoints",
    summary="List endpoints, newest first",
    **answers(shapes.Page[endpoint_shapes.Endpoint], 404),
)
async def list_endpoints(
    call: Caller, limit: Limit = LIMIT_DEFAULT, after: After = None, implied: Implied = False
) -> Response:
    page = await call.page(
        endpoints.list_endpoints,
        limit=limit,
        after=after,
        implied=implied,
        now=call.context.clock(),
    )
    return page_answer(page, [endpoint(one) for one in page.items], [one.id for one in page.items])


@router.get(
    "/v1/webhook_endpoints/{webhook_endpoint_id}",
    summary="One endpoint",
    **answers(endpoint_shapes.Endpoint, 404),
)
async def get_endpoint(call: Caller, webhook_endpoint_id: str) -> Response:
    found = await _get(call, webhook_endpoint_id)
    counts = await call.context.store.read(health.count_waiting, found.id)
    return answer(endpoint(found, counts=counts))


async def _get(call: Call, endpoint_id: str) -> endpoints.Known:
    context = call.context
    return await context.store.read(
        endpoints.get, call.project_id, endpoint_id, now=context.clock()
    )


@router.post(
    "/v1/webhook_endpoints/{webhook_endpoint_id}",
    summary="Change an endpoint",
    openapi_extra=takes(endpoint_shapes.EndpointChanges),
    **answers(endpoint_shapes.Endpoint, 404, 413),
)
async def change_endpoint(call: Caller, webhook_endpoint_id: str, request: Request) -> Response:
    context = call.context
    body = await read_json(request)
    changes = EndpointForm(context, await call.accounts()).changes(body)
    changed = await context.store.write(
        endpoints.change, call.project_id, webhook_endpoint_id, changes, now=context.clock()
    )
    return answer(endpoint(changed))


@router.delete(
    "/v1/webhook_endpoints/{webhook_endpoint_id}",
    summary="Delete an endpoint and its pending deliveries",
    **answers(endpoint_shapes.EndpointDeleted, 404),
)
async def delete_endpoint(call: Caller, webhook_endpoint_id: str) -> Response:
    context = call.context
    await context.store.write(
        endpoints.remove, call.project_id, webhook_endpoint_id, now=context.clock()
    )
    return answer(endpoint_shapes.EndpointDeleted(id=webhook_endpoint_id))


@router.post(
    "/v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret",
    summary="Sign with a new secret",
    openapi_extra=takes(endpoint_shapes.RotateRequest, required=False),
    **answers(
        endpoint_shapes.Endpoint,
        404,
        413,
        says="The endpoint. `signing_secret` is shown this once.",
    ),
)
async def rotate_secret(call: Caller, webhook_endpoint_id: str, request: Request) -> Response:
    context = call.context
    secret, grace_seconds = rotation(await read_json(request, optional=True))
    rotated = await context.store.write(
        endpoints.rotate,
        call.project_id,
        webhook_endpoint_id,
        secret=secret,
        grace_seconds=grace_seconds,
        now=context.clock(),
    )
    return answer(endpoint(rotated, secret=secret))


@router.post(
    "/v1/webhook_endpoints/{webhook_endpoint_id}/enable",
    summary="Let a disabled endpoint be called again",
    **answers(endpoint_shapes.Endpoint, 404),
)
async def enable_endpoint(call: Caller, webhook_endpoint_id: str) -> Response:
    context = call.context
    enabled = await context.store.write(
        endpoints.enable_again, call.project_id, webhook_endpoint_id, now=context.clock()
    )
    return answer(endpoint(enabled))


@router.post(
    "/v1/webhook_endpoints/{webhook_endpoint_id}/test",
    summary="Send a test event to an endpoint now, once",
    openapi_extra=takes(endpoint_shapes.TestRequest, required=False),
    **answers(endpoint_shapes.TestResult, 404, 413, says="What came of it."),
)
async def test_endpoint(call: Caller, webhook_endpoint_id: str, request: Request) -> Response:
    type_ = tested_type(
        await read_json(request, optional=True), endpoint_shapes.TestRequest, "event_type"
    )
    endpoint = (await _get(call, webhook_endpoint_id)).endpoint
    event_id = call.context.mint("evt")
    outcome = unsendable(endpoint, now=call.context.clock()) or await _send(
        call, endpoint, type_, event_id
    )
    attempt = Attempt(delivery_id="", number=1, outcome=outcome)
    return answer(
        endpoint_shapes.TestResult(
            webhook_endpoint_id=endpoint.id,
            event_type=type_,
            event_id=event_id,
            status_code=outcome.status or 0,
            success=outcome.status is not None,
            attempt=describing.attempt(attempt),
        )
    )


async def _send(call: Call, endpoint: Endpoint, type_: EventType, event_id: str) -> Outcome:
    context, now = call.context, call.context.clock()
    body = sample_body(event_id, type_, project_id=call.project_id, now=now).encode("ascii")
    headers = request_headers(
        endpoint,
        user_agent=f"Batchbell/{__version__}",
        message_id=event_id,
        timestamp=int(now),
        body=body,
    )
    timeout = endpoint.timeout_seconds or context.settings.delivery_timeout_seconds
    return await context.sender.send(
        endpoint.url, headers=headers, body=body, timeout_seconds=min(timeout, TEST_SECONDS_MAX)
    )


@router.get(
    "/v1/webhook_event_types",
    summary="What an endpoint can hear of",
    **answers(endpoint_shapes.EventTypes),
)
async def list_event_types(call: Caller) -> Response:
    return answer(endpoint_shapes.EventTypes(data=list(EventType)))
