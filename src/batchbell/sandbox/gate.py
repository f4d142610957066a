"""What each call of a fake API goes through, whatever the API: its errors, key and faults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from batchbell.sandbox import mischief
from batchbell.sandbox.answers import ApiError
from batchbell.sandbox.faults import INSTEAD, LATE, PAGES, ROUTES, Fault, FaultKind
from batchbell.sandbox.provider import SandboxProvider

CHUNK_BYTES = 65_536

PROVIDER = web.AppKey("provider", SandboxProvider)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def guard(check_key: Callable[[web.Request, str | None], None], *, before: str = "") -> Middleware:
    """Count, check the key, and let go wrong what is to go wrong.

    `check_key` raises ApiError for another key than the given one; None takes any. `before` is
    what names of routes begin with, before the word that faults know.
    """

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        route = (request.match_info.route.name or "").removeprefix(before)
        if request.match_info.route.name != f"{before}{route}" or route not in ROUTES:
            return await handler(request)
        provider = request.app[PROVIDER]
        provider.calls[route] += 1
        provider.log.append((request.method, request.path_qs))
        check_key(request, provider.api_key)
        batch_id = request.match_info.get("id")
        faults = provider.faults
        for late in faults.take_all(LATE, route=route, batch_id=batch_id):
            await (asyncio.sleep(late.seconds) if late.kind is FaultKind.SLOW else faults.hang())
        if fault := faults.take(INSTEAD, route=route, batch_id=batch_id):
            if fault.carried_out:
                await handler(request)
            return mischief.instead(fault, request)
        response = await handler(request)
        if fault := faults.take(mischief.SPOILED_ANSWER, route=route, batch_id=batch_id):
            return await mischief.spoiled(fault, request, response)
        return response

    return guarded


def page_fault(provider: SandboxProvider) -> Fault | None:
    """What is to go wrong with the page of a list; where it shifts, a new batch is there."""
    fault = provider.faults.take(PAGES, route="list", batch_id=None)
    if fault is not None and fault.kind is not FaultKind.LOOP:
        provider.add_batch()
    return fault


async def json_object(request: web.Request) -> dict[str, Any]:
    """The body of a request. Raises ApiError (400)."""
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(400, "The body of the request is not a JSON object.")
    return body


async def sent(request: web.Request, whole: bytes, headers: dict[str, str]) -> web.StreamResponse:
    """A file, or the part of it that is asked for."""
    status, content = mischief.part_of(request, whole, headers)
    if len(content) <= CHUNK_BYTES:
        return web.Response(body=content, headers=headers, status=status)
    response = web.StreamResponse(headers=headers, status=status)
    response.content_length = len(content)
    cut = _cut(request, len(content))
    await response.prepare(request)
    for start in range(0, cut, CHUNK_BYTES):
        await response.write(content[start : min(cut, start + CHUNK_BYTES)])
    if cut < len(content):
        mischief.close(request)
    else:
        await response.write_eof()
    return response


def _cut(request: web.Request, length: int) -> int:
    """Where a streamed body ends: a fault must strike before its first byte has gone out."""
    fault = request.app[PROVIDER].faults.take(
        mischief.SPOILED_ANSWER, route="content", batch_id=request.match_info["id"]
    )
    return length // 2 if fault else length
