"""Passing on what a caller sends, and sending what comes back, until one of them leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from batchbell.core.errors import ProviderUnavailable
from batchbell.net.headers import Header
from batchbell.net.relay import Reply

T = TypeVar("T")

log = structlog.get_logger("batchbell.gateway")


class Inbound:
    """A caller's body, and the moment when the caller leaves."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._taken = asyncio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ClientDisconnect."""
        async for chunk in self._request.stream():
            if chunk:
                yield chunk
        self._taken.set()

    def nothing(self) -> None:
        """The body is not wanted."""
        self._taken.set()

    async def unless_left(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, or cancel it and raise ClientDisconnect when the caller leaves."""
        doing = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._left())
        try:
            await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise ClientDisconnect
            return doing.result()
        finally:
            doing.cancel()
            leaving.cancel()
            await asyncio.gather(doing, leaving, return_exceptions=True)

    async def _left(self) -> None:
        await self._taken.wait()
        while (await self._request.receive())["type"] != "http.disconnect":
            pass


class Passed(StreamingResponse):
    """A provider's answer as it comes. The call to the provider ends with the caller's."""

    def __init__(self, reply: Reply, more: list[Header]) -> None:
        super().__init__(reply.chunks(), reply.status)
        self.raw_headers = [*reply.headers, *more]
        self._reply = reply

    async def stream_response(self, send: Send) -> None:
        """An answer that is cut off there is cut off here: nobody must take it for whole."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        try:
            async for chunk in self.body_iterator:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ProviderUnavailable as error:
            log.warning("an answer was cut off", error=error.message)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._reply.close()
