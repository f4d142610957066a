"""(i): what a claim costs when very much waits, and when very much is finished."""

from __future__ import annotations

import statistics
import time

from batchbell.core.model import Dialect
from batchbell.storage import queue
from bench.backlog import Backlog
from bench.bulk import fill
from bench.run import Run, mint, opened
from bench.sending import AT_ONCE
from bench.tables import show

ENDPOINTS = 50
FEW = 1000
CLAIMS = 50
ROOM = 32


async def run(run: Run) -> None:
    """What a claim costs with very many deliveries waiting, and very many finished"""
    many = 100_000 if run.quick else 1_000_000
    finished = 10_000_000 if run.full else many
    rows = []
    for name, url in {"SQLite": run.sqlite(), "PostgreSQL": await run.postgresql()}.items():
        urls = [f"http://127.0.0.1/{place}" for place in range(ENDPOINTS)]
        backlog = Backlog(url, urls, Dialect.WATCH)
        await fill(backlog, FEW)
        few = await _cost(url)
        rows.append([f"{name}, {FEW:,} waiting", f"{few:.2f}", ""])
        await fill(backlog, many - FEW)
        waiting = await _cost(url)
        rows.append([f"{name}, {many:,} waiting", f"{waiting:.2f}", f"{waiting / few:.2f}"])
        await fill(backlog, finished, finished=True)
        done = await _cost(url)
        words = f"{name}, {many:,} waiting, {finished:,} finished"
        rows.append([words, f"{done:.2f}", f"{done / few:.2f}"])
    show(["database", "ms a claim", "to the first"], rows)
    print(
        f"\nMedians of {CLAIMS} claims of {AT_ONCE} deliveries of {ENDPOINTS} endpoints, each in a"
        " transaction of its own, and given back.\nRows were made in bulk, by SQL"
        + ("." if run.full else "; with `--full`, 10,000,000 are finished.")
    )


async def _cost(database_url: str) -> float:
    """Milliseconds of one claim."""
    times = []
    async with opened(database_url) as store:
        for _ in range(CLAIMS + 5):
            started = time.perf_counter()
            claim = await store.write(
                queue.claim_due,
                rooms={},
                room=ROOM,
                limit=AT_ONCE,
                now=time.time(),
                lease_seconds=60.0,
                token=mint("lease"),
            )
            times.append(time.perf_counter() - started)
            assert len(claim.deliveries) == AT_ONCE
            await store.write(queue.give_back, claim.deliveries, now=time.time())
    return statistics.median(times[5:]) * 1000
