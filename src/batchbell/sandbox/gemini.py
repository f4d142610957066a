"""The HTTP face of another fake: the Gemini API's routes for batches and files."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from batchbell.sandbox import mischief
from batchbell.sandbox.answers import ApiError
from batchbell.sandbox.content_batches import ContentBatches, time_of
from batchbell.sandbox.faults import CONTENT, FaultKind
from batchbell.sandbox.fields import chosen
from batchbell.sandbox.files import StoredFile
from batchbell.sandbox.gate import PROVIDER, Handler, guard, json_object, page_fault, sent
from batchbell.sandbox.hooks import key_set

PREFIX = "/gemini"
"""The Gemini API is below it, with the version and all."""
ROUTE = "gemini."
PAGE_MAX = 1_000
WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
OF_RESULTS = CONTENT - {FaultKind.REDIRECT}
BATCHES = web.AppKey("content_batches", ContentBatches)
UPLOADS = web.AppKey("uploads", dict[str, dict[str, Any]])
VERSION = "/{version:v1|v1beta}"
BATCH, FILE = f"{VERSION}/{{id:batches/[^/:]+}}", f"{VERSION}/{{id:files/[^/:]+}}"


def gemini_app(batches: ContentBatches) -> web.Application:
    """What is below PREFIX, as an aiohttp application."""
    app = web.Application(middlewares=[_in_google_shape, guard(_check_key, before=ROUTE)])
    app[PROVIDER] = app[BATCHES] = batches
    app[UPLOADS] = {}
    app.add_routes(
        [
            web.post(
                f"{VERSION}/models/{{model}}:batchGenerateContent", _create, name=f"{ROUTE}create"
            ),
            web.post(f"{VERSION}/models/{{model}}:asyncBatchEmbedContent", _create_embeddings),
            web.get(f"{VERSION}/batches", _list, name=f"{ROUTE}list"),
            web.get(BATCH, _retrieve, name=f"{ROUTE}retrieve"),
            web.post(f"{BATCH}:cancel", _cancel, name=f"{ROUTE}cancel"),
            web.delete(BATCH, _delete),
            web.post(f"/upload{VERSION}/files", _upload, name=f"{ROUTE}upload"),
            web.get(f"{VERSION}/files", _files, name=f"{ROUTE}files"),
            web.get(f"{FILE}:download", _content, name=f"{ROUTE}content"),
            web.get(f"/download{FILE}:download", _content),
            web.get(FILE, _file, name=f"{ROUTE}file"),
            web.delete(FILE, _delete_file, name=f"{ROUTE}delete_file"),
            web.get("/.well-known/jwks.json", _keys),
        ]
    )
    return app


@web.middleware
async def _in_google_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return _error(error)
    except web.HTTPException as error:
        return _error(ApiError(error.status, error.reason))


def _error(error: ApiError) -> web.Response:
    inner: dict[str, Any] = {
        "code": error.status,
        "message": error.message,
        "status": WORDS.get(error.status, "UNKNOWN"),
    }
    if error.code == "API_KEY_INVALID":
        type_ = "type.googleapis.com/google.rpc.ErrorInfo"
        inner["details"] = [{"@type": type_, "reason": error.code, "domain": "googleapis.com"}]
    return web.json_response({"error": inner}, status=error.status, headers=error.headers)


def _check_key(request: web.Request, wanted: str | None) -> None:
    """An upload that has begun needs no key: its address is secret."""
    if "upload_id" in request.query:
        return
    key = request.headers.get("x-goog-api-key") or request.query.get("key", "")
    if not key:
        raise ApiError(403, "Method doesn't allow unregistered callers. Please use API Key.")
    if wanted is not None and key != wanted:
        text = "API key not valid. Please pass a valid API key."
        raise ApiError(400, text, code="API_KEY_INVALID")


async def _keys(_request: web.Request) -> web.Response:
    """Those that its webhooks about single batches are signed with. No key is asked for."""
    return web.json_response(key_set())


# Batches ---------------------------------------------------------------------------------


async def _create(request: web.Request) -> web.Response:
    return await _begun(request, embeds=False)


async def _create_embeddings(request: web.Request) -> web.Response:
    _check_key(request, request.app[BATCHES].api_key)
    return await _begun(request, embeds=True)


async def _begun(request: web.Request, *, embeds: bool) -> web.Response:
    batches, model = request.app[BATCHES], request.match_info["model"]
    return web.json_response(batches.begin(model, await json_object(request), embeds=embeds))


async def _list(request: web.Request) -> web.Response:
    batches = request.app[BATCHES]
    size = _size(request, default=50)
    fault = page_fault(batches)
    loops = fault is not None and fault.kind is FaultKind.LOOP
    skip = fault.rows if fault is not None and not loops else 0
    token = None if loops else request.query.get("pageToken") or None
    if token is not None and not batches.knows(token):
        raise ApiError(400, "Invalid page token.")
    rows, has_more = batches.page(after=token, limit=size, skip=skip)
    page: dict[str, Any] = {}
    if rows:
        page["operations"] = batches.faults.spoil(rows, route="list")
    if rows and (has_more or loops):
        page["nextPageToken"] = rows[-1]["name"]
    return web.json_response(chosen(page, request.query.get("fields")))


def _size(request: web.Request, *, default: int) -> int:
    """What is more than a page may have is not refused, but cut."""
    text = request.query.get("pageSize") or str(default)
    if not text.isdigit():
        raise ApiError(400, f"Invalid value at 'page_size' (TYPE_INT32), \"{text}\"")
    return min(int(text) or default, PAGE_MAX)


async def _retrieve(request: web.Request) -> web.Response:
    batches = request.app[BATCHES]
    rows = batches.faults.spoil([batches.operation(request.match_info["id"])], route="retrieve")
    if not rows:
        raise ApiError(404, "Requested entity was not found.")
    return web.json_response(chosen(rows[0], request.query.get("fields")))


async def _cancel(request: web.Request) -> web.Response:
    return web.json_response(request.app[BATCHES].cancel(request.match_info["id"]))


async def _delete(request: web.Request) -> web.Response:
    batches = request.app[BATCHES]
    _check_key(request, batches.api_key)
    return web.json_response(batches.delete(request.match_info["id"]))


# Files -----------------------------------------------------------------------------------


async def _upload(request: web.Request) -> web.Response:
    """The resumable protocol: a call that starts, then calls that bring the bytes."""
    uploads = request.app[UPLOADS]
    commands = request.headers.get("X-Goog-Upload-Command", "").replace(" ", "").split(",")
    if "start" in commands:
        asked = (await json_object(request)).get("file") or {}
        id = request.app[BATCHES].upload_id()
        uploads[id] = {"asked": asked, "content": bytearray()}
        url = request.url.with_query(upload_id=id)
        headers = {"x-goog-upload-url": str(url), "x-goog-upload-status": "active"}
        return web.Response(headers=headers)
    upload = uploads.get(request.query.get("upload_id", ""))
    if upload is None:
        raise ApiError(404, "Upload not found.")
    if request.headers.get("X-Goog-Upload-Offset") != str(len(upload["content"])):
        raise ApiError(400, "The offset is not where the upload stands.")
    async for chunk in request.content.iter_any():
        upload["content"] += chunk
    if "finalize" not in commands:
        return web.Response(headers={"x-goog-upload-status": "active"})
    del uploads[request.query["upload_id"]]
    asked = upload["asked"]
    file = request.app[BATCHES].keep_upload(
        bytes(upload["content"]),
        display_name=str(asked.get("displayName") or asked.get("display_name") or ""),
        mime_type=str(asked.get("mimeType") or asked.get("mime_type") or ""),
    )
    shown = {"file": _shown(request, file)}
    return web.json_response(shown, headers={"x-goog-upload-status": "final"})


async def _files(request: web.Request) -> web.Response:
    found = request.app[BATCHES].file_page(
        purpose=None,
        after=request.query.get("pageToken") or None,
        limit=_size(request, default=10),
        newest_first=True,
    )
    files = request.app[BATCHES]
    rows = [_shown(request, files.file(row["id"])) for row in found["data"]]
    more = {"nextPageToken": found["last_id"]} if found["has_more"] else {}
    return web.json_response({**({"files": rows} if rows else {}), **more})


async def _file(request: web.Request) -> web.Response:
    return web.json_response(_shown(request, request.app[BATCHES].file(request.match_info["id"])))


async def _delete_file(request: web.Request) -> web.Response:
    return web.json_response(request.app[BATCHES].remove_file(request.match_info["id"]))


async def _content(request: web.Request) -> web.StreamResponse:
    batches, name = request.app[BATCHES], request.match_info["id"]
    if request.match_info.route.name is None:
        _check_key(request, batches.api_key)
    content = batches.generated(name).content
    headers = {"Content-Type": "application/octet-stream", "ETag": f'"{name}"'}
    fault = batches.faults.take(OF_RESULTS, route="content", batch_id=name)
    if fault is not None:
        return await mischief.spoiled_content(fault, request, content, headers)
    return await sent(request, content, headers)


def _shown(request: web.Request, file: StoredFile) -> dict[str, Any]:
    generated = file.purpose == "batch_output"
    root = f"{request.url.origin()}{PREFIX}/v1beta/{file.id}"
    shown = {
        "name": file.id,
        "displayName": file.filename,
        "mimeType": "application/jsonl" if generated else file.purpose,
        "sizeBytes": str(len(file.content)),
        "createTime": time_of(file.created_at),
        "updateTime": time_of(file.created_at),
        "expirationTime": time_of(file.expires_at),
        "uri": root,
        "state": "ACTIVE",
        "source": "GENERATED" if generated else "UPLOADED",
    }
    if generated:
        shown["downloadUri"] = f"{root}:download?alt=media"
    return shown
