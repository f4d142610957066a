"""One account with so many open batches, swept by a process that does nothing else."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass

from sqlalchemy.engine import make_url

from bench.children import Child
from bench.run import THIS, Run

IDLE_SWEEPS = 3


@dataclass(frozen=True)
class Cost:
    """What one sweep took. Rows written are of any table."""

    calls: int
    seconds: float
    cpu_seconds: float
    rows_written: int
    settled_mb: float
    peak_mb: float


@dataclass(frozen=True)
class Swept:
    """How it went: the first sweep sees every batch for the first time, the others nothing new."""

    open_batches: int
    first: Cost
    idle: list[Cost]
    batches_unchanged: bool


async def swept(run: Run, number: int, commit: str = THIS) -> Swept:
    """Measure it, once in a run."""
    key = ("swept", number, commit)
    if key not in run.kept:
        run.kept[key] = await _measure(run, number, commit)
    found: Swept = run.kept[key]
    return found


async def _measure(run: Run, number: int, commit: str) -> Swept:
    database_url = run.sqlite()
    async with Child("provider", run.folder) as provider:
        how = {"database_url": database_url, "base_url": provider.ready["base_url"]}
        how["tree"] = run.trees[commit]
        async with Child("sweeper", run.folder, **how) as registering:
            ids = (await provider.ask(add=number))["ids"]
            await registering.ask(register=ids)
        # A new process, so that nothing of the registering counts as the sweeper's memory.
        async with Child("sweeper", run.folder, **how) as sweeper:
            first = await _sweep(sweeper, provider)
            before = _digest(database_url)
            idle = [await _sweep(sweeper, provider) for _ in range(IDLE_SWEEPS)]
            return Swept(number, first, idle, before == _digest(database_url))


async def _sweep(sweeper: Child, provider: Child) -> Cost:
    before = sum((await provider.ask()).values())
    cost = await sweeper.ask(sweep=1)
    return Cost(calls=sum((await provider.ask()).values()) - before, **cost)


def _digest(database_url: str) -> str:
    """Of every row of `batches`, read beside the process that owns the file."""
    digest = hashlib.blake2b()
    database = sqlite3.connect(f"file:{make_url(database_url).database}?mode=ro", uri=True)
    for row in database.execute("SELECT * FROM batches ORDER BY key"):
        digest.update(repr(row).encode())
    database.close()
    return digest.hexdigest()
