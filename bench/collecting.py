"""(k): what it takes to merge and keep the results of a great batch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from batchbell.sandbox import Received, Receiver
from bench.chats import LINES, Chats, name, write_chats
from bench.children import Child
from bench.resident import cpu_seconds, forget_peak, resident_mb
from bench.run import Run
from bench.server import Server, started
from bench.tables import show

GREAT, SMALL = "great", "small"
SMALL_LINES = 10
READY_SECONDS = 600.0
ROUNDS = 3
WHOSE = re.compile(rb'"custom_id": ?"([^"]*)"')
COPY_AIM = 0.5
MEMORY_AIM_MB = 150


class Bells:
    """When the webhooks came, by type and batch."""

    def __init__(self) -> None:
        self.at: dict[tuple[str, str], float] = {}
        self._rung = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def note(self, received: Received) -> None:
        event = json.loads(received.body)
        self.at[event["type"], event["data"]["id"]] = received.at
        task = asyncio.ensure_future(self._ring())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ring(self) -> None:
        async with self._rung:
            self._rung.notify_all()

    async def heard(self, type_: str, ids: Iterable[str]) -> list[float]:
        """Wait until these were told of; when that was."""
        wanted = [(f"batch.{type_}", id) for id in ids]
        async with asyncio.timeout(READY_SECONDS), self._rung:
            await self._rung.wait_for(lambda: all(one in self.at for one in wanted))
        return [self.at[one] for one in wanted]


@dataclass(frozen=True)
class Scene:
    """A server, a provider of great files, and a receiver."""

    folder: Path
    chats: Chats
    depot: Child
    server: Server
    bells: Bells
    hook: str

    async def add(self, kind: str, number: int) -> list[str]:
        """New open batches that are watched, and whose results are wanted."""
        ids: list[str] = (await self.depot.ask(add=number, kind=kind))["ids"]
        types = ["batch.completed", "batch.results_ready"]
        wanted = [{"batch_id": id, "url": self.hook, "events": types} for id in ids]
        async with (
            aiohttp.ClientSession(self.server.url) as session,
            session.post("/v1/watches", json=wanted) as answer,
        ):
            assert answer.status == 201, await answer.text()
        return ids

    async def finish(self, ids: list[str]) -> float:
        """Let batches end; returns when that was."""
        ended: float = (await self.depot.ask(finish=ids))["at"]
        return ended

    def check_and_clear(self, number: int) -> None:
        """Every line of so many great batches is on the shelf, in the order of the input."""
        size = self.chats.output.stat().st_size
        kept = [p for p in self.folder.glob("results/*/*") if p.stat().st_size == size]
        assert len(kept) == number, f"{len(kept)} merged, not {number}"
        for path in kept:
            with path.open("rb") as file:
                found = [WHOSE.search(line[:500]) for line in file]
            assert [one and one[1].decode() for one in found] == [
                name(n) for n in range(self.chats.lines)
            ]
            path.unlink()


@contextlib.asynccontextmanager
async def scene(run: Run, database_url: str, **settings: str) -> AsyncIterator[Scene]:
    """Everything in a folder of its own, which is deleted afterwards: the files are great."""
    chats, small = chats_of(run, LINES // 10 if run.quick else LINES), chats_of(run, SMALL_LINES)
    kinds: dict[str, dict[str, Any]] = {
        kind: {"lines": one.lines, "input": str(one.input), "output": str(one.output)}
        for kind, one in ((GREAT, chats), (SMALL, small))
    }
    folder, bells = run.folder / "scene", Bells()
    folder.mkdir()
    try:
        async with (
            Child("depot", run.folder, kinds=kinds) as depot,
            Receiver(keep=False, on_received=bells.note) as receiver,
            started(
                folder,
                database_url,
                depot.ready["base_url"],
                BATCHBELL_POLL_INTERVAL_SECONDS="1",
                **settings,
            ) as server,
        ):
            yield Scene(folder, chats, depot, server, bells, receiver.url("/hook"))
    finally:
        await asyncio.to_thread(shutil.rmtree, folder)


def chats_of(run: Run, lines: int) -> Chats:
    """Written once in a run."""
    if ("chats", lines) not in run.kept:
        folder = run.folder / f"chats-{lines}"
        folder.mkdir()
        run.kept["chats", lines] = write_chats(folder, lines=lines)
    found: Chats = run.kept["chats", lines]
    return found


@dataclass(frozen=True)
class Round:
    """One batch collected, and its files copied."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    """Above what the server takes when it has nothing to do."""
    copy_seconds: float
    copy_cpu_seconds: float


async def run(run: Run) -> None:
    """The results of a batch of 50,000 lines, from 200 MB of requests and 1 GB of answers"""
    rows = []
    for database in ("SQLite", "PostgreSQL"):
        url = run.sqlite() if database == "SQLite" else await run.postgresql()
        async with scene(run, url) as here:
            megabytes = here.chats.size / 1e6
            how = {"base_url": here.depot.ready["base_url"], "into": str(here.folder / "copies")}
            async with Child("copier", run.folder, **how) as copier:
                idle_mb = resident_mb(here.server.pid)
                rounds = [await _round(here, copier, idle_mb) for _ in range(ROUNDS)]
        rows += [_row(f"{database}, round {n}", one, megabytes) for n, one in enumerate(rounds, 1)]
    show(["database", "s", "MB/s", "CPU s", "copy MB/s", "CPU s", "to copy", "peak MB"], rows)
    print(
        f"\nA whole `batchbell serve`; {here.chats.lines:,} lines, {megabytes:,.0f} MB in all. From"
        " the webhook that the batch has ended to the one that its\nresults are there: read from"
        " the provider, merged, on disk. The copy reads the same files through the same client and"
        "\nputs them on disk without looking at them, in a process of its own, by turns: the aim is"
        f" {COPY_AIM} of its pace. Peak memory is the\nserver's and its children's, above what it"
        f" took before the first round; the aim is {MEMORY_AIM_MB} MB. Every line was\nthere, in"
        " its place."
    )


async def _round(here: Scene, copier: Child, idle_mb: float) -> Round:
    """The copy first, so that both find the provider's files in the machine's memory."""
    [id] = await here.add(GREAT, 1)
    copied = await copier.ask(copy=[f"{id}-input", f"{id}-output"])
    pid = here.server.pid
    forget_peak(pid)
    cpu = cpu_seconds(pid)
    await here.finish([id])
    [[told], [ready]] = [await here.bells.heard(t, [id]) for t in ("completed", "results_ready")]
    used = cpu_seconds(pid) - cpu
    peak = resident_mb(pid, peak=True) - idle_mb
    await asyncio.to_thread(here.check_and_clear, 1)
    return Round(ready - told, used, peak, copied["seconds"], copied["cpu_seconds"])


def _row(words: str, one: Round, megabytes: float) -> list[str]:
    return [
        words,
        f"{one.seconds:.1f}",
        f"{megabytes / one.seconds:,.0f}",
        f"{one.cpu_seconds:.1f}",
        f"{megabytes / one.copy_seconds:,.0f}",
        f"{one.copy_cpu_seconds:.1f}",
        f"{one.copy_seconds / one.seconds:.2f}",
        f"{one.peak_mb:.0f}",
    ]
