"""`/sandbox`: what a test in another process may do to the provider. No key is asked for."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from batchbell.sandbox.answers import ApiError
from batchbell.sandbox.provider import SandboxProvider


class Control:
    """The provider's Python interface, over HTTP."""

    def __init__(self, provider: SandboxProvider) -> None:
        self._provider = provider

    async def add_fault(self, request: web.Request) -> web.Response:
        body = await _json(request)
        try:
            fault = self._provider.faults.add(body.pop("kind", ""), **body)
        except (TypeError, ValueError) as error:
            raise ApiError(400, str(error), param="kind") from None
        return web.json_response(fault.as_object(), status=201)

    async def list_faults(self, _request: web.Request) -> web.Response:
        return web.json_response([f.as_object() for f in self._provider.faults.waiting()])

    async def clear_faults(self, _request: web.Request) -> web.Response:
        self._provider.faults.clear()
        return web.json_response([])

    async def calls(self, _request: web.Request) -> web.Response:
        return web.json_response(dict(self._provider.calls))

    async def add_batches(self, request: web.Request) -> web.Response:
        body = await _json(request)
        ids = self._provider.add_batches(
            int(body.get("number", 1)),
            total=int(body.get("total", 10)),
            metadata=body.get("metadata"),
        )
        return web.json_response({"ids": ids}, status=201)

    async def finish(self, request: web.Request) -> web.Response:
        body = await _json(request)
        batch_id = request.match_info["id"]
        try:
            self._provider.finish(batch_id, **body)
        except (TypeError, ValueError) as error:
            raise ApiError(400, str(error)) from None
        return web.json_response(self._provider.retrieve(batch_id))

    async def set_status(self, request: web.Request) -> web.Response:
        body = await _json(request)
        batch_id = request.match_info["id"]
        try:
            self._provider.set_status(batch_id, **body)
        except TypeError as error:
            raise ApiError(400, str(error)) from None
        return web.json_response(self._provider.retrieve(batch_id))

    async def forget(self, request: web.Request) -> web.Response:
        self._provider.forget(request.match_info["id"])
        return web.json_response({"deleted": True})


def control_routes(provider: SandboxProvider, below: str = "/sandbox") -> list[web.RouteDef]:
    control = Control(provider)
    batch = f"{below}/batches/{{id}}"
    return [
        web.post(f"{below}/faults", control.add_fault),
        web.get(f"{below}/faults", control.list_faults),
        web.delete(f"{below}/faults", control.clear_faults),
        web.get(f"{below}/calls", control.calls),
        web.post(f"{below}/batches", control.add_batches),
        web.post(f"{batch}/finish", control.finish),
        web.post(f"{batch}/status", control.set_status),
        web.delete(batch, control.forget),
    ]


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json() if request.can_read_body else {}
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(400, "The body of the request is not a JSON object.")
    return body
