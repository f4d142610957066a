"""The application: `create_app` puts the routes, the gate and the errors together."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from batchbell import __version__
from batchbell.web import (
    accounts,
    batches,
    deliveries,
    endpoints,
    events,
    health,
    hooks,
    keys,
    projects,
    replays,
    results,
    stream,
    submissions,
    timeline,
    watches,
)
from batchbell.web.accounts import Directory
from batchbell.web.auth import Gate, Keyring, is_page
from batchbell.web.call import Context, Surface
from batchbell.web.dashboard import pages as dashboard
from batchbell.web.dashboard.failure import page_in_place_of
from batchbell.web.dashboard.live import Looks
from batchbell.web.dashboard.overview import Glance
from batchbell.web.dashboard.preview import Previews
from batchbell.web.downloads import Tables
from batchbell.web.errors import Code, InvalidBody, error_response, response_to
from batchbell.web.gateway import files, native
from batchbell.web.gateway.creations import Adopter
from batchbell.web.health import Condition
from batchbell.web.hooks import Hooks
from batchbell.web.middleware import Front
from batchbell.web.parameters import value_problems
from batchbell.web.short import Direct, Lean
from batchbell.web.stream import Streams
from batchbell.web.watches import Registrar

ROUTERS = tuple(
    module.router
    for module in (
        watches,
        batches,
        timeline,
        files,
        native,
        events,
        stream,
        deliveries,
        endpoints,
        replays,
        accounts,
        results,
        submissions,
        hooks,
        keys,
        projects,
        health,
    )
)
DESCRIPTION = (
    "Watches batch jobs and calls your webhook, signed and retried, the moment they end. Errors"
    " and pages come in OpenAI's shapes."
)


def create_app(context: Context) -> App:
    """The HTTP surface over these parts. Make it inside the event loop that will serve it."""
    app = App(
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
        Streams(context.store, channel=None),
        Looks(),
        Glance(context),
        Previews(context.results_store),
        Hooks(context),
    )
    # Not `include_router`: it would analyse every route anew for each application.
    every = (*ROUTERS, *dashboard.ROUTERS)
    app.router.routes.extend(route for router in every for route in router.routes)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _bad_parameter)
    front = Front(gate=Gate(keyring), new_id=lambda: f"req_{os.urandom(16).hex()}")
    app.add_middleware(front.before)
    short = [
        route
        for route in watches.router.routes
        if isinstance(route, APIRoute) and route.endpoint in watches.SHORT
    ]
    app.short = {route.path: front.before(Lean(app, route)) for route in short}
    app.direct = {
        route.path.encode(): Direct(front, app.state.surface, route, watches.SHORT[route.endpoint])
        for route in short
    }
    return app


class App(FastAPI):
    """The application, with short ways to the routes that programs call again and again."""

    short: Mapping[str, ASGIApp] = {}
    """By path, what takes its POST requests."""
    direct: Mapping[bytes, Direct] = {}
    """By path, what a `Connection` may ask first."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            short = self.short.get(scope["path"])
            if short is not None:
                await short(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def end_streams(app: FastAPI) -> None:
    """Let streams that are open end: call it when the server begins to stop."""
    surface: Surface = app.state.surface
    surface.streams.end()
    surface.screens.end()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    if is_page(path):
        status = error.status_code
        gone = error_response(status, "There is no such page.", code=Code.UNKNOWN_URL)
        return page_in_place_of(gone, request.scope)
    if error.status_code == 405:
        allow = {"Allow": ", ".join(allowed_methods(request.scope))}
        message = f"{method} is not possible here; {allow['Allow']} is."
        return error_response(405, message, code=Code.METHOD_NOT_ALLOWED, headers=allow)
    if error.status_code == 404:
        message = f"There is nothing at {method} {path[:200]}. {_advice(path)}"
        return error_response(404, message, code=Code.UNKNOWN_URL)
    return error_response(error.status_code, str(error.detail), code=Code.INVALID_VALUE)


ELSEWHERE = re.compile(
    r"/v1/(chat|completions|responses|embeddings|models|images|audio|moderations|uploads|threads"
    r"|assistants|vector_stores|fine_tuning|realtime)(/.*)?"
)
"""Other paths of OpenAI's API, which its SDKs call under our address."""


def _advice(path: str) -> str:
    """Where a wrong path was probably meant to lead."""
    if ELSEWHERE.fullmatch(path):
        return "Batchbell passes on files and batches; send other calls to the provider itself."
    meant = nearest_path(path)
    return f"Did you mean {meant}? " * bool(meant) + "/docs lists what there is."


def nearest_path(path: str) -> str | None:
    """The path that was probably meant, with its ids; else the nearest one, with their names."""
    bare = re.sub(r"/+", "/", path[:200]).rstrip("/")
    for one in (bare, f"/v1{bare}", bare.removeprefix("/v1"), bare.removeprefix("/api")):
        if one and one != path and allowed_methods({"type": "http", "path": one, "method": "GET"}):
            return one
    known = {route.path_format for router in ROUTERS for route in router.routes}
    if path in known:
        return None  # it is there, but not for this caller
    tails = {one.removeprefix("/v1").strip("/"): one for one in sorted(known)}
    tail = bare.removeprefix("/v1").strip("/")
    found = difflib.get_close_matches(tail, tails, n=1, cutoff=0.65)
    return tails[found[0]] if found else None


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
    return response_to(InvalidBody(value_problems(error.errors())))
