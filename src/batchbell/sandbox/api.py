"""The HTTP face of the provider: OpenAI's routes, and `/sandbox` to steer it from outside."""

from __future__ import annotations

import uuid

from aiohttp import web

from batchbell.sandbox import mischief
from batchbell.sandbox.answers import ApiError, bad_key, limit_of, missing, no_batch
from batchbell.sandbox.anthropic import PREFIX as MESSAGES
from batchbell.sandbox.anthropic import anthropic_app
from batchbell.sandbox.batch_jobs import BatchJobs
from batchbell.sandbox.content_batches import ContentBatches
from batchbell.sandbox.control import control_routes
from batchbell.sandbox.faults import CONTENT, FaultKind
from batchbell.sandbox.files import list_object
from batchbell.sandbox.forms import parts_of
from batchbell.sandbox.gate import (
    PROVIDER,
    Handler,
    guard,
    json_object,
    page_fault,
    sent,
)
from batchbell.sandbox.gemini import PREFIX as GEMINI
from batchbell.sandbox.gemini import gemini_app
from batchbell.sandbox.message_batches import MessageBatches
from batchbell.sandbox.mistral import PREFIX as MISTRAL
from batchbell.sandbox.mistral import mistral_app
from batchbell.sandbox.provider import SandboxProvider

MAX_JSON_BYTES = 8 * 2**20
PURPOSES = frozenset(
    {"assistants", "batch", "batch_output", "evals", "fine-tune", "user_data", "vision"}
)


def sandbox_app(
    provider: SandboxProvider, batches: MessageBatches, contents: ContentBatches, jobs: BatchJobs
) -> web.Application:
    """All APIs as one aiohttp application."""
    app = web.Application(
        middlewares=[_in_openai_shape, guard(_check_key)], client_max_size=MAX_JSON_BYTES
    )
    app[PROVIDER] = provider
    app.add_routes(
        [
            web.post("/v1/files", _upload, name="upload"),
            web.get("/v1/files", _files, name="files"),
            web.get("/v1/files/{id}", _file, name="file"),
            web.get("/v1/files/{id}/content", _content, name="content"),
            web.delete("/v1/files/{id}", _delete_file, name="delete_file"),
            web.post("/v1/batches", _create, name="create"),
            web.get("/v1/batches", _list, name="list"),
            web.get("/v1/batches/{id}", _retrieve, name="retrieve"),
            web.post("/v1/batches/{id}/cancel", _cancel, name="cancel"),
            web.get("/storage/{id}", _stored, name="stored"),
            *control_routes(provider),
            *control_routes(batches, "/sandbox/anthropic"),
            *control_routes(contents, "/sandbox/gemini"),
            *control_routes(jobs, "/sandbox/mistral"),
        ]
    )
    app.add_subapp(MESSAGES, anthropic_app(batches))
    app.add_subapp(GEMINI, gemini_app(contents))
    app.add_subapp(MISTRAL, mistral_app(jobs))
    return app


@web.middleware
async def _in_openai_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except ApiError as error:
        response = web.json_response(error.body(), status=error.status, headers=error.headers)
    except web.HTTPException as error:
        response = _http_error(request, error)
    if not response.prepared and "request-id" not in response.headers:
        response.headers["x-request-id"] = f"req_{uuid.uuid4().hex}"
    return response


def _http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    text = f"{error.reason} ({request.method} {request.path})"
    if error.status in (404, 405):
        text = f"Invalid URL ({request.method} {request.path})"
    answer = ApiError(error.status, text)
    return web.json_response(answer.body(), status=error.status)


def _check_key(request: web.Request, wanted: str | None) -> None:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key or (wanted is not None and key != wanted):
        raise bad_key(key)


# Files -----------------------------------------------------------------------------------


async def _upload(request: web.Request) -> web.Response:
    filename, content, fields = await parts_of(request)
    if content is None:
        raise missing("file")
    if fields.get("purpose") not in PURPOSES:
        raise missing("purpose")
    provider = request.app[PROVIDER]
    return web.json_response(
        provider.upload(
            content,
            filename=filename,
            purpose=fields["purpose"],
            expires_after=_expires_after(fields),
        )
    )


def _expires_after(fields: dict[str, str]) -> dict[str, str] | None:
    found = {
        name: fields[f"expires_after[{name}]"]
        for name in ("anchor", "seconds")
        if f"expires_after[{name}]" in fields
    }
    return found or None


async def _files(request: web.Request) -> web.Response:
    query = request.query
    return web.json_response(
        request.app[PROVIDER].file_page(
            purpose=query.get("purpose"),
            after=query.get("after"),
            limit=limit_of(query.get("limit"), default=10_000, maximum=10_000),
            newest_first=query.get("order", "desc") != "asc",
        )
    )


async def _file(request: web.Request) -> web.Response:
    return web.json_response(request.app[PROVIDER].file(request.match_info["id"]).as_object())


async def _delete_file(request: web.Request) -> web.Response:
    return web.json_response(request.app[PROVIDER].delete_file(request.match_info["id"]))


async def _content(request: web.Request) -> web.StreamResponse:
    provider = request.app[PROVIDER]
    file = provider.file(request.match_info["id"])
    fault = provider.faults.take(CONTENT, route="content", batch_id=file.id)
    headers = {**_attachment(file.filename), "ETag": f'"{file.id}"', "Accept-Ranges": "bytes"}
    if fault is not None:
        return await mischief.spoiled_content(fault, request, file.content, headers)
    return await sent(request, file.content, headers)


async def _stored(request: web.Request) -> web.StreamResponse:
    """Where a redirect leads: storage that knows its own signature, and no API key."""
    if "Authorization" in request.headers or not request.query.get("X-Signature"):
        return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")
    file = request.app[PROVIDER].file(request.match_info["id"])
    return await sent(request, file.content, {"ETag": f'"{file.id}"'})


def _attachment(filename: str) -> dict[str, str]:
    plain = filename.encode("ascii", "replace").decode().replace('"', "_").replace("\\", "_")
    return {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f'attachment; filename="{plain}"',
    }


# Batches ---------------------------------------------------------------------------------


async def _create(request: web.Request) -> web.Response:
    return web.json_response(request.app[PROVIDER].create(await json_object(request)))


async def _list(request: web.Request) -> web.Response:
    provider = request.app[PROVIDER]
    limit = limit_of(request.query.get("limit"), default=20, maximum=100)
    fault = page_fault(provider)
    loops = fault is not None and fault.kind is FaultKind.LOOP
    skip = fault.rows if fault is not None and not loops else 0
    after = None if loops else request.query.get("after")
    rows, has_more = provider.page(after=after, limit=limit, skip=skip)
    return web.json_response(
        list_object(provider.faults.spoil(rows, route="list"), has_more=has_more or loops)
    )


async def _retrieve(request: web.Request) -> web.Response:
    provider, batch_id = request.app[PROVIDER], request.match_info["id"]
    rows = provider.faults.spoil([provider.retrieve(batch_id)], route="retrieve")
    if not rows:
        raise no_batch(batch_id)
    return web.json_response(rows[0])


async def _cancel(request: web.Request) -> web.Response:
    return web.json_response(request.app[PROVIDER].cancel(request.match_info["id"]))
