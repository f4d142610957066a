"""The HTTP face of the provider: OpenAI's routes, and `/sandbox` to steer it from outside."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from batchbell.sandbox import azure, groq, mischief
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
WHOLE_MAX = 1_000_000
PURPOSES = frozenset(
    {"assistants", "batch", "batch_output", "evals", "fine-tune", "user_data", "vision"}
)


@dataclass(frozen=True, slots=True)
class Played:
    """The states behind all the APIs."""

    openai: SandboxProvider
    anthropic: MessageBatches
    gemini: ContentBatches
    mistral: BatchJobs
    groq: groq.GroqProvider
    azure: azure.AzureProvider


def sandbox_app(played: Played) -> web.Application:
    """All APIs as one aiohttp application."""
    app = _openai_app(played.openai, _check_key)
    app.add_routes(
        [
            *_openai_routes(path="/v1"),
            web.get("/storage/{id}", _stored, name="stored"),
            azure.blob_route(played.azure),
            *control_routes(played.openai),
            *control_routes(played.anthropic, "/sandbox/anthropic"),
            *control_routes(played.gemini, "/sandbox/gemini"),
            *control_routes(played.mistral, "/sandbox/mistral"),
            *control_routes(played.groq, "/sandbox/groq"),
            *control_routes(played.azure, "/sandbox/azure"),
        ]
    )
    app.add_subapp(MESSAGES, anthropic_app(played.anthropic))
    app.add_subapp(GEMINI, gemini_app(played.gemini))
    app.add_subapp(MISTRAL, mistral_app(played.mistral))
    for path in azure.PATHS:
        below = _openai_app(played.azure, azure.check_key, before=azure.ROUTE)
        below.add_routes(_openai_routes(before=azure.ROUTE))
        app.add_subapp(f"{azure.PREFIX}{path}", below)
    below = _openai_app(played.groq, _check_key, before=groq.ROUTE)
    below.add_routes(_openai_routes(before=groq.ROUTE))
    app.add_subapp(f"{groq.PREFIX}{groq.PATH}", below)
    return app


def _openai_app(
    provider: SandboxProvider,
    check_key: Callable[[web.Request, str | None], None],
    *,
    before: str = "",
) -> web.Application:
    app = web.Application(
        middlewares=[_in_openai_shape, guard(check_key, before=before)],
        client_max_size=MAX_JSON_BYTES,
    )
    app[PROVIDER] = provider
    return app


def _openai_routes(*, path: str = "", before: str = "") -> list[web.RouteDef]:
    """OpenAI's routes below `path`; `before` is what their names begin with."""
    file, batch = f"{path}/files/{{id}}", f"{path}/batches/{{id}}"
    return [
        web.post(f"{path}/files", _upload, name=f"{before}upload"),
        web.get(f"{path}/files", _files, name=f"{before}files"),
        web.get(file, _file, name=f"{before}file"),
        web.get(f"{file}/content", _content, name=f"{before}content"),
        web.delete(file, _delete_file, name=f"{before}delete_file"),
        web.post(f"{path}/batches", _create, name=f"{before}create"),
        web.get(f"{path}/batches", _list, name=f"{before}list"),
        web.get(batch, _retrieve, name=f"{before}retrieve"),
        web.post(f"{batch}/cancel", _cancel, name=f"{before}cancel"),
    ]


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
    provider = request.app[PROVIDER]
    file = provider.file(request.match_info["id"])
    return web.json_response(file.as_object(provider.clock()))


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
    return _batch(request, request.app[PROVIDER].create(await json_object(request)))


async def _list(request: web.Request) -> web.Response:
    provider = request.app[PROVIDER]
    limit = limit_of(request.query.get("limit"), default=20, maximum=100)
    fault = page_fault(provider)
    loops = fault is not None and fault.kind is FaultKind.LOOP
    skip = fault.rows if fault is not None and not loops else 0
    after = None if loops else request.query.get("after")
    if provider.lists_whole:
        after, limit = None, WHOLE_MAX
    rows, has_more = provider.page(after=after, limit=limit, skip=skip)
    rows = [provider.shown(row, request.url) for row in rows]
    page = list_object(provider.faults.spoil(rows, route="list"), has_more=has_more or loops)
    if provider.lists_whole:
        page = {"object": page["object"], "data": page["data"]}
    return web.json_response(page)


async def _retrieve(request: web.Request) -> web.Response:
    provider, batch_id = request.app[PROVIDER], request.match_info["id"]
    row = provider.shown(provider.retrieve(batch_id), request.url)
    rows = provider.faults.spoil([row], route="retrieve")
    if not rows:
        raise no_batch(batch_id)
    return web.json_response(rows[0])


async def _cancel(request: web.Request) -> web.Response:
    return _batch(request, request.app[PROVIDER].cancel(request.match_info["id"]))


def _batch(request: web.Request, row: dict[str, Any]) -> web.Response:
    return web.json_response(request.app[PROVIDER].shown(row, request.url))
