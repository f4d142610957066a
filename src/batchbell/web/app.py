"""The application: `create_app` puts the routes, the gate and the errors together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from batchbell import __version__
from batchbell.web.api import (
    access,
    accounts,
    awaiter,
    batches,
    deliveries,
    endpoints,
    events,
    files,
    health,
    projects,
    replays,
    results,
    stream,
    submissions,
    watches,
)
from batchbell.web.auth import Gate, Keyring
from batchbell.web.calling import Surface
from batchbell.web.condition import Condition
from batchbell.web.context import Context
from batchbell.web.creating import Adopter
from batchbell.web.directory import Directory
from batchbell.web.faults import Code, InvalidBody, Problem, error_response, response_to
from batchbell.web.front import Front
from batchbell.web.registering import Registrar
from batchbell.web.streaming import Streams
from batchbell.web.tables import Tables

ROUTERS = tuple(
    module.router
    for module in (
        awaiter,
        watches,
        batches,
        files,
        events,
        stream,
        deliveries,
        endpoints,
        replays,
        accounts,
        results,
        submissions,
        access,
        projects,
        health,
    )
)
DESCRIPTION = (
    "Watches batch jobs and calls your webhook, signed and retried, the moment they end. Errors"
    " and pages come in OpenAI's shapes."
)


def create_app(context: Context) -> FastAPI:
    """The HTTP surface over these parts. Make it inside the event loop that will serve it."""
    app = FastAPI(
        title="Batchbell",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    keyring = Keyring(context.store, context.clock)
    app.state.surface = Surface(
        context,
        keyring,
        Registrar(context),
        Directory(context),
        Adopter(context),
        Condition(context),
        Streams(context.store),
        Tables(context),
    )
    # Not `include_router`: it would analyse every route anew for each application.
    app.router.routes.extend(route for router in ROUTERS for route in router.routes)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _bad_parameter)
    app.add_middleware(Front, gate=Gate(keyring))
    return app


def end_streams(app: FastAPI) -> None:
    """Let streams that are open end: call it when the server begins to stop."""
    surface: Surface = app.state.surface
    surface.streams.end()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    if error.status_code == 405:
        allow = {"Allow": ", ".join(allowed_methods(request.scope))}
        message = f"{method} is not possible here; {allow['Allow']} is."
        return error_response(405, message, code=Code.METHOD_NOT_ALLOWED, headers=allow)
    if error.status_code == 404:
        message = f"There is nothing at {method} {path[:200]}; /docs lists what there is."
        return error_response(404, message, code=Code.UNKNOWN_URL)
    return error_response(error.status_code, str(error.detail), code=Code.INVALID_VALUE)


def allowed_methods(scope: Mapping[str, Any]) -> list[str]:
    """What may be done at this path: each method has a route of its own."""
    fitting = (
        route
        for router in ROUTERS
        for route in router.routes
        if route.matches(dict(scope))[0] is not Match.NONE
    )
    return sorted({method for route in fitting for method in getattr(route, "methods", ())})


async def _bad_parameter(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return response_to(InvalidBody(_problems(error.errors())))


def _problems(found: Sequence[Any]) -> list[Problem]:
    names = [str(one["loc"][-1]) for one in found]
    return [
        Problem(message=f"{name}: {one['msg']}.", param=name)
        for name, one in zip(names, found, strict=True)
    ]
