"""(n): batches that all end at once, by the whole server, beside another commit's."""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.children import Child
from bench.resident import cpu_seconds, forget_peak, resident_mb
from bench.run import Run
from bench.server import Server, started
from bench.tables import show

POLL_SECONDS = 5.0
BULK = 1000
LOOK_SECONDS = 0.05
REST_SECONDS = 2.0
"""A webhook that came twice would have come by then."""
WAIT_SECONDS = 180.0


@dataclass(frozen=True)
class Burst:
    """How one went."""

    seconds: float
    """From the first webhook to the last."""
    cpu_ms: float
    """Of the server, a batch: from before the ends until the last webhook."""
    peak_mb: float
    """Above what was resident before the ends."""


async def run(run: Run) -> None:
    """From the first webhook to the last, of batches that end at once: one URL, and a URL each"""
    number, rounds = (2_000, 1) if run.quick else (10_000, 3)
    bursts: dict[tuple[str, str, str], list[Burst]] = defaultdict(list)
    for _ in range(rounds):
        for name in ("SQLite", "PostgreSQL"):
            for words, urls in (("1 URL", 1), (f"{number:,} URLs", number)):
                for commit, tree in run.trees.items():
                    database = run.sqlite() if name == "SQLite" else await run.postgresql()
                    burst = await _burst(run, database, number, urls=urls, tree=tree)
                    bursts[name, words, commit].append(burst)
                    urls_of = "one URL" if urls == 1 else "a URL each"
                    run.note(f"burst s, {name}, {urls_of}", commit, burst.seconds)
                    run.note(f"burst CPU ms, {name}, {urls_of}", commit, burst.cpu_ms)
                    run.note(f"burst peak MB, {name}, {urls_of}", commit, burst.peak_mb)
                    print(f"{name}, {words}, {commit}: {burst}", file=sys.stderr)
    columns = ["database", "URLs", "code", "seconds", "a second", "CPU ms a batch", "peak MB"]
    show(columns, [[*key, *_row(several, number)] for key, several in sorted(bursts.items())])
    print(
        f"\nA whole `batchbell serve`; {number:,} batches end at the same moment. Medians of"
        f" {rounds} rounds, by turns; for seconds the least and the most as well.\nProvider and"
        " receiver are two more processes, which share the cores. Each webhook came once."
    )


def _row(several: Sequence[Burst], number: int) -> list[str]:
    seconds = [one.seconds for one in several]
    middle = statistics.median(seconds)
    return [
        f"{middle:.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
        f"{number / middle:,.0f}",
        f"{statistics.median(one.cpu_ms for one in several):.2f}",
        f"{max(one.peak_mb for one in several):.0f}",
    ]


async def _burst(run: Run, database: str, number: int, *, urls: int, tree: Path) -> Burst:
    async with (
        Child("provider", run.folder) as provider,
        Child("receiver", run.folder) as receiver,
        started(
            run.folder,
            database,
            provider.ready["base_url"],
            tree=tree,
            BATCHBELL_POLL_INTERVAL_SECONDS=str(POLL_SECONDS),
            BATCHBELL_CALLS_PER_MINUTE="100000",
        ) as server,
    ):
        ids = (await provider.ask(add=number))["ids"]
        await _watch(server, ids, [f"{receiver.ready['url']}/{n % urls}" for n in range(number)])
        await _swept(provider, number)
        forget_peak(server.pid)
        before_mb, before = resident_mb(server.pid), cpu_seconds(server.pid)
        await provider.ask(finish=True)
        heard = await _heard(receiver, number)
        cpu = cpu_seconds(server.pid) - before
        await asyncio.sleep(REST_SECONDS)
        peak_mb = resident_mb(server.pid, peak=True) - before_mb
        total = (await receiver.ask())["total"]
        assert total == number, f"{total} webhooks for {number} ends"
    return Burst(heard["last"] - heard["first"], 1000 * cpu / number, peak_mb)


async def _watch(server: Server, ids: Sequence[str], urls: Sequence[str]) -> None:
    wanted = [{"batch_id": id, "url": url} for id, url in zip(ids, urls, strict=True)]
    async with aiohttp.ClientSession(server.url) as session:
        for start in range(0, len(wanted), BULK):
            async with session.post("/v1/watches", json=wanted[start : start + BULK]) as answer:
                assert answer.status == 201, await answer.text()


async def _swept(provider: Child, number: int) -> None:
    """Wait until a whole sweep has seen all of them as they are, and the next has not begun."""
    pages = number // 100
    begun = (await provider.ask())["list"]
    async with asyncio.timeout(WAIT_SECONDS):
        before = -1
        while (now := (await provider.ask())["list"]) < begun + 2 * pages or now != before:
            before = now
            await asyncio.sleep(POLL_SECONDS / 10)


async def _heard(receiver: Child, number: int) -> dict[str, float]:
    async with asyncio.timeout(WAIT_SECONDS):
        while (heard := await receiver.ask())["total"] < number:  # noqa: ASYNC110 - it only counts
            await asyncio.sleep(LOOK_SECONDS)
    return heard
