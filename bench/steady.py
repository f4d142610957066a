"""A dispatcher under a steady load, in a process of its own: how late are the webhooks?"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import Any

from batchbell.core.model import Dialect
from batchbell.net.client import WebhookSender
from batchbell.observability import Metrics, configure_logging
from batchbell.process import calm_collector, share_interpreter
from batchbell.storage import queue
from batchbell.storage.engine import Store
from batchbell.workers.dispatcher import Dispatcher
from batchbell.workers.loop import Loop
from bench.backlog import Backlog
from bench.bulk import fill
from bench.children import Talk
from bench.run import mint, opened
from bench.sending import AT_ONCE, RULES, Counted
from bench.tables import percentile

EACH_SECONDS = 0.1
"""How often some deliveries become due."""
TIMEOUT_SECONDS = 2.0
SETTLE_SECONDS = 60.0


class Watched(Counted):
    """Notes how long after its event each delivery to a healthy endpoint was settled."""

    def __init__(self, store: Store, bad: frozenset[str]) -> None:
        super().__init__(store)
        self._bad = bad
        self.lags: list[float] = []

    def _note(
        self, query: object, result: Any, how: dict[str, Any], given: tuple[Any, ...]
    ) -> None:
        super()._note(query, result, how, given)
        if query is queue.settle:
            now = time.time()
            self.lags += [
                now - one.delivery.occurred_at
                for one in given[0]
                if one.delivery.endpoint_id not in self._bad
            ]


async def main(talk: Talk) -> None:
    """Each order names a database, healthy `urls`, and perhaps a `bad` one and what waits for it;
    `a_second` deliveries become due for `seconds`. It is answered with lags and ages in ms."""
    configure_logging(level="error", format="json")
    calm_collector()
    share_interpreter()
    talk.say()
    while (order := await talk.hear()) is not None:
        talk.say(**await _play(**order))


async def _play(
    *, database: str, urls: list[str], bad: str, waiting: int, a_second: int, seconds: float
) -> dict[str, Any]:
    flood = Backlog(database, [bad], Dialect.WATCH)
    if waiting:
        await fill(flood, waiting)
    healthy = Backlog(database, urls, Dialect.WATCH)
    async with opened(database) as opened_store:
        store = Watched(opened_store, frozenset(flood.endpoint_ids))
        async with _dispatching(store):
            ages = await _load(store, healthy, a_second, seconds)
    return {
        **{f"lag{p}": percentile(store.lags, p) * 1000 for p in (50, 99)},
        **{f"age{p}": percentile(ages, p) * 1000 for p in (50, 99)},
    }


async def _load(store: Watched, healthy: Backlog, a_second: int, seconds: float) -> list[float]:
    """Let deliveries become due, and look meanwhile how old the oldest of them is."""
    ages, ends = [], time.monotonic() + seconds
    while time.monotonic() < ends:
        began = time.monotonic()
        await healthy.put(store, max(1, round(a_second * EACH_SECONDS)))
        now = time.time()
        since = await store.read(queue.oldest_past_due, now=now)
        ages.append(0.0 if since is None else now - since)
        await asyncio.sleep(max(0.0, EACH_SECONDS - (time.monotonic() - began)))
    async with asyncio.timeout(SETTLE_SECONDS):
        while len(store.lags) < healthy.total:  # noqa: ASYNC110 - the store only counts
            await asyncio.sleep(0.05)
    return ages


@contextlib.asynccontextmanager
async def _dispatching(store: Store) -> AsyncIterator[None]:
    metrics = Metrics()
    async with WebhookSender(lambda: RULES, max_connections=AT_ONCE) as sender:
        dispatcher = Dispatcher(
            store,
            sender,
            clock=time.time,
            mint=mint,
            rand=random.random,
            metrics=metrics,
            max_in_flight=AT_ONCE,
            timeout_seconds=TIMEOUT_SECONDS,
        )
        loop = Loop(dispatcher, clock=time.time, rand=random.random, metrics=metrics)
        running = asyncio.create_task(loop.run())
        yield
        loop.stop()
        await running
