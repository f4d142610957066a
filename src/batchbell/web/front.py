"""The first and last to touch a request: access, one log line, and an answer for every failure."""

from __future__ import annotations

import time
from typing import Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchbell.core.errors import BatchbellError, InvalidRequest, StoreUnavailable
from batchbell.web.auth import Gate
from batchbell.web.faults import response_to

QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Probes and scrapes come every few seconds for ever: they are logged at `debug`."""

CLIENT_LEFT = 499
"""Logged where the caller went away before the request was whole: nobody hears an answer."""

log = structlog.get_logger()


class Front:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, *, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await _Passage(self._app, self._gate, scope).run(receive, send)


class _Passage:
    """One request on its way in and out."""

    def __init__(self, app: ASGIApp, gate: Gate, scope: Scope) -> None:
        self._app = app
        self._gate = gate
        self._scope = scope
        self._status = 0
        self._begun = time.perf_counter()

    async def run(self, receive: Receive, send: Send) -> None:
        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
            await send(message)

        failure: Exception | None = None
        try:
            await self._enter(receive, note_status)
        except ClientDisconnect:
            self._status = self._status or CLIENT_LEFT
        except Exception as error:
            failure = error
            if self._status:  # too late to answer anything else
                raise
            await response_to(error)(self._scope, receive, note_status)
        finally:
            self._log(failure)

    async def _enter(self, receive: Receive, send: Send) -> None:
        refuse_nul(self._scope)
        project_id = await self._gate.project_of(self._scope)
        self._scope.setdefault("state", {})["project_id"] = project_id
        await self._app(self._scope, receive, send)

    def _log(self, failure: Exception | None) -> None:
        route = getattr(self._scope.get("route"), "path_format", None)
        line: dict[str, Any] = {
            "method": self._scope["method"],
            "route": route,
            "status": self._status,
            "ms": round((time.perf_counter() - self._begun) * 1000, 1),
        }
        if isinstance(failure, StoreUnavailable):
            log.warning("http.request", **line, error=str(failure))
        elif failure is not None and not isinstance(failure, BatchbellError):
            log.error("http.request", **line, exc_info=failure)
        elif route in QUIET:
            log.debug("http.request", **line)
        else:
            log.info("http.request", **line)


def refuse_nul(scope: Scope) -> None:
    """PostgreSQL stores no NUL character, and no id, filter or cursor of ours holds one."""
    if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
        raise InvalidRequest("The URL holds a NUL character.")
