"""(e): how fast batches can be registered."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from bench.children import Child
from bench.run import Run
from bench.server import serving
from bench.tables import percentile, show

CLIENTS = 64
ENDPOINTS = 50
BULK = 1000


@dataclass(frozen=True)
class Pace:
    """How one way of registering went."""

    number: int
    seconds: float
    latencies: list[float]

    def row(self, name: str) -> list[str]:
        ms = [seconds * 1000 for seconds in self.latencies]
        return [
            name,
            f"{self.number / self.seconds:,.0f}",
            f"{statistics.median(ms):.1f}",
            f"{percentile(ms, 99):.1f}",
        ]


async def run(run: Run) -> None:
    """Registrations a second, single and in bulk"""
    single, calls = (1500, 4) if run.quick else (8000, 20)
    rows = []
    for name in ("SQLite", "PostgreSQL"):
        database_url = run.sqlite() if name == "SQLite" else await run.postgresql()
        async with Child("provider", run.folder) as provider:
            ids = (await provider.ask(add=single + calls * BULK))["ids"]
            async with (
                serving(run.folder, database_url, provider.ready["base_url"]) as url,
                aiohttp.ClientSession(
                    url, connector=aiohttp.TCPConnector(limit=CLIENTS)
                ) as session,
            ):
                rows.append((await _single(session, ids[:single])).row(f"{name}, single"))
                rows.append((await _bulk(session, ids[single:])).row(f"{name}, in bulk"))
                await _check(session, len(ids))
    show(["way", "a second", "median ms a call", "p99 ms"], rows)
    print(
        f"\nA whole `batchbell serve`, workers and all: it sweeps the account meanwhile. Single:"
        f" {single:,} calls of `/batch-awaiter` by\n{CLIENTS} clients that keep their connections."
        f" In bulk: {calls} calls of `/v1/watches`, one after the other, {BULK:,} watches each."
        "\nWhat was answered with 201 is on disk."
    )


async def _single(session: aiohttp.ClientSession, ids: Sequence[str]) -> Pace:
    left, latencies = iter(enumerate(ids)), []

    async def client() -> None:
        for number, id in left:
            begun = time.perf_counter()
            body = {"id": id, "webhookUrl": _hook(number)}
            async with session.post("/batch-awaiter", json=body) as answer:
                await answer.read()
                assert answer.status == 201, await answer.text()
            latencies.append(time.perf_counter() - begun)

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return Pace(len(ids), time.perf_counter() - started, latencies)


async def _bulk(session: aiohttp.ClientSession, ids: Sequence[str]) -> Pace:
    latencies = []
    for start in range(0, len(ids), BULK):
        begun = time.perf_counter()
        chunk = enumerate(ids[start : start + BULK])
        wanted = [{"batch_id": id, "url": _hook(number)} for number, id in chunk]
        async with session.post("/v1/watches", json=wanted) as answer:
            told = await answer.json()
            assert (answer.status, told["created"]) == (201, len(wanted)), told
        latencies.append(time.perf_counter() - begun)
    return Pace(len(ids), sum(latencies), latencies)


def _hook(number: int) -> str:
    return f"http://127.0.0.1:9/hook/{number % ENDPOINTS}"


async def _check(session: aiohttp.ClientSession, number: int) -> None:
    """The server counts as many new watches as we had made."""
    async with session.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    counted = [line.split()[-1] for line in lines if 'registrations_total{created="true"}' in line]
    assert [float(one) for one in counted] == [number], counted
