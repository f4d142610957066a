"""The first and last to touch a request: access, one log line, and an answer for every failure."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import msgspec
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchbell.core.errors import BatchbellError, InvalidRequest, StoreUnavailable, is_full
from batchbell.web.auth import Gate
from batchbell.web.dashboard.failure import page_of
from batchbell.web.errors import response_to
from batchbell.web.gateway.natives import error_at

QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Probes and scrapes come every few seconds for ever: they are logged at `debug`."""

CLIENT_LEFT = 499
"""Logged where the caller went away before the request was whole: nobody hears an answer."""

REQUEST_ID = b"x-request-id"
PROVIDER_REQUEST_ID = b"bb-provider-request-id"
"""Where a provider has given the call an id of its own, it is here."""
TAKEN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
"""What a caller may call a request; anything else is given a new id."""
ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
)
"""Headers of every answer that does not set them itself: none of it is a page, but `/docs`."""
OF_PROVIDER = b"bb-account"
FULL_LOGGED_SECONDS = 60.0
NAMES_KEPT_MAX = 1000
"""Sets of headers of which is kept what they leave out."""

Header = tuple[bytes, bytes]

log = structlog.get_logger()


class Front:
    """What every request passes, whatever takes it then."""

    def __init__(self, *, gate: Gate, new_id: Callable[[], str]) -> None:
        self.gate = gate
        self._new_id = new_id
        self._full_at = float("-inf")

    def before(self, app: ASGIApp) -> ASGIApp:
        """ASGI middleware around everything."""

        async def passed(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            await self.passage(scope).run(app, receive, send)

        return passed

    def passage(self, scope: Scope) -> Passage:
        """That of a request which begins now."""
        request_id = given_id(scope["headers"]) or self._new_id()
        return Passage(self, self.gate, scope, request_id)

    def note_full(self, error: Exception) -> None:
        """Say that the disk is full, now and then: every request may meet it."""
        if time.monotonic() - self._full_at < FULL_LOGGED_SECONDS:
            return
        self._full_at = time.monotonic()
        log.error("storage.full", error=str(error), advice="Make room on the disk.")


class Passage:
    """One request on its way in and out."""

    def __init__(self, front: Front, gate: Gate, scope: Scope, request_id: str) -> None:
        self._front = front
        self._gate = gate
        self._scope = scope
        self._request_id = request_id
        self._provider_request_id: str | None = None
        self._status = 0
        self._begun = time.perf_counter()

    async def run(self, app: ASGIApp, receive: Receive, send: Send) -> None:
        write = error_at(self._scope["path"])
        pass_on = send if write is None else Shaped(write, send)

        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
                message = {**message, "headers": self._dressed(message.get("headers", ()))}
            await pass_on(message)

        failure: Exception | None = None
        try:
            await self._enter(app, receive, note_status)
        except ClientDisconnect:
            self._status = self._status or CLIENT_LEFT
        except Exception as error:
            failure = error
            if self._status:  # too late to answer anything else
                raise
            answer = page_of(error, self._scope) or response_to(error)
            await answer(self._scope, receive, note_status)
        finally:
            self._log(failure)

    def answered(
        self, status: int, headers: Iterable[Header], failure: Exception | None
    ) -> list[Header]:
        """The headers of an answer that is sent whole, at once; it is logged by now."""
        self._status = status
        self._log(failure)
        return self._dressed(headers)

    async def _enter(self, app: ASGIApp, receive: Receive, send: Send) -> None:
        refuse_nul(self._scope)
        project_id = await self._gate.project_of(self._scope)
        self._scope.setdefault("state", {})["project_id"] = project_id
        await app(self._scope, receive, send)

    def _dressed(self, headers: Iterable[Header]) -> list[Header]:
        """An answer's headers with those that every answer has."""
        kept = [(name.lower(), value) for name, value in headers]
        theirs = [value for name, value in kept if name == REQUEST_ID]
        if theirs:
            self._provider_request_id = theirs[0].decode("latin-1")
            kept = [one for one in kept if one[0] != REQUEST_ID]
            kept.append((PROVIDER_REQUEST_ID, theirs[0]))
        left_out = _left_out(tuple([name for name, _ in kept]))
        return [*kept, *left_out, (REQUEST_ID, self._request_id.encode())]

    def _log(self, failure: Exception | None) -> None:
        route = getattr(self._scope.get("route"), "path_format", None)
        line: dict[str, Any] = {
            "method": self._scope["method"],
            "route": route,
            "status": self._status,
            "ms": round((time.perf_counter() - self._begun) * 1000, 1),
            "request_id": self._request_id,
        }
        if self._provider_request_id is not None:
            line["provider_request_id"] = self._provider_request_id
        if is_full(failure):
            assert failure is not None
            self._front.note_full(failure)
            log.warning("http.request", **line, error="The disk is full.")
            return
        if isinstance(failure, StoreUnavailable):
            log.warning("http.request", **line, error=str(failure))
        elif failure is not None and not isinstance(failure, BatchbellError):
            log.error("http.request", **line, exc_info=failure)
        elif route in QUIET:
            log.debug("http.request", **line)
        else:
            log.info("http.request", **line)


@lru_cache(NAMES_KEPT_MAX)
def _left_out(names: tuple[bytes, ...]) -> tuple[Header, ...]:
    """Of the headers of every answer, those that one with headers of these names has not."""
    left_out = tuple(one for one in ALWAYS if one[0] not in names)
    if {b"cache-control", b"etag", OF_PROVIDER}.isdisjoint(names):
        left_out += ((b"cache-control", b"no-store"),)
    return left_out


class Shaped:
    """Sends errors of ours as the SDK that called expects them, and all else as it is."""

    def __init__(self, write: Callable[[int, str, str], bytes], send: Send) -> None:
        self._write = write
        self._send = send
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if self._is_ours(message):
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            await self._end(self._start, message)

    @staticmethod
    def _is_ours(message: Message) -> bool:
        starts = message["type"] == "http.response.start" and message["status"] >= 400
        return starts and OF_PROVIDER not in {name for name, _ in message["headers"]}

    async def _end(self, start: Message, message: Message) -> None:
        """Errors of ours come whole."""
        error = msgspec.json.decode(message["body"])["error"]
        where = f"{error['param']}: " if error.get("param") else ""
        body = self._write(start["status"], str(error["code"]), where + error["message"])
        kept = [one for one in start["headers"] if one[0] != b"content-length"]
        kept.append((b"content-length", str(len(body)).encode()))
        await self._send({**start, "headers": kept})
        await self._send({**message, "body": body})
        self._start = None


def given_id(headers: Iterable[Header]) -> str | None:
    """The id that a caller has given its request, if it is one that can be shown and logged."""
    given = [value.decode("latin-1") for name, value in headers if name == REQUEST_ID]
    return given[0] if len(given) == 1 and TAKEN_ID.fullmatch(given[0]) else None


def refuse_nul(scope: Scope) -> None:
    """PostgreSQL stores no NUL character, and no id, filter or cursor of ours holds one."""
    if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
        raise InvalidRequest("The URL holds a NUL character.")
