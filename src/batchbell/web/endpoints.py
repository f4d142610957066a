"""Webhook endpoints: their routes, and from a body to an endpoint and back."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import Query, Request
from starlette.responses import Response

from batchbell import __version__
from batchbell.api import endpoints as api
from batchbell.api.answers import made_of, whole
from batchbell.api.endpoints import (
    MASK,
    EndpointChanges,
    EndpointRequest,
    RotateRequest,
    TestRequest,
)
from batchbell.api.lists import Page
from batchbell.core import signing
from batchbell.core.attachment import ResultsMode
from batchbell.core.endpoint import request_headers, unsendable
from batchbell.core.errors import InvalidRequest
from batchbell.core.model import (
    DEFAULT_EVENTS,
    Account,
    Attempt,
    DeliveryState,
    Endpoint,
    EventType,
    Outcome,
)
from batchbell.core.samples import sample_body
from batchbell.core.signing import SECRET_PREFIX
from batchbell.net.guard import AddressRules
from batchbell.storage import endpoints, health
from batchbell.storage.endpoints import EndpointFields, Known
from batchbell.web.bodies import Check, read, read_json
from batchbell.web.call import Call, Caller, answer, page_answer
from batchbell.web.deliveries import shown_attempt
from batchbell.web.errors import Code
from batchbell.web.openapi import answers, takes
from batchbell.web.parameters import LIMIT_DEFAULT, After, Limit, strict_router
from batchbell.web.watches import url_check

DAY_SECONDS = 86_400.0


def read_endpoint(
    body: Any, rules: AddressRules, accounts: Mapping[str, Account]
) -> tuple[EndpointFields, str]:
    """What a new endpoint is made of, and its secret. Raises InvalidBody."""
    made = read(EndpointRequest, body, _checks(rules, accounts))
    fields = made.model_dump(exclude={"signing_secret"})
    return EndpointFields(**_stored(fields)), _secret(made.signing_secret)


def read_changes(body: Any, rules: AddressRules, accounts: Mapping[str, Account]) -> dict[str, Any]:
    """Those of the EndpointFields that the body names. Raises InvalidBody."""
    made = read(EndpointChanges, body, _checks(rules, accounts, optional=True))
    return _stored(made.named())


def read_rotation(body: Any) -> tuple[str, float]:
    """The next secret, and for how many seconds those before it go on signing."""
    made = read(RotateRequest, body, {"signing_secret": _check_secret})
    seconds = made.keep_old_secret_active_seconds
    if seconds is None:
        seconds = DAY_SECONDS if made.keep_old_secret_active_for_24_hours else 0.0
    return _secret(made.signing_secret), seconds


def _checks(
    rules: AddressRules, accounts: Mapping[str, Account], *, optional: bool = False
) -> Mapping[str, Check]:
    checks: dict[str, Check] = {
        "url": url_check(rules),
        "accounts": lambda names: _check_accounts(names, accounts),
    }
    return checks if optional else checks | {"signing_secret": _check_secret}


def _check_secret(secret: str | None) -> None:
    if secret is not None:
        signing.check_secret(secret)


def _check_accounts(names: list[str] | None, known: Mapping[str, Account]) -> None:
    for i, name in enumerate(names or ()):
        if name not in known:
            there = ", ".join(known) or "none"
            raise InvalidRequest(
                f"There is no such account; there are: {there}.",
                param=f"accounts[{i}]",
                code=Code.UNKNOWN_ACCOUNT,
            )


def _secret(given: str | None) -> str:
    """The secret that is to be imported, or a new one."""
    return given or signing.make_secret(secrets.token_bytes(signing.SECRET_BYTES))


def _stored(fields: dict[str, Any]) -> dict[str, Any]:
    """As the store keeps them: null is the default, and nothing is named twice."""
    return {
        name: STORED[name](value) if name in STORED else value for name, value in fields.items()
    }


STORED: Mapping[str, Callable[[Any], Any]] = {
    "event_types": lambda types: tuple(dict.fromkeys(types)) if types else DEFAULT_EVENTS,
    "accounts": lambda names: None if names is None else tuple(dict.fromkeys(names)),
    "metadata": lambda pairs: pairs or None,
    "headers": lambda headers: headers or None,
    "schedule": lambda waits: None if waits is None else tuple(waits),
    "ordered": bool,
    "results": lambda mode: mode or ResultsMode.LINK,
}


HINT_CHARACTERS = 4


def shown(
    found: Known,
    *,
    secret: str | None = None,
    counts: Mapping[DeliveryState, int] | None = None,
) -> api.Endpoint:
    """`secret` and the `counts` of its deliveries are shown where they are given."""
    fields, health = found.fields, found.endpoint
    return made_of(
        api.Endpoint,
        found,
        fields,
        health,
        signing_secret_hint=hint(next(iter(health.secrets), "")),
        metadata=fields.metadata or {},
        headers=dict.fromkeys(fields.headers or (), MASK),
        active_secrets=len(health.secrets),
        implied=not found.managed,
        reason=health.reason or health.damage,
        breaker=made_of(
            api.Breaker,
            health,
            open=health.opened_at is not None,
            next_probe_at=whole(health.probe_at),
        ),
        waiting=None if counts is None else counts[DeliveryState.PENDING],
        held=None if counts is None else counts[DeliveryState.HELD],
        signing_secret=secret,
    )


def hint(secret: str) -> str:
    """Enough to tell secrets apart."""
    return f"{SECRET_PREFIX}{MASK}{secret[-HINT_CHARACTERS:]}"


router = strict_router("endpoints")

TEST_SECONDS_MAX = 25.0
"""Shorter than what most callers wait for an answer."""
Implied = Annotated[bool, Query(description="Whether to list endpoints of watched URLs too.")]


@router.post(
    "/v1/webhook_endpoints",
    summary="Make an endpoint that hears of the whole project",
    openapi_extra=takes(EndpointRequest),
    **answers(api.Endpoint, 413, says="The endpoint. `signing_secret` is shown this once."),
)
async def create_endpoint(call: Caller, request: Request) -> Response:
    made, secret = await create(call, await read_json(request))
    return answer(shown(made, secret=secret))


async def create(call: Call, body: Any) -> tuple[Known, str]:
    """Make an endpoint; returns it and the secret that signs for it. Raises InvalidBody."""
    context = call.context
    fields, secret = read_endpoint(body, context.rules(), await call.accounts())
    made = await context.store.write(
        endpoints.create,
        call.project_id,
        fields,
        secret=secret,
        mint=context.mint,
        now=context.clock(),
    )
    return made, secret


@router.get(
    "/v1/webhook_endpoints",
    summary="List endpoints, newest first",
    **answers(Page[api.Endpoint], 404),
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
    return page_answer([shown(one) for one in page.items], page)


@router.get(
    "/v1/webhook_endpoints/{webhook_endpoint_id}",
    summary="One endpoint",
    **answers(api.Endpoint, 404),
)
async def get_endpoint(call: Caller, webhook_endpoint_id: str) -> Response:
    found = await get(call, webhook_endpoint_id)
    counts = await call.context.store.read(health.count_waiting, found.id)
    return answer(shown(found, counts=counts))


async def get(call: Call, endpoint_id: str) -> endpoints.Known:
    """One endpoint of the caller's project. Raises NotFound."""
    context = call.context
    return await context.store.read(
        endpoints.get, call.project_id, endpoint_id, now=context.clock()
    )


@router.post(
    "/v1/webhook_endpoints/{webhook_endpoint_id}",
    summary="Change an endpoint",
    openapi_extra=takes(EndpointChanges),
    **answers(api.Endpoint, 404, 413),
)
async def change_endpoint(call: Caller, webhook_endpoint_id: str, request: Request) -> Response:
    context = call.context
    body = await read_json(request)
    changes = read_changes(body, context.rules(), await call.accounts())
    changed = await context.store.write(
        endpoints.change, call.project_id, webhook_endpoint_id, changes, now=context.clock()
    )
    return answer(shown(changed))


@router.delete(
    "/v1/webhook_endpoints/{webhook_endpoint_id}",
    summary="Delete an endpoint and its pending deliveries",
    **answers(api.EndpointDeleted, 404),
)
async def delete_endpoint(call: Caller, webhook_endpoint_id: str) -> Response:
    context = call.context
    await context.store.write(
        endpoints.remove, call.project_id, webhook_endpoint_id, now=context.clock()
    )
    return answer(api.EndpointDeleted(id=webhook_endpoint_id, deleted=True))


@router.post(
    "/v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret",
    summary="Sign with a new secret",
    openapi_extra=takes(RotateRequest, required=False),
    **answers(
        api.Endpoint,
        404,
        413,
        says="The endpoint. `signing_secret` is shown this once.",
    ),
)
async def rotate_secret(call: Caller, webhook_endpoint_id: str, request: Request) -> Response:
    body = await read_json(request, optional=True)
    rotated, secret = await rotate(call, webhook_endpoint_id, body)
    return answer(shown(rotated, secret=secret))


async def rotate(call: Call, endpoint_id: str, body: Any) -> tuple[Known, str]:
    """Sign with a new secret; returns the endpoint, and that secret. Raises InvalidRequest."""
    secret, grace_seconds = read_rotation(body)
    rotated = await call.context.store.write(
        endpoints.rotate,
        call.project_id,
        endpoint_id,
        secret=secret,
        grace_seconds=grace_seconds,
        now=call.context.clock(),
    )
    return rotated, secret


@router.post(
    "/v1/webhook_endpoints/{webhook_endpoint_id}/enable",
    summary="Let a disabled endpoint be called again, or try one behind an open breaker now",
    **answers(api.Endpoint, 404),
)
async def enable_endpoint(call: Caller, webhook_endpoint_id: str) -> Response:
    context = call.context
    enabled = await context.store.write(
        endpoints.enable_again, call.project_id, webhook_endpoint_id, now=context.clock()
    )
    return answer(shown(enabled))


@router.post(
    "/v1/webhook_endpoints/{webhook_endpoint_id}/disable",
    summary="Call an endpoint no more until it is enabled; what waits for it is held",
    **answers(api.Endpoint, 404),
)
async def disable_endpoint(call: Caller, webhook_endpoint_id: str) -> Response:
    context = call.context
    await context.store.write(
        health.disable, call.project_id, webhook_endpoint_id, now=context.clock()
    )
    return answer(shown(await get(call, webhook_endpoint_id)))


@router.post(
    "/v1/webhook_endpoints/{webhook_endpoint_id}/test",
    summary="Send a test event to an endpoint now, once",
    openapi_extra=takes(TestRequest, required=False),
    **answers(api.EndpointTest, 404, 413, says="What came of it."),
)
async def test_endpoint(call: Caller, webhook_endpoint_id: str, request: Request) -> Response:
    wanted = read(TestRequest, await read_json(request, optional=True))
    return answer(await test(call, webhook_endpoint_id, wanted.event_type or EventType.COMPLETED))


async def test(call: Call, endpoint_id: str, type_: EventType) -> api.EndpointTest:
    """Send a test event now, once, and say what came of it. Raises NotFound."""
    endpoint = (await get(call, endpoint_id)).endpoint
    event_id = call.context.mint("evt")
    outcome = unsendable(endpoint, now=call.context.clock()) or await _send(
        call, endpoint, type_, event_id
    )
    attempt = Attempt(delivery_id="", number=1, outcome=outcome)
    return api.EndpointTest(
        webhook_endpoint_id=endpoint.id,
        event_type=type_,
        event_id=event_id,
        status_code=outcome.status or 0,
        success=outcome.status is not None,
        attempt=shown_attempt(attempt),
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
    **answers(api.EventTypes),
)
async def list_event_types(call: Caller) -> Response:
    return answer(api.EventTypes(data=tuple(EventType)))
