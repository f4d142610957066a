"""SIGKILL while the gateway makes a batch: it is found, and rings the URL it was made with."""

from __future__ import annotations

import json

import httpx2
import pytest
from tests.faults.conftest import SERVE, Town
from tests.workers.submitting import requests

from batchbell import failpoints


@pytest.mark.parametrize("place", [failpoints.AFTER_MADE])
async def test_killed_between_the_providers_answer_and_the_note(town: Town, place: str) -> None:
    provider = town.sandbox.provider
    text = b"".join(json.dumps(one).encode() + b"\n" for one in requests(1))
    file_id = provider.upload(text, filename="a.jsonl", purpose="batch")["id"]
    body = {
        "input_file_id": file_id,
        "endpoint": "/v1/responses",
        "completion_window": "24h",
        "metadata": {"webhook_url": town.receiver.url("/made")},
    }
    process = await town.start(SERVE, failpoint=place)
    async with httpx2.AsyncClient(base_url=town.url, timeout=60) as client:
        with pytest.raises(httpx2.TransportError):
            await client.post("/v1/batches", json=body)
        await process.killed()
        town.let_leases_run_out()
        await town.start()
        again = await client.post("/v1/batches", json=body)
        while again.status_code == 502 and again.headers["x-should-retry"] == "true":
            again = await client.post("/v1/batches", json=body)
    [row] = provider.page(limit=10)[0]
    assert (again.status_code, again.json()["id"]) == (200, row["id"])
    provider.finish(row["id"], "completed")
    [hook] = await town.receiver.wait_for(1, timeout=30)
    assert hook.path == "/made"
