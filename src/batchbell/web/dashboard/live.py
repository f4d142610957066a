"""Live pages: a page is made anew while somebody looks, and sent where it has changed.

A stream asks as the browser that opened it would: who may look is judged anew each time. It rests
for much longer than a page takes to be made, so that many open dashboards leave the processor to
others.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from batchbell import __version__
from batchbell.core.errors import AccessDenied, BatchbellError, StoreUnavailable
from batchbell.web.auth import Gate
from batchbell.web.call import Surface
from batchbell.web.stream import Place

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
REST_SECONDS = 2.0
"""Between two looks at the database, at least."""
REST_SHARE = 5
"""And so many times what the last one took, for each page that somebody looks at: all of them
together leave most of the time to others."""
REST_MOST_SECONDS = 10.0
HEARTBEAT_SECONDS = 15.0
RETRY_MS = 1_000

Handle = Callable[[Request], Coroutine[Any, Any, Response]]


class Stream(Response):
    """One page from when it was opened until nobody looks any more, or may not."""

    def __init__(self, request: Request, handle: Handle) -> None:
        super().__init__()
        self._request = request
        self._handle = handle
        self._surface: Surface = request.app.state.surface
        self._gate = Gate(self._surface.keyring)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        screens, project_id = self._surface.screens, scope["state"]["project_id"]
        refusal = screens.refusal(project_id)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        with screens.joined(project_id) as place:
            frames = self._frames(place)
            response = StreamingResponse(frames, headers=HEADERS, media_type=MEDIA_TYPE)
            async with contextlib.aclosing(frames):
                await response(scope, receive, send)

    async def _frames(self, place: Place) -> AsyncGenerator[bytes]:
        yield b"retry: %d\n\n" % RETRY_MS + _frame("version", __version__)
        sent: bytes | None = None
        wrote_at = time.monotonic()
        while not place.ended:
            began = time.monotonic()
            try:
                page: bytes | None = await self._page()
            except StoreUnavailable:
                page = sent  # it is shown as it was until the database answers again
            except BatchbellError:
                yield _frame("over", "")
                return
            if page is not None and page != sent:
                yield _frame("page", page.decode())
                sent, wrote_at = page, time.monotonic()
            elif time.monotonic() - wrote_at >= HEARTBEAT_SECONDS:
                yield b": heartbeat\n\n"
                wrote_at = time.monotonic()
            share = REST_SHARE * self._surface.screens.number
            took = time.monotonic() - began
            await _rest(place, min(max(REST_SECONDS, share * took), REST_MOST_SECONDS))

    async def _page(self) -> bytes:
        """What is shown at this moment. Raises AccessDenied for who may not look any more."""
        scope = {**self._request.scope, "state": {**self._request.scope["state"], "live": True}}
        project_id = await self._gate.project_of(scope)
        if project_id != scope["state"]["project_id"]:
            raise AccessDenied("The key is of another project now.", code="invalid_api_key")
        response = await self._handle(Request(scope))
        return bytes(response.body)


async def _rest(place: Place, seconds: float) -> None:
    """However many events come: only the end of the stream ends it early."""
    until = time.monotonic() + seconds
    while not place.ended and (left := until - time.monotonic()) > 0:
        await place.signal.wait(left)


def _frame(event: str, text: str) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), json.dumps(text).encode())
