"""(d): how soon a receiver hears of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

import aiohttp

from batchbell.core.polling import PAGE_SIZE
from batchbell.sandbox import Received, Receiver, Sandbox
from bench.provider import API_KEY
from bench.run import Run
from bench.server import serving
from bench.tables import percentile, show

TOGETHER = 1000
ENDPOINTS = 50
ARRIVE_SECONDS = 60.0
SPARE_SECONDS = 1.0


class Arrivals:
    """When the first webhook of each batch came, and how many came in all."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self.total = 0
        self.enough = asyncio.Event()
        self.wanted = 0

    def note(self, received: Received) -> None:
        self.total += 1
        self.at.setdefault(json.loads(received.body)["data"]["id"], received.at)
        if len(self.at) >= self.wanted:
            self.enough.set()

    async def reach(self, number: int) -> None:
        """Wait until so many batches were heard of."""
        self.wanted = number
        self.enough.clear()
        if len(self.at) < number:
            async with asyncio.timeout(ARRIVE_SECONDS):
                await self.enough.wait()


async def run(run: Run) -> None:
    """From the end of 1,000 batches at the provider to their webhooks' arrival"""
    interval, phases = (2.0, (0.5,)) if run.quick else (5.0, (0.17, 0.5, 0.83))
    databases = {"SQLite": run.sqlite(), "PostgreSQL": await run.postgresql()}
    rows = []
    for name, database_url in databases.items():
        waits = await _measure(run, database_url, interval, phases)
        aim = interval + SPARE_SECONDS
        rows.append(
            [name]
            + [f"{percentile(waits, percent):.2f}" for percent in (0, 50, 99)]
            + [f"{max(waits):.2f}", f"{aim:.0f}"]
        )
    show(["database", "least s", "median s", "p99 s", "most s", "aim for the median"], rows)
    print(
        f"\nA whole `batchbell serve` that sweeps every {interval:g} s, and {ENDPOINTS} endpoints."
        f" {TOGETHER:,} batches end at once, {len(phases)} times, at\ndifferent moments between two"
        " sweeps. Each was told of once. The provider and the receiver share one more process."
    )


async def _measure(
    run: Run, database_url: str, interval: float, phases: Sequence[float]
) -> list[float]:
    arrivals = Arrivals()
    waits: list[float] = []
    async with (
        Sandbox(api_key=API_KEY) as sandbox,
        Receiver(keep=False, on_received=arrivals.note) as receiver,
        serving(
            run.folder,
            database_url,
            sandbox.base_url,
            BATCHBELL_POLL_INTERVAL_SECONDS=str(interval),
        ) as url,
        aiohttp.ClientSession(url) as session,
    ):
        for phase in phases:
            ids = sandbox.provider.add_batches(TOGETHER)
            await _watch(session, receiver, ids)
            await _swept_since(sandbox)
            await asyncio.sleep(interval * phase)
            ended_at = {}
            for id in ids:
                ended_at[id] = time.time()
                sandbox.provider.finish(id)
            await arrivals.reach(len(waits) + TOGETHER)
            waits += [arrivals.at[id] - at for id, at in ended_at.items()]
    assert arrivals.total == len(waits), f"{arrivals.total} webhooks for {len(waits)} ends"
    return waits


async def _watch(session: aiohttp.ClientSession, receiver: Receiver, ids: Sequence[str]) -> None:
    wanted = [
        {"batch_id": id, "url": receiver.url(f"/hook/{number % ENDPOINTS}")}
        for number, id in enumerate(ids)
    ]
    async with session.post("/v1/watches", json=wanted) as answer:
        assert answer.status == 201, await answer.text()


async def _swept_since(sandbox: Sandbox) -> None:
    """Wait for the beginning of a sweep after this one: where we are between two is then known."""
    calls = sandbox.provider.calls
    begun = calls["list"] + 1 + TOGETHER // PAGE_SIZE
    while calls["list"] < begun:  # noqa: ASYNC110 - the sandbox only counts
        await asyncio.sleep(0.01)
