"""(a): what it costs that no webhook is lost, against the plain client on the same receiver."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from batchbell.core.model import Dialect
from bench.children import Child
from bench.run import THIS, Run
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
    database_url: str = ""
    filling: Child | None = None
    commit: str = THIS
    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    async def round(self, number: int) -> None:
        """Send so many, shared by the processes."""
        order: dict[str, object] = {self.order: number // len(self.senders)}
        if self.filling is not None:
            await self.filling.ask(add=number)
            order = {self.order: self.database_url}
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
            self.name if self.commit == THIS else f"{self.name}, {self.commit}",
            f"{statistics.median(self.rates):,.0f}",
            f"{statistics.median(ratios):.2f}" if ratios else "",
            f"{statistics.median(self.cpu_us):.0f}",
            " ".join(f"{one / 1000:.1f}" for one in self.rates),
            " ".join(f"{one:.2f}" for one in ratios),
        ]

    def note(self, run: Run) -> None:
        """Keep the figures for the table beside the baseline."""
        run.note(f"deliveries a second, {self.name}", self.commit, *self.rates)
        run.note(f"delivery CPU µs, {self.name}", self.commit, *self.cpu_us)
        if self.against is not None:
            run.note(f"deliveries to bare, {self.name}", self.commit, *self.ratios())


async def rounds(ways: Sequence[Way], run: Run, *, number: int, times: int) -> int:
    """Run them by turns, after one round that warms up; how many were sent in all."""
    warm_up = number // 4
    for way in ways:
        await way.round(warm_up)
        way.rates.clear()
        way.cpu_us.clear()
    for _ in range(times):
        for way in ways:
            await way.round(number)
    for way in ways:
        if way.filling is not None:
            await way.filling.ask()
        way.note(run)
    return (warm_up + number * times) * len(ways)


async def run(run: Run) -> None:
    """Durable deliveries a second, and their ratio to the bare HTTP client"""
    times, number = (2, 2000) if run.quick else (5, 8000)
    async with contextlib.AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Child("receiver", run.folder))
        urls = [f"{receiver.ready['url']}/hook/{place}" for place in range(ENDPOINTS)]
        ways = await _ways(run, stack, urls)
        sent = await rounds(ways, run, number=number, times=times)
        total = (await receiver.ask())["total"]
    assert total == sent, f"{sent} were sent, {total} came"
    show(
        ["way", "a second", "to bare", "CPU µs", "rounds, 1,000/s", "rounds, to bare"],
        [way.row() for way in ways],
    )
    print(
        f"\n{ENDPOINTS} endpoints, 100 calls at once in each process, signed bodies of 1 KB,"
        f" {number:,} a round.\nAll {total:,} calls reached the receiver, and each delivery ended"
        " as `delivered` with one attempt.\nFigures are medians of the rounds, and the median of"
        " their ratios; CPU is the sending processes', for one delivery."
    )


class Ways:
    """Makes ways to send to these URLs; what they need lasts as long as the stack."""

    def __init__(self, run: Run, stack: contextlib.AsyncExitStack, urls: Sequence[str]) -> None:
        self._run = run
        self._stack = stack
        self._urls = urls

    async def senders(self, number: int, commit: str = THIS) -> list[Child]:
        """Processes that send."""
        tree = self._run.trees[commit]
        how = {"tree": tree, "urls": self._urls}
        made = [Child("sending", self._run.folder, **how) for _ in range(number)]
        return [await self._stack.enter_async_context(one) for one in made]

    async def durable(
        self,
        name: str,
        database_url: str,
        senders: Sequence[Child],
        commit: str = THIS,
        *,
        against: Way | None = None,
        dialect: Dialect = Dialect.WATCH,
    ) -> Way:
        """Deliveries of a database of their own."""
        how = {"database_url": database_url, "urls": self._urls, "dialect": dialect.value}
        filling = Child("filling", self._run.folder, tree=self._run.trees[commit], **how)
        await self._stack.enter_async_context(filling)
        return Way(name, "durable", senders, against, database_url, filling, commit)


async def _ways(run: Run, stack: contextlib.AsyncExitStack, urls: Sequence[str]) -> list[Way]:
    """In the order of a round: what is compared lies close together."""
    make = Ways(run, stack, urls)
    one, two = await make.senders(2)
    bare = Way("bare aiohttp", "bare", [one])
    bare_two = Way("bare aiohttp, two processes", "bare", [one, two])
    alone, both = [bare, Way("WebhookSender alone", "guarded", [one], bare)], [bare_two]
    for commit in run.trees:
        first, second = (one, two) if commit == THIS else await make.senders(2, commit)
        for name, ways, database_url, senders in (
            ("SQLite", alone, run.sqlite(), [first]),
            ("PostgreSQL, one worker", alone, await run.postgresql(), [first]),
            ("PostgreSQL, two workers", both, await run.postgresql(), [first, second]),
        ):
            ways.append(await make.durable(name, database_url, senders, commit, against=ways[0]))
    awaiter = await make.durable(
        *("SQLite, `/batch-awaiter`", run.sqlite(), [one]), against=bare, dialect=Dialect.AWAITER
    )
    return [*alone, awaiter, *both]
