"""(a): what it costs that no webhook is lost, against the plain client on the same receiver."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from batchbell.core.model import Dialect
from bench.backlog import Backlog
from bench.children import Child
from bench.run import Run
from bench.sending import Timing
from bench.tables import show

ENDPOINTS = 50


@dataclass
class Way:
    """One way to send: which processes do it, what it is compared with, and how it went."""

    name: str
    order: str
    senders: Sequence[Child]
    against: Way | None = None
    backlog: Backlog | None = None
    aim: str = ""
    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    async def round(self, number: int) -> None:
        """Send so many, shared by the processes."""
        order: dict[str, object] = {self.order: number // len(self.senders)}
        if self.backlog is not None:
            await self.backlog.add(number)
            order = {self.order: self.backlog.database_url}
        orders = [sender.ask(**order) for sender in self.senders]
        timings = [Timing(**answer) for answer in await asyncio.gather(*orders)]
        sent = sum(one.number for one in timings)
        assert sent == number, f"{self.name}: {sent} of {number}"
        seconds = max(one.ended for one in timings) - min(one.started for one in timings)
        self.rates.append(number / seconds)
        self.cpu_us.append(sum(one.cpu_seconds for one in timings) / number * 1e6)

    def ratios(self) -> list[float]:
        """To what was measured right before it, round by round."""
        assert self.against is not None
        return [ours / bare for ours, bare in zip(self.rates, self.against.rates, strict=True)]

    def row(self) -> list[str]:
        ratios = self.ratios() if self.against else []
        return [
            self.name,
            f"{statistics.median(self.rates):,.0f}",
            f"{statistics.median(ratios):.2f}" if ratios else "",
            self.aim,
            f"{statistics.median(self.cpu_us):.0f}",
            " ".join(f"{one / 1000:.1f}" for one in self.rates),
            " ".join(f"{one:.2f}" for one in ratios),
        ]


async def run(run: Run) -> None:
    """Durable deliveries a second, and their ratio to the bare HTTP client"""
    rounds, number = (2, 2000) if run.quick else (5, 8000)
    warm_up = number // 4
    async with contextlib.AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Child("receiver", run.folder))
        urls = [f"{receiver.ready['url']}/hook/{place}" for place in range(ENDPOINTS)]
        ways = await _ways(run, stack, urls)
        for way in ways:
            await way.round(warm_up)
            way.rates.clear()
            way.cpu_us.clear()
        for _ in range(rounds):
            for way in ways:
                await way.round(number)
        total = (await receiver.ask())["total"]
    sent = (warm_up + number * rounds) * len(ways)
    assert total == sent, f"{sent} were sent, {total} came"
    for way in ways:
        if way.backlog is not None:
            await way.backlog.check()
    show(
        ["way", "a second", "to bare", "aim", "CPU µs", "rounds, 1,000/s", "rounds, to bare"],
        [way.row() for way in ways],
    )
    print(
        f"\n{ENDPOINTS} endpoints, 100 calls at once in each process, signed bodies of 1 KB,"
        f" {number:,} a round.\nAll {total:,} calls reached the receiver, and each delivery ended"
        " as `delivered` with one attempt.\nFigures are medians of the rounds, and the median of"
        " their ratios; CPU is the sending processes', for one delivery."
    )


async def _ways(run: Run, stack: contextlib.AsyncExitStack, urls: Sequence[str]) -> list[Way]:
    """In the order of a round: what is compared lies close together."""
    one, two = [
        await stack.enter_async_context(Child("sending", run.folder, urls=urls)) for _ in range(2)
    ]

    def waits(database_url: str, dialect: Dialect = Dialect.WATCH) -> Backlog:
        return Backlog(database_url, urls, dialect)

    awaiter = waits(run.sqlite(), Dialect.AWAITER)
    alone, beside = waits(await run.postgresql()), waits(await run.postgresql())
    bare = Way("bare aiohttp", "bare", [one])
    bare_two = Way("bare aiohttp, two processes", "bare", [one, two])
    return [
        bare,
        Way("WebhookSender alone", "guarded", [one], bare),
        Way("SQLite", "durable", [one], bare, waits(run.sqlite()), aim="0.90, 8,000/s"),
        Way("SQLite, `/batch-awaiter`", "durable", [one], bare, awaiter),
        Way("PostgreSQL, one worker", "durable", [one], bare, alone, aim="0.85"),
        bare_two,
        Way("PostgreSQL, two workers", "durable", [one, two], bare_two, beside, aim="0.70"),
    ]
