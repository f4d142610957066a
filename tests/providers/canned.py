"""A provider that answers with whatever a test hands it, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

BATCH: dict[str, Any] = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "model": "gpt-5-mini",
    "status": "completed",
    "input_file_id": "file-in",
    "output_file_id": "file-out",
    "error_file_id": None,
    "completion_window": "24h",
    "created_at": 1_700_000_000,
    "completed_at": 1_700_000_100,
    "request_counts": {"total": 3, "completed": 2, "failed": 1},
    "errors": None,
    "metadata": {"job": "nightly"},
    "usage": {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12},
}


def batch_json(**changes: Any) -> bytes:
    return json.dumps({**BATCH, **changes}).encode()


def list_json(*rows: Any, **changes: Any) -> bytes:
    last_id = rows[-1].get("id") if rows and isinstance(rows[-1], dict) else None
    page = {"object": "list", "data": list(rows), "has_more": False, "last_id": last_id}
    return json.dumps({**page, **changes}).encode()


@dataclass
class Canned:
    """Says the same to every request, and keeps what was asked."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    asked: list[web.Request] = field(default_factory=list)
    base_url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        return web.Response(body=self.body, status=self.status, headers=self.headers)


@asynccontextmanager
async def served(canned: Canned) -> AsyncIterator[Canned]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", canned.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    canned.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield canned
    finally:
        await runner.cleanup()
