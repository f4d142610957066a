"""The HTTP face of the other fake: Anthropic's routes for Message Batches."""

from __future__ import annotations

import uuid

from aiohttp import web

from batchbell.sandbox import mischief
from batchbell.sandbox.answers import ApiError
from batchbell.sandbox.faults import CONTENT, FaultKind
from batchbell.sandbox.gate import PROVIDER, Handler, guard, json_object, page_fault, sent
from batchbell.sandbox.message_batches import MessageBatches

PREFIX = "/v1/messages/batches"
ROUTE = "anthropic."
"""What the names of the routes begin with, so that the gate of the other API lets them by."""
LIMIT_MAX = 1_000
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
OF_RESULTS = CONTENT - {FaultKind.REDIRECT}
BATCHES = web.AppKey("batches", MessageBatches)


def anthropic_app(batches: MessageBatches) -> web.Application:
    """What is below PREFIX, as an aiohttp application."""
    app = web.Application(middlewares=[_in_anthropic_shape, guard(_check_key, before=ROUTE)])
    app[PROVIDER] = app[BATCHES] = batches
    app.add_routes(
        [
            web.post("", _create, name=f"{ROUTE}create"),
            web.get("", _list, name=f"{ROUTE}list"),
            web.get("/{id}", _retrieve, name=f"{ROUTE}retrieve"),
            web.post("/{id}/cancel", _cancel, name=f"{ROUTE}cancel"),
            web.delete("/{id}", _delete, name=f"{ROUTE}delete_file"),
            web.get("/{id}/results", _results, name=f"{ROUTE}content"),
        ]
    )
    return app


@web.middleware
async def _in_anthropic_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    request_id = f"req_{uuid.uuid4().hex[:24]}"
    try:
        response = await handler(request)
    except ApiError as error:
        response = _error(error.status, error.message, request_id)
        response.headers.update(error.headers)
    except web.HTTPException as error:
        response = _error(error.status, "Not Found" if error.status == 404 else error.reason, "")
    if not response.prepared:
        response.headers["request-id"] = request_id
    return response


def _error(status: int, message: str, request_id: str) -> web.Response:
    type_ = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    error = {"type": type_, "message": message}
    body = {"type": "error", "error": error, "request_id": request_id}
    return web.json_response(body, status=status)


def _check_key(request: web.Request, wanted: str | None) -> None:
    """Some SDKs send the key as a bearer token, others as `x-api-key`."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    key = request.headers.get("x-api-key") or (token if scheme.lower() == "bearer" else "")
    if not key or (wanted is not None and key != wanted):
        raise ApiError(401, "invalid x-api-key" if key else "x-api-key header is required")
    if not request.headers.get("anthropic-version"):
        raise ApiError(400, "anthropic-version: header is required")


async def _create(request: web.Request) -> web.Response:
    batches = request.app[BATCHES]
    return web.json_response(_shown(request, batches.create(await json_object(request))))


async def _list(request: web.Request) -> web.Response:
    batches, query = request.app[BATCHES], request.query
    limit = _limit(query.get("limit"))
    if "after_id" in query and "before_id" in query and not batches.lenient:
        raise ApiError(400, "Only one of after_id and before_id can be set.")
    fault = page_fault(batches)
    loops = fault is not None and fault.kind is FaultKind.LOOP
    if "before_id" in query:
        rows, has_more = batches.page_before(query["before_id"], limit=limit)
    else:
        after = None if loops else query.get("after_id")
        skip = fault.rows if fault is not None and not loops else 0
        rows, has_more = batches.page(after=after, limit=limit, skip=skip)
    shown = batches.faults.spoil([_shown(request, row) for row in rows], route="list")
    page = {
        "data": shown,
        "has_more": has_more or loops,
        "first_id": rows[0]["id"] if rows else None,
        "last_id": rows[-1]["id"] if rows else None,
    }
    return web.json_response(page)


def _limit(text: str | None) -> int:
    if text is None:
        return 20
    try:
        limit = int(text)
    except ValueError:
        raise ApiError(400, "limit: Input should be a valid integer") from None
    if not 1 <= limit <= LIMIT_MAX:
        raise ApiError(400, f"limit: Input should be from 1 to {LIMIT_MAX}")
    return limit


async def _retrieve(request: web.Request) -> web.Response:
    batches, batch_id = request.app[BATCHES], request.match_info["id"]
    row = _shown(request, batches.retrieve(batch_id))
    rows = batches.faults.spoil([row], route="retrieve")
    if not rows:
        raise ApiError(404, f"Could not find message batch with id {batch_id}.")
    return web.json_response(rows[0])


async def _cancel(request: web.Request) -> web.Response:
    batches = request.app[BATCHES]
    return web.json_response(_shown(request, batches.cancel(request.match_info["id"])))


async def _delete(request: web.Request) -> web.Response:
    return web.json_response(request.app[BATCHES].delete(request.match_info["id"]))


async def _results(request: web.Request) -> web.StreamResponse:
    batches, batch_id = request.app[BATCHES], request.match_info["id"]
    content = batches.results(batch_id)
    headers = {"Content-Type": "application/x-jsonl", "ETag": f'"{batch_id}"'}
    fault = batches.faults.take(OF_RESULTS, route="content", batch_id=batch_id)
    if fault is not None:
        return await mischief.spoiled_content(fault, request, content, headers)
    return await sent(request, content, headers)


def _shown(request: web.Request, row: dict[str, object]) -> dict[str, object]:
    """A batch whose results have an address at the host that was called."""
    path = row["results_url"]
    return {**row, "results_url": path and f"{request.url.origin()}{path}"}
