"""Results that arrive as they should not: each ends whole, or as a failure that can be seen."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from batchbell.api.results import Results
from batchbell.client import AsyncBatchbell
from batchbell.sandbox import Receiver, Sandbox
from tests.acceptance.conftest import Shell

REQUESTS = 8
QUICK = """
from batchbell.core import results
results.FIRST_WAIT_SECONDS, results.LONGEST_WAIT_SECONDS, results.TRIES_MAX = 0.01, 0.05, 3
from batchbell.net import api, download, pace
api.ApiClient.__init__.__kwdefaults__["stall_seconds"] = 0.3
pace.Pace.__init__.__kwdefaults__["grace_seconds"] = 1.0
download.PAUSES_SECONDS = (0.0, 0.0, 0.0)
"""
FOR_EVER: dict[str, Any] = {"times": None}


@dataclass(frozen=True)
class Case:
    """What goes wrong with the output file of a batch, and what comes of it."""

    kind: str
    how: dict[str, Any] = field(default_factory=dict)
    tries: int = 1
    """How often the file is asked for at least before it is merged; 0 where it is given up."""
    surplus: int = 0


CASES = [
    Case("cut_at", {"bytes": 500, **FOR_EVER}),
    Case("cut_at", {"bytes": 1, "times": 40}),
    Case("drip", {"seconds": 0, **FOR_EVER}),
    Case("drip", {"seconds": 60}),
    Case("drip", {"seconds": 60, **FOR_EVER}, tries=0),
    Case("duplicates", FOR_EVER, surplus=REQUESTS),
    Case("empty", tries=2),
    Case("empty", FOR_EVER, tries=0),
    Case("error_in_place", {"times": 2}, tries=3),
    Case("half_packed", FOR_EVER, tries=0),
    Case("half_packed", {"times": 2}, tries=3),
    Case("redirect", FOR_EVER),
]


async def test_each_fault_of_a_download_ends_whole_or_as_a_failure_that_can_be_seen(
    shell: Shell, sandbox: Sandbox, receiver: Receiver
) -> None:
    shell.first = QUICK
    await shell.serve()
    provider = sandbox.provider
    batches: dict[str, Case] = {}
    for case in CASES:
        id = provider.add_batch(total=REQUESTS)
        provider.finish(id)
        file_id = provider.retrieve(id)["output_file_id"]
        provider.faults.add(case.kind, route="content", batch_id=file_id, **case.how)
        batches[id] = case
    for id in batches:
        watched = await shell.post("/v1/watches", {"batch_id": id, "url": receiver.url()})
        assert watched.status_code == 201, watched.text
    async with AsyncBatchbell(shell.url) as bell:
        for id, case in batches.items():
            found = await merged(bell, id)
            if case.tries:
                await check_whole(bell, id, case, found)
            else:
                assert (found.state, bool(found.reason)) == ("failed", True), case
        provider.faults.clear()
        for id in [id for id, case in batches.items() if not case.tries]:
            await bell.fetch_results(id)
            await check_whole(bell, id, Case("none"), await merged(bell, id))
    await receiver.wait_for(len(batches), timeout=30)
    told = [json.loads(hook.body)["data"]["id"] for hook in receiver.received]
    assert set(told) == set(batches)


async def merged(bell: AsyncBatchbell, id: str) -> Results:
    """The results once they are there, or given up."""
    async with asyncio.timeout(60):
        while True:
            found = (await bell.batch(id)).batchbell.results
            if found is not None and found.state in ("ready", "failed"):
                return found
            await asyncio.sleep(0.05)


async def check_whole(bell: AsyncBatchbell, id: str, case: Case, found: Results) -> None:
    """Every answer is there once; what came twice stands behind them, and is reported."""
    assert (found.state, found.lines) == ("ready", REQUESTS + case.surplus), (case, found)
    assert found.succeeded == found.lines, case
    assert bool(found.notes) == bool(case.surplus), (case, found)
    names = [line.custom_id async for line in bell.results(id)]
    assert len(set(names[:REQUESTS])) == REQUESTS, case
    assert set(names) == set(names[:REQUESTS]), case
