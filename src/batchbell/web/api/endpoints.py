"""Webhook endpoints, at the paths and in the shapes of OpenAI's own API."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request
from starlette.responses import Response

from batchbell import __version__
from batchbell.core.endpoint import request_headers, unsendable
from batchbell.core.model import Attempt, Endpoint, EventType, Outcome
from batchbell.core.samples import sample_body
from batchbell.storage import managed, outages
from batchbell.web import describing, endpoint_shapes, shapes
from batchbell.web.api.cursors import LIMIT_DEFAULT, After, Limit
from batchbell.web.bodies import read_json
from batchbell.web.calling import Call, Caller, answer, page_answer
from batchbell.web.configuring import EndpointForm, rotation, tested_type
from batchbell.web.contract import answers, takes
from batchbell.web.endpoint_describing import endpoint as shown
from batchbell.web.parameters import strict_router

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
        managed.create,
        call.project_id,
        wishes,
        secret=secret,
        mint=context.mint,
        now=context.clock(),
    )
    return answer(shown(made, secret=secret))


@router.get(
    "/v1/webhook_endpoints",
    summary="List endpoints, newest first",
    **answers(shapes.Page[endpoint_shapes.Endpoint], 404),
)
async def list_endpoints(
    call: Caller, limit: Limit = LIMIT_DEFAULT, after: After = None, implied: Implied = False
) -> Response:
    page = await call.page(
        managed.list_endpoints,
        limit=limit,
        after=after,
        implied=implied,
        now=call.context.clock(),
    )
    return page_answer(page, [shown(one) for one in page.items], [one.id for one in page.items])


@router.get(
    "/v1/webhook_endpoints/{webhook_endpoint_id}",
    summary="One endpoint",
    **answers(endpoint_shapes.Endpoint, 404),
)
async def get_endpoint(call: Caller, webhook_endpoint_id: str) -> Response:
    found = await _get(call, webhook_endpoint_id)
    counts = await call.context.store.read(outages.count_waiting, found.id)
    return answer(shown(found, counts=counts))


async def _get(call: Call, endpoint_id: str) -> managed.Known:
    context = call.context
    return await context.store.read(managed.get, call.project_id, endpoint_id, now=context.clock())


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
        managed.change, call.project_id, webhook_endpoint_id, changes, now=context.clock()
    )
    return answer(shown(changed))


@router.delete(
    "/v1/webhook_endpoints/{webhook_endpoint_id}",
    summary="Delete an endpoint, and what it was still to be told",
    **answers(endpoint_shapes.EndpointDeleted, 404),
)
async def delete_endpoint(call: Caller, webhook_endpoint_id: str) -> Response:
    context = call.context
    await context.store.write(
        managed.remove, call.project_id, webhook_endpoint_id, now=context.clock()
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
        managed.rotate,
        call.project_id,
        webhook_endpoint_id,
        secret=secret,
        grace_seconds=grace_seconds,
        now=context.clock(),
    )
    return answer(shown(rotated, secret=secret))


@router.post(
    "/v1/webhook_endpoints/{webhook_endpoint_id}/enable",
    summary="Let a disabled endpoint be called again",
    **answers(endpoint_shapes.Endpoint, 404),
)
async def enable_endpoint(call: Caller, webhook_endpoint_id: str) -> Response:
    context = call.context
    enabled = await context.store.write(
        managed.enable_again, call.project_id, webhook_endpoint_id, now=context.clock()
    )
    return answer(shown(enabled))


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
