"""What probes and scrapes ask, and where to read on."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from batchbell import __version__
from batchbell.web import reference, shapes
from batchbell.web.calling import Caller, Operator, answer
from batchbell.web.contract import document, json_content, open_answers, text_answers
from batchbell.web.parameters import strict_router

router = strict_router("operation")

NOT_READY: dict[int, Any] = {
    503: {"description": "Not now; `reasons` says why.", "content": json_content(shapes.Readiness)}
}


@router.get("/", summary="What this is", **open_answers(shapes.Index))
async def index() -> Response:
    return answer(shapes.Index(version=__version__, docs="/docs", openapi="/openapi.json"))


@router.get("/healthz", summary="Whether the process lives", **open_answers(shapes.Health))
async def healthz() -> Response:
    return answer(shapes.Health())


@router.get(
    "/readyz",
    summary="Whether the database answers, its schema is current, and the workers live",
    **open_answers(shapes.Readiness, NOT_READY),
)
async def readyz(call: Caller) -> Response:
    found = await call.surface.condition.readiness()
    told = shapes.Readiness(
        status="not_ready" if found.reasons else "ready",
        reasons=found.reasons,
        warnings=found.warnings,
    )
    return answer(told, 503 if found.reasons else 200)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus, of all projects: for keys of `default` only",
    **text_answers("text/plain", 404),
)
async def metrics(call: Operator) -> Response:
    await call.surface.condition.refresh_gauges()
    text = generate_latest(call.context.metrics.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    return reference.page()


@router.get("/docs/{name}", include_in_schema=False)
def docs_asset(name: str) -> Response:
    return reference.asset(name)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    return JSONResponse(document(request.app))
