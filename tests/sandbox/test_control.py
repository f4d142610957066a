"""The provider can be steered from another process, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from batchbell.sandbox import Receiver, Sandbox, serve_receiver, serve_sandbox


async def call(
    http: aiohttp.ClientSession, sandbox: Sandbox, method: str, path: str, body: Any = None
) -> tuple[int, Any]:
    async with http.request(method, sandbox.url + path, json=body) as answer:
        return answer.status, await answer.json()


async def test_faults_are_added_listed_and_cleared(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    wish = {"kind": "status", "route": "list", "status": 503, "times": None}
    assert (await call(http, sandbox, "POST", "/sandbox/faults", wish))[0] == 201
    assert (await call(http, sandbox, "GET", "/v1/batches"))[0] == 503
    _, [fault] = await call(http, sandbox, "GET", "/sandbox/faults")
    assert (fault["kind"], fault["spent"]) == ("status", 1)
    assert await call(http, sandbox, "DELETE", "/sandbox/faults") == (200, [])
    assert (await call(http, sandbox, "GET", "/v1/batches"))[0] == 200


@pytest.mark.parametrize("wish", [{}, {"kind": "none"}, {"kind": "html", "nothing": 1}, []])
async def test_a_fault_that_makes_no_sense_answers_400(
    http: aiohttp.ClientSession, sandbox: Sandbox, wish: object
) -> None:
    assert (await call(http, sandbox, "POST", "/sandbox/faults", wish))[0] == 400


async def test_batches_are_added_finished_renamed_and_forgotten(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    wish = {"number": 3, "total": 7, "metadata": {"a": "b"}}
    _, answer = await call(http, sandbox, "POST", "/sandbox/batches", wish)
    one, two, three = (f"/sandbox/batches/{batch_id}" for batch_id in answer["ids"])
    _, ended = await call(http, sandbox, "POST", f"{one}/finish", {"failed": 2})
    assert (ended["status"], ended["request_counts"]["failed"]) == ("completed", 2)
    _, odd = await call(http, sandbox, "POST", f"{two}/status", {"word": "odd"})
    assert odd["status"] == "odd"
    assert await call(http, sandbox, "DELETE", three) == (200, {"deleted": True})
    assert (await call(http, sandbox, "POST", f"{three}/finish"))[0] == 404
    assert (await call(http, sandbox, "POST", f"{two}/finish", {"status": "nonsense"}))[0] == 400


async def test_calls_of_the_api_are_counted_and_steering_is_not(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    await call(http, sandbox, "GET", "/v1/batches")
    assert await call(http, sandbox, "GET", "/sandbox/calls") == (200, {"list": 1})


async def test_both_serve_until_they_are_cancelled() -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[Sandbox] = loop.create_future()
    listening: asyncio.Future[Receiver] = loop.create_future()
    arrived: asyncio.Future[bytes] = loop.create_future()
    serving = [
        asyncio.create_task(serve_sandbox(api_key="sk-x", on_ready=ready.set_result)),
        asyncio.create_task(
            serve_receiver(
                on_ready=listening.set_result,
                on_received=lambda received: arrived.set_result(received.body),
            )
        ),
    ]
    sandbox, receiver = await ready, await listening
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer sk-x"}) as http:
        assert (await call(http, sandbox, "GET", "/v1/batches"))[0] == 200
        async with http.post(receiver.url(), data=b"ring") as answer:
            assert answer.status == 200
    assert await arrived == b"ring"
    for task in serving:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_taken_port_is_an_error(sandbox: Sandbox) -> None:
    with pytest.raises(OSError, match="address already in use"):
        await serve_sandbox(port=sandbox.port)
