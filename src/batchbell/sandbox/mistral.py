"""The HTTP face of another fake: Mistral's routes for batch jobs and files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from aiohttp import web

from batchbell.sandbox import mischief
from batchbell.sandbox.answers import ApiError
from batchbell.sandbox.batch_jobs import ERROR, OUTPUT, UPLOADED, BatchJobs, MistralJob
from batchbell.sandbox.faults import CONTENT, FaultKind
from batchbell.sandbox.files import StoredFile
from batchbell.sandbox.forms import parts_of
from batchbell.sandbox.gate import PROVIDER, Handler, guard, json_object, page_fault, sent

PREFIX = "/mistral"
"""Mistral's API is below it, because its files have the paths of OpenAI's."""
ROUTE = "mistral."
SIZE_MAX = 1_000
OF_FILES = CONTENT - {FaultKind.REDIRECT}
JOBS = web.AppKey("batch_jobs", BatchJobs)
SIGNED = "signed"
FILTERS = frozenset({"page", "page_size", "status", "order_by", "created_by_me"})


def mistral_app(jobs: BatchJobs) -> web.Application:
    """What is below PREFIX, as an aiohttp application."""
    app = web.Application(
        middlewares=[_in_mistral_shape, guard(_check_key, before=ROUTE)], client_max_size=2**30
    )
    app[PROVIDER] = app[JOBS] = jobs
    app.add_routes(
        [
            web.post("/v1/files", _upload, name=f"{ROUTE}upload"),
            web.get("/v1/files", _files, name=f"{ROUTE}files"),
            web.get("/v1/files/{id}", _file, name=f"{ROUTE}file"),
            web.delete("/v1/files/{id}", _delete_file, name=f"{ROUTE}delete_file"),
            web.get("/v1/files/{id}/content", _content, name=f"{ROUTE}content"),
            web.get("/v1/files/{id}/url", _url),
            web.get(f"/{SIGNED}/{{id}}", _signed),
            web.post("/v1/batch/jobs", _create, name=f"{ROUTE}create"),
            web.get("/v1/batch/jobs", _list, name=f"{ROUTE}list"),
            web.get("/v1/batch/jobs/{id}", _retrieve, name=f"{ROUTE}retrieve"),
            web.post("/v1/batch/jobs/{id}/cancel", _cancel, name=f"{ROUTE}cancel"),
            web.delete("/v1/batch/jobs/{id}", _delete),
        ]
    )
    return app


@web.middleware
async def _in_mistral_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return _error(error)
    except web.HTTPException as error:
        return web.json_response({"detail": error.reason}, status=error.status)


def _error(error: ApiError) -> web.Response:
    body: dict[str, Any]
    if error.status == 422:
        place, _, text = error.message.rpartition(": ")
        where = place.split(".") if place else ["path", error.param]
        body = {"detail": [{"type": error.code or "value_error", "loc": where, "msg": text}]}
    elif error.status == 401:
        body = {"detail": "Unauthorized"}
    else:
        body = {
            "object": "error",
            "message": error.message,
            "type": "rate_limited" if error.status == 429 else error.type,
            "param": None,
            "code": error.code,
        }
    return web.json_response(body, status=error.status, headers=error.headers)


def _check_key(request: web.Request, wanted: str | None) -> None:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key or (wanted is not None and key != wanted):
        raise ApiError(401, "Unauthorized")


# Batches ---------------------------------------------------------------------------------


async def _create(request: web.Request) -> web.Response:
    return web.json_response(request.app[JOBS].create(await json_object(request)))


async def _list(request: web.Request) -> web.Response:
    jobs, query = request.app[JOBS], request.query
    number, size = _whole(query, "page", 0), _whole(query, "page_size", 100)
    fault = page_fault(jobs)
    loops = fault is not None and fault.kind is FaultKind.LOOP
    rows, total = jobs.numbered_page(
        0 if loops else number,
        min(size, SIZE_MAX),
        statuses=query.getall("status", ()),
        fits=_filter(request),
        newest_first=query.get("order_by", "-created") != "created",
        skip=fault.rows if fault is not None and not loops else 0,
    )
    shown = jobs.faults.spoil(rows, route="list")
    total = (number + 2) * size if loops else total
    return web.json_response({"object": "list", "data": shown, "total": total})


def _whole(query: Any, name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not text.isdigit():
        raise ApiError(422, f"query.{name}: Input should be a valid integer")
    return int(text)


def _filter(request: web.Request) -> Callable[[MistralJob], bool]:
    """By model, by the time of creation, and by metadata: pairs that have no other meaning."""
    query = request.query
    model, after = query.get("model"), query.get("created_after")
    since = datetime.fromisoformat(after).timestamp() if after else 0.0
    named = {"model", "agent_id", "created_after"} | FILTERS
    pairs = {name: value for name, value in query.items() if name not in named}

    def fits(job: MistralJob) -> bool:
        has = job.metadata or {}
        return (
            (model is None or job.model == model)
            and job.created_at >= since
            and all(has.get(name) == value for name, value in pairs.items())
        )

    return fits


async def _retrieve(request: web.Request) -> web.Response:
    jobs, batch_id = request.app[JOBS], request.match_info["id"]
    inline = request.query.get("inline", "").lower() == "true"
    rows = jobs.faults.spoil([jobs.job(batch_id, inline=inline)], route="retrieve")
    if not rows:
        raise ApiError(404, f"Job {batch_id} not found.")
    return web.json_response(rows[0])


async def _cancel(request: web.Request) -> web.Response:
    return web.json_response(request.app[JOBS].cancel(request.match_info["id"]))


async def _delete(request: web.Request) -> web.Response:
    jobs = request.app[JOBS]
    _check_key(request, jobs.api_key)
    return web.json_response(jobs.delete(request.match_info["id"]))


# Files -----------------------------------------------------------------------------------


async def _upload(request: web.Request) -> web.Response:
    filename, content, fields = await parts_of(request)
    if content is None:
        raise ApiError(422, "body.file: Field required")
    jobs = request.app[JOBS]
    made = jobs.upload(content, filename=filename, purpose=fields.get("purpose") or "fine-tune")
    return web.json_response(_shown(jobs.file(made["id"])))


async def _files(request: web.Request) -> web.Response:
    query = request.query
    shown = [_shown(file) for file in request.app[JOBS].files()]
    for name in ("purpose", "sample_type", "source"):
        wanted = query.getall(name, ())
        shown = [row for row in shown if not wanted or row[name] in wanted]
    shown = [row for row in shown if query.get("search", "") in row["filename"]]
    number, size = _whole(query, "page", 0), _whole(query, "page_size", 100)
    rows = shown[number * size : (number + 1) * size]
    return web.json_response({"object": "list", "data": rows, "total": len(shown)})


async def _file(request: web.Request) -> web.Response:
    file = request.app[JOBS].file(request.match_info["id"])
    return web.json_response({**_shown(file), "deleted": False})


async def _delete_file(request: web.Request) -> web.Response:
    jobs, file_id = request.app[JOBS], request.match_info["id"]
    jobs.file(file_id)
    return web.json_response(jobs.delete_file(file_id))


async def _content(request: web.Request) -> web.StreamResponse:
    jobs = request.app[JOBS]
    file = jobs.file(request.match_info["id"])
    headers = {"Content-Type": "application/octet-stream", "ETag": f'"{file.id}"'}
    fault = jobs.faults.take(OF_FILES, route="content", batch_id=file.id)
    if fault is not None:
        return await mischief.spoiled_content(fault, request, file.content, headers)
    return await sent(request, file.content, headers)


async def _url(request: web.Request) -> web.Response:
    """An address that needs no key, because nobody guesses it."""
    jobs = request.app[JOBS]
    _check_key(request, jobs.api_key)
    file = jobs.file(request.match_info["id"])
    return web.json_response({"url": f"{request.url.origin()}{PREFIX}/{SIGNED}/{file.id}"})


async def _signed(request: web.Request) -> web.StreamResponse:
    return web.Response(body=request.app[JOBS].file(request.match_info["id"]).content)


def _shown(file: StoredFile) -> dict[str, Any]:
    made = next((kind for kind in (OUTPUT, ERROR) if f"_{kind}." in file.filename), None)
    return {
        "id": file.id,
        "object": "file",
        "bytes": len(file.content),
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": "batch" if made else file.purpose,
        "sample_type": made or UPLOADED,
        "source": "mistral" if made else "upload",
        "num_lines": len(file.content.splitlines()),
        "mimetype": "application/jsonl",
        "signature": None,
        "expires_at": None,
        "visibility": None,
    }
