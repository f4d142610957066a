"""Sweeps one account in a process of its own, step by step: what it costs in time and memory."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection

from batchbell.core.model import DEFAULT_PROJECT, Account
from batchbell.core.polling import Pace
from batchbell.net.api import ApiClient
from batchbell.observability import Metrics, configure_logging
from batchbell.process import calm_collector, share_interpreter
from batchbell.providers import open_provider
from batchbell.storage import accounts, watches
from batchbell.storage.engine import Store
from batchbell.storage.watches import Registration
from batchbell.workers.watcher import Watcher
from bench.children import Talk
from bench.provider import API_KEY
from bench.run import mint, opened

CHUNK = 1000
URL = "http://127.0.0.1:9/hook"
UNHURRIED = 1_000_000
"""Provider calls a minute: no sweep is slowed down, so that what is measured is its own cost."""


class Clock:
    """The real time, and what was skipped."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        return time.time() + self.skipped


async def main(talk: Talk, *, database_url: str, base_url: str) -> None:
    """Orders: `register` these ids, or `sweep` once; both are answered with what it cost."""
    configure_logging(level="info", format="json")
    calm_collector()
    share_interpreter()
    clock, clients, metrics = Clock(), [], Metrics()

    def connect(base_url: str, headers: Mapping[str, str]) -> ApiClient:
        clients.append(ApiClient(base_url, headers))
        return clients[-1]

    async with opened(database_url) as store:
        account = await _account(store, base_url)
        provider = open_provider(account, API_KEY, connect=connect)
        watcher = Watcher(
            store,
            provider,
            account.id,
            pace=Pace(calls_per_minute=UNHURRIED),
            clock=clock,
            mint=mint,
            rand=random.random,
            metrics=metrics,
        )
        talk.say()
        while (order := await talk.hear()) is not None:
            before, started, cpu = await store.write(_changes), time.time(), time.process_time()
            match order:
                case {"register": list(ids)}:
                    await _register(store, account, ids)
                case _:
                    await _sweep(store, watcher, account, clock)
            talk.say(
                seconds=time.time() - started,
                cpu_seconds=time.process_time() - cpu,
                rows_written=await store.write(_changes) - before,
                settled_mb=settled_mb(),
                peak_mb=peak_mb(),
            )
        for client in clients:
            await client.aclose()


async def _account(store: Store, base_url: str) -> Account:
    return await store.write(
        accounts.ensure_account,
        project_id=DEFAULT_PROJECT,
        name="openai",
        provider="openai",
        base_url=base_url,
        mint=mint,
        now=time.time(),
    )


async def _register(store: Store, account: Account, ids: Sequence[str]) -> None:
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        wanted = [Registration(account_id=account.id, batch_id=id, url=URL) for id in chunk]
        await store.write(watches.register, DEFAULT_PROJECT, wanted, mint=mint, now=time.time())


async def _sweep(store: Store, watcher: Watcher, account: Account, clock: Clock) -> None:
    due = await store.read(accounts.next_due, [account.id])
    assert due is not None
    clock.skipped += max(0.0, due - clock())
    assert await watcher.step()


def _changes(connection: Connection) -> int:
    """Rows that SQLite has written since the connection was made."""
    driver = connection.connection.driver_connection
    assert driver is not None
    number: int = driver.total_changes
    return number


def settled_mb() -> float:
    """What the process holds now."""
    said = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, check=True
    )
    return int(said.stdout) / 1024


def peak_mb() -> float:
    """The most that the process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` would count what our parent held when it made us
        words = next(w for w in status.read_text().splitlines() if w.startswith("VmHWM:"))
        return int(words.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)
