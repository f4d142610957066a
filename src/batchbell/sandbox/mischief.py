"""Answers that are none: how each fault looks on the wire."""

from __future__ import annotations

import asyncio
import socket
import struct

from aiohttp import web

from batchbell.sandbox.answers import ApiError, bad_key
from batchbell.sandbox.faults import SPOILED_ANSWER, Fault, FaultKind

__all__ = ["SHIFT", "SPOILED_ANSWER", "close", "instead", "reset", "spoiled"]

SHIFT = frozenset({FaultKind.SHIFT})
HTML = """<!DOCTYPE html><html><head><title>Bad gateway</title></head>
<body><h1>Bad gateway</h1><p>The web server is returning an unknown error.</p></body></html>"""
LINGER_NOT = struct.pack("ii", 1, 0)


def reset(transport: asyncio.WriteTransport | None) -> None:
    """Close a connection so that the peer sees a reset, not an orderly end."""
    if transport is None:
        return
    peer: socket.socket | None = transport.get_extra_info("socket")
    if peer is not None and peer.fileno() >= 0:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    transport.abort()


def close(request: web.Request) -> None:
    """Send what was written, then close the connection, whatever was promised."""
    if request.transport is not None:
        request.transport.close()


def instead(fault: Fault, request: web.Request) -> web.Response:
    """What goes out in place of the right answer."""
    match fault.kind:
        case FaultKind.RATE_LIMITED:
            raise _rate_limited(fault.retry_after_seconds)
        case FaultKind.UNAUTHORIZED:
            raise bad_key("sk-revoked-key")
        case FaultKind.HTML:
            return web.Response(text=HTML, status=fault.status, content_type="text/html")
        case FaultKind.RESET:
            reset(request.transport)
            return web.Response()
        case _:
            text = fault.message or (
                "The server had an error while processing your request. Sorry about that!"
            )
            code = fault.code if fault.message else "server_error"
            type_ = "server_error" if fault.status >= 500 else "invalid_request_error"
            raise ApiError(fault.status, text, type_=type_, code=code)


def _rate_limited(retry_after_seconds: float | None) -> ApiError:
    headers = {}
    if retry_after_seconds is not None:
        headers["Retry-After"] = f"{retry_after_seconds:g}"
    return ApiError(
        429,
        "Rate limit reached for batch requests. Please try again later.",
        type_="requests",
        code="rate_limit_exceeded",
        headers=headers,
    )


async def spoiled(
    fault: Fault, request: web.Request, response: web.StreamResponse
) -> web.StreamResponse:
    """The right answer, of which half arrives."""
    if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
        return response
    whole = response.body
    half = whole[: len(whole) // 2]
    if fault.kind is FaultKind.TRUNCATED:
        response.body = half
        return response
    cut = web.StreamResponse(status=response.status)
    cut.content_type = response.content_type
    cut.content_length = len(whole)
    await cut.prepare(request)
    await cut.write(half)
    close(request)
    return cut
