"""Answers that are none: how each fault looks on the wire."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import struct

from aiohttp import web

from batchbell.sandbox.answers import ApiError, bad_key
from batchbell.sandbox.faults import SPOILED_ANSWER, Fault, FaultKind

__all__ = ["SPOILED_ANSWER", "close", "instead", "reset", "spoiled"]

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
            raise _rate_limited(fault)
        case FaultKind.UNAUTHORIZED:
            raise bad_key("sk-revoked-key")
        case FaultKind.HTML:
            return web.Response(
                text=HTML, status=fault.status, content_type="text/html", headers=fault.headers
            )
        case FaultKind.RESET:
            reset(request.transport)
            return web.Response()
        case FaultKind.BOMB:
            zeros = b"0," * (fault.rows - 1) + b"0"
            body = b'{"object":"list","data":[' + zeros + b'],"has_more":false}'
            return web.Response(body=body, content_type="application/json")
        case _:
            text = fault.message or (
                "The server had an error while processing your request. Sorry about that!"
            )
            code = fault.code if fault.message else "server_error"
            type_ = "server_error" if fault.status >= 500 else "invalid_request_error"
            raise ApiError(fault.status, text, type_=type_, code=code, headers=dict(fault.headers))


def _rate_limited(fault: Fault) -> ApiError:
    headers = {}
    if fault.retry_after_seconds is not None:
        headers["Retry-After"] = f"{fault.retry_after_seconds:g}"
    headers.update(fault.headers)
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


def part_of(request: web.Request, whole: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """The status and the bytes for a request that may ask for the rest of a file."""
    found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    if found is None or request.headers.get("If-Range", headers["ETag"]) != headers["ETag"]:
        return 200, whole
    start = int(found[1])
    if start >= len(whole):
        headers["Content-Range"] = f"bytes */{len(whole)}"
        return 416, b""
    headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
    return 206, whole[start:]


async def spoiled_content(
    fault: Fault, request: web.Request, whole: bytes, headers: dict[str, str]
) -> web.StreamResponse:
    """A file as it should not come."""
    match fault.kind:
        case FaultKind.EMPTY:
            return web.Response(body=b"", headers=headers)
        case FaultKind.ERROR_IN_PLACE:
            error = {"message": "The file is being written.", "type": "server_error", "code": None}
            return web.json_response({"error": error})
        case FaultKind.DUPLICATES:
            lines = whole.splitlines(keepends=True)
            body = b"".join(line + b"{ " + line[1:] for line in lines)
            return web.Response(body=body, headers=headers)
        case FaultKind.HALF_PACKED:
            packed = gzip.compress(whole)
            headers["Content-Encoding"] = "gzip"
            return web.Response(body=packed[: len(packed) // 2], headers=headers)
        case FaultKind.REDIRECT:
            # The same server by its other name: another host for whoever judges by it.
            other = "localhost" if request.url.host != "localhost" else "127.0.0.1"
            url = request.url.with_host(other).with_path(f"/storage/{request.match_info['id']}")
            return web.Response(
                status=302, headers={"Location": str(url.with_query({"X-Signature": "secret"}))}
            )
        case _:
            return await _slow_or_cut(fault, request, whole, headers)


async def _slow_or_cut(
    fault: Fault, request: web.Request, whole: bytes, headers: dict[str, str]
) -> web.StreamResponse:
    status, content = part_of(request, whole, headers)
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = len(content)
    await response.prepare(request)
    if fault.kind is FaultKind.DRIP:
        for place in range(len(content)):
            await response.write(content[place : place + 1])
            await asyncio.sleep(fault.seconds)
        return response
    await response.write(content[: fault.bytes])
    if len(content) > fault.bytes:
        close(request)
    return response
