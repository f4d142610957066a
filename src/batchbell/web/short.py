"""Short ways to the routes that programs call again and again.

Such a route is declared like any other, and goes through the same front, checks and handler. What
is left out is the machinery in between, which took longer than all of them together:

- `Lean` is the route without the routing.
- `Direct` answers what most programs send, plain bodies, without a task or a message for each
  request: from the bytes of a body to the bytes of an answer. It takes a request only where
  nothing but the write is to be waited for, and nothing is wrong. Whatever it does not take goes
  the other way, so it has no words of its own for what is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from batchbell.core.errors import InvalidRequest, StoreUnavailable
from batchbell.storage.watches import Registered, Registration
from batchbell.web.bodies import check_plain
from batchbell.web.call import Surface, encoded
from batchbell.web.errors import response_to
from batchbell.web.middleware import Front, Header, Passage
from batchbell.web.parameters import check_parameters
from batchbell.web.watches import PlainForm, WatchForm

Reply = Callable[[int, list[Header], bytes], None]
"""Sends an answer: its status, headers and body."""

JSON = (b"content-type", b"application/json")


class Lean:
    """A route whose handler takes the request, and nothing else, as an ASGI application."""

    def __init__(self, app: FastAPI, route: APIRoute) -> None:
        self._app = app
        self._route = route
        self._handler: Callable[[Request], Awaitable[Response]] = route.endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"], scope["route"] = self._app, self._route
        request = Request(scope, receive, send)
        await check_parameters(request)
        response = await self._handler(request)
        await response(scope, receive, send)


class Direct:
    """A route that registers one batch, for bodies that are plain."""

    def __init__(self, front: Front, surface: Surface, route: APIRoute, form: PlainForm) -> None:
        self._front = front
        self._surface = surface
        self._route = route
        self._form = form
        self._again: set[asyncio.Future[Registered]] = set()

    def begin(self, scope: Scope, body: bytes, reply: Reply) -> bool:
        """Take a POST request without a query; False where it must go the other way.

        Where it is taken, `reply` is called once, later.
        """
        surface = self._surface
        project_id = self._front.gate.project_at_hand(scope)
        if project_id is None:
            return False
        accounts = surface.directory.at_hand(project_id)
        if accounts is None:
            return False
        try:
            check_plain(scope["headers"])
        except InvalidRequest:
            return False
        form = WatchForm(surface.context.rules(), accounts)
        plain = form.plain(self._form.decoder, body, dialect=self._form.dialect)
        if plain is None:
            return False
        scope["route"] = self._route
        waiting = _Waiting(self, self._front.passage(scope), project_id, plain[0], reply)
        surface.registrar.put(project_id, plain[0]).add_done_callback(waiting.written)
        return True

    def register_alone(self, project_id: str, wanted: Registration) -> asyncio.Future[Registered]:
        """Register it in a transaction of its own."""
        task = asyncio.ensure_future(self._surface.registrar.alone(project_id, wanted))
        self._again.add(task)
        task.add_done_callback(self._again.discard)
        return task

    def shown(self, registered: Registered) -> bytes:
        """The body that answers it."""
        return encoded(self._form.shown(registered))


class _Waiting:
    """A request whose registration is being written."""

    def __init__(
        self,
        direct: Direct,
        passage: Passage,
        project_id: str,
        wanted: Registration,
        reply: Reply,
    ) -> None:
        self._direct = direct
        self._passage = passage
        self._project_id = project_id
        self._wanted = wanted
        self._reply = reply

    def written(self, registered: asyncio.Future[Registered]) -> None:
        """Answer; what another in the same transaction has spoilt is tried again alone."""
        failure = _failure_of(registered)
        if isinstance(failure, InvalidRequest):
            alone = self._direct.register_alone(self._project_id, self._wanted)
            alone.add_done_callback(self.written_alone)
        else:
            self._answer(registered, failure)

    def written_alone(self, registered: asyncio.Future[Registered]) -> None:
        self._answer(registered, _failure_of(registered))

    def _answer(self, registered: asyncio.Future[Registered], failure: Exception | None) -> None:
        if failure is None:
            body = self._direct.shown(registered.result())
            self._send(201, [(b"content-length", b"%d" % len(body)), JSON], body)
        else:
            response = response_to(failure)
            self._send(response.status_code, response.raw_headers, bytes(response.body), failure)

    def _send(
        self, status: int, headers: list[Header], body: bytes, failure: Exception | None = None
    ) -> None:
        self._reply(status, self._passage.answered(status, headers, failure), body)


def _failure_of(future: asyncio.Future[Registered]) -> Exception | None:
    """Why it failed. Where it was cancelled the server has stopped."""
    if future.cancelled():
        return StoreUnavailable("The server has stopped.")
    error = future.exception()
    assert error is None or isinstance(error, Exception)
    return error
