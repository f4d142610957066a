"""(l): whether great batches that end together keep the webhooks of others waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bench.collecting import GREAT, SMALL, Scene, scene
from bench.resident import cpu_seconds, forget_peak, resident_mb
from bench.run import Run
from bench.tables import percentile, show

CROWD = 10
EACH_SECONDS = 0.37
"""Beside the second between two sweeps, so that the probes end at all moments of it."""
QUIET_PROBES = 100
PROBES_MAX = 200
AIM_SECONDS = 1.0


async def run(run: Run) -> None:
    """The webhooks of small batches while ten of 1 GB end at once"""
    rows, words = [], []
    for database in ("SQLite", "PostgreSQL"):
        url = run.sqlite() if database == "SQLite" else await run.postgresql()
        async with scene(run, url, BATCHBELL_CALLS_PER_MINUTE="100000") as here:
            probes = await here.add(SMALL, PROBES_MAX + QUIET_PROBES)
            quiet = await _probe(here, probes[:QUIET_PROBES], lambda: False)
            late, said = await _crowd(here, probes[QUIET_PROBES:])
        rows += [_row(f"{database}, alone", quiet), _row(f"{database}, beside ten", late, quiet)]
        words.append(f"{database}: {said}.")
    show(["webhooks", "probes", "median s", "p99 s", "most s", "most, more by", "aim"], rows)
    print(
        f"\nA whole `batchbell serve` that sweeps every second. {CROWD} batches of"
        f" {here.chats.lines:,} lines and {here.chats.size / 1e6:,.0f} MB end at once,\nand until"
        f" all of them are merged a small one ends every {EACH_SECONDS} s: how long after that its"
        " webhook came.\n" + "\n".join(words)
    )


async def _crowd(here: Scene, probes: list[str]) -> tuple[list[float], str]:
    """How late the probes were beside the crowd, and what else was seen."""
    great, pid = await here.add(GREAT, CROWD), here.server.pid
    forget_peak(pid)
    idle, cpu = resident_mb(pid), cpu_seconds(pid)
    ended = await here.finish(great)
    ready = asyncio.create_task(here.bells.heard("results_ready", great))
    late = await _probe(here, probes, ready.done)
    seconds = max(await ready) - ended
    peak, used = resident_mb(pid, peak=True) - idle, cpu_seconds(pid) - cpu
    await asyncio.to_thread(here.check_and_clear, CROWD)
    rate = CROWD * here.chats.size / 1e6 / seconds
    return late, (
        f"the ten were merged after {seconds:.0f} s ({rate:,.0f} MB/s, {used:.0f} s of CPU), with"
        f" {peak:.0f} MB of memory above idle at the peak"
    )


async def _probe(here: Scene, ids: list[str], enough: Callable[[], bool]) -> list[float]:
    """How many seconds after its end each batch was told of, one ending after the other."""
    ended: dict[str, float] = {}
    for id in ids:
        if enough():
            break
        ended[id] = await here.finish([id])
        await asyncio.sleep(EACH_SECONDS)
    heard = await here.bells.heard("completed", ended)
    return [at - ended[id] for id, at in zip(ended, heard, strict=True)]


def _row(words: str, late: list[float], quiet: list[float] | None = None) -> list[str]:
    figures = [percentile(late, 50), percentile(late, 99), max(late)]
    more = [] if quiet is None else [f"{max(late) - max(quiet):.2f}", f"{AIM_SECONDS:.0f}"]
    return [words, f"{len(late)}", *(f"{one:.2f}" for one in figures), *(more or ["", ""])]
