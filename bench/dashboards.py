"""(p): what open dashboards cost the dispatcher, and whether one costs anything that is closed."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from batchbell.core.model import Dialect
from bench.backlog import Backlog
from bench.children import Child
from bench.pages import NOBODY
from bench.past import Sights, past_of
from bench.resident import cpu_seconds
from bench.run import Run
from bench.server import Server, started
from bench.tables import show

OPEN = 50
ENDPOINTS = 50
AHEAD_SECONDS = 60.0
"""From when deliveries are written until they are due: the server starts, and tabs are opened.

Later rounds take twice what that took at most."""
AHEAD_LEAST_SECONDS = 6.0
LOOK_SECONDS = 0.05
WAIT_SECONDS = 300.0
IDLE_SECONDS = 20.0
NOBODY_LOOKS = "none"
TOGETHER = f"{OPEN} of five pages"
APART = f"{OPEN} of {OPEN} pages"


@dataclass(frozen=True)
class Rush:
    """How one went."""

    rate: float
    """Deliveries a second, from the first to the last."""
    cpu_us: float
    """The server's, for one delivery."""
    pages: float
    """Sent a second to all who looked."""
    ready_seconds: float
    """Until all was open."""


async def run(run: Run) -> None:
    """What 50 open dashboards cost the dispatcher, and the server when it has nothing to do"""
    number, rounds = (5_000, 2) if run.quick else (20_000, 4)
    rushes: dict[str, dict[str, list[Rush]]] = {}
    idle: list[list[str]] = []
    for name in ("SQLite", "PostgreSQL"):
        url, sights = await past_of(run, name)
        rushes[name] = await rush(run, url, sights, number=number, rounds=rounds)
        idle.append([name, *await rest(run, url, sights)])
    columns = ["database, open dashboards", "a second", "to none", "CPU µs", "to none", "pages/s"]
    show([*columns, "rounds, to none", "CPU, to none"], _rows(rushes))
    print(
        f"\nA whole `batchbell serve` with {sights.batches:,} batches and {sights.deliveries:,}"
        f" deliveries of the past;\n{number:,} more become due at one moment, for {ENDPOINTS}"
        f" endpoints. Medians of {rounds} rounds by turns, and of their ratios.\nCPU is of the"
        " server, for one delivery, with what the pages take. Receiver and browsers are two more"
        " processes.\n"
    )
    show(["nothing to do", "none", f"{OPEN} open", "all closed", "pages/s"], idle)
    print(f"\nCPU of the server, ms a second, over {IDLE_SECONDS:.0f} seconds each: one after the")
    print("other in one server.")


def pages(sights: Sights) -> dict[str, list[str]]:
    """What is open, by the words for it."""
    five = ["", "/batches", "/deliveries", f"/endpoints/{sights.endpoint}", "/events"]
    apart = [
        f"/deliveries?hours=720&batch_id=&type=&endpoint_id=ep_url_{n:03}" for n in range(OPEN)
    ]
    return {
        NOBODY_LOOKS: [],
        TOGETHER: [five[n % len(five)] for n in range(OPEN)],
        APART: apart,
    }


async def rush(
    run: Run, url: str, sights: Sights, *, number: int, rounds: int
) -> dict[str, list[Rush]]:
    """Each way by turns; the first time counts for nothing."""
    found: dict[str, list[Rush]] = defaultdict(list)
    async with Child("receiver", run.folder) as receiver:
        urls = [f"{receiver.ready['url']}/{place}" for place in range(ENDPOINTS)]
        backlog = Backlog(url, urls, Dialect.WATCH)
        ahead, ready = AHEAD_SECONDS, AHEAD_LEAST_SECONDS / 2
        for turn in range(rounds + 1):
            for words, paths in pages(sights).items():
                due = number if turn else number // 4
                one = await _rush(run, backlog, receiver, paths, due, ahead)
                ready = max(ready, one.ready_seconds)
                if turn:
                    found[words].append(one)
            ahead = 2 * ready
    await backlog.check()
    return found


async def _rush(
    run: Run, backlog: Backlog, receiver: Child, paths: Sequence[str], number: int, ahead: float
) -> Rush:
    due_at = time.time() + ahead
    await backlog.add(number, due_at=due_at)
    before = (await receiver.ask(begin=True))["total"]
    async with (
        started(run.folder, backlog.database_url, NOBODY) as server,
        Child("lookers", run.folder) as lookers,
    ):
        await _open(lookers, server, paths)
        left = due_at - time.time()
        assert left > 0, f"the pages were open {-left:.1f} s too late"
        await asyncio.sleep(left)
        cpu, seen = cpu_seconds(server.pid), await lookers.ask()
        heard = await _heard(receiver, before + number)
        used, shown = cpu_seconds(server.pid) - cpu, await lookers.ask()
        assert not shown["broken"]
    seconds = heard["last"] - heard["first"]
    pages_sent = (shown["pages"] - seen["pages"]) / seconds
    return Rush(number / seconds, used / number * 1e6, pages_sent, ahead - left)


async def _open(lookers: Child, server: Server, paths: Sequence[str]) -> None:
    await lookers.ask(open=[f"{server.url}/dashboard{path}" for path in paths])


async def _heard(receiver: Child, total: int) -> dict[str, float]:
    async with asyncio.timeout(WAIT_SECONDS):
        while (heard := await receiver.ask())["total"] < total:  # noqa: ASYNC110 - it only counts
            await asyncio.sleep(LOOK_SECONDS)
    return heard


async def rest(run: Run, url: str, sights: Sights) -> list[str]:
    """CPU of a server with nothing to do: nobody looks, all look, nobody looks any more."""
    async with started(run.folder, url, NOBODY) as server, Child("lookers", run.folder) as lookers:
        await asyncio.sleep(IDLE_SECONDS / 4)
        alone = await _used(server)
        await _open(lookers, server, pages(sights)[TOGETHER])
        before = (await lookers.ask())["pages"]
        watched = await _used(server)
        sent = (await lookers.ask(close=True))["pages"] - before
        await asyncio.sleep(1)
        after = await _used(server)
    return [*(f"{one:.0f}" for one in (alone, watched, after)), f"{sent / IDLE_SECONDS:.1f}"]


async def _used(server: Server) -> float:
    before = cpu_seconds(server.pid)
    await asyncio.sleep(IDLE_SECONDS)
    return (cpu_seconds(server.pid) - before) / IDLE_SECONDS * 1000


def _rows(rushes: dict[str, dict[str, list[Rush]]]) -> list[list[str]]:
    rows = []
    for name, ways in rushes.items():
        none = ways[NOBODY_LOOKS]
        for words, several in ways.items():
            to_none: list[list[float]] = [[], []]
            if several is not none:
                pairs = list(zip(several, none, strict=True))
                to_none[0] = [ours.rate / bare.rate for ours, bare in pairs]
                to_none[1] = [ours.cpu_us / bare.cpu_us for ours, bare in pairs]
            middle = [f"{statistics.median(one):.2f}" if one else "" for one in to_none]
            rates = f"{statistics.median(one.rate for one in several):,.0f}"
            cpu = f"{statistics.median(one.cpu_us for one in several):.0f}"
            shown = f"{statistics.median(one.pages for one in several):.1f}"
            each = [" ".join(f"{one:.2f}" for one in ratios) for ratios in to_none]
            rows.append([f"{name}, {words}", rates, middle[0], cpu, middle[1], shown, *each])
    return rows
