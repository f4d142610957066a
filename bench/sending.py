"""Sends webhooks in a process of its own: bare, guarded, or as deliveries of a database."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp
from sqlalchemy import Connection, Dialect, text

from batchbell.core import signing
from batchbell.net.client import WebhookSender
from batchbell.net.guard import AddressRules
from batchbell.observability import Metrics, configure_logging
from batchbell.process import calm_collector, share_interpreter
from batchbell.storage import queue
from batchbell.storage.engine import P, Query, Signal, Store, T
from batchbell.storage.opening import open_store
from batchbell.workers.dispatcher import Dispatcher
from batchbell.workers.janitor import Janitor
from batchbell.workers.loop import Loop
from bench.backlog import body
from bench.children import Talk
from bench.run import SECRET, mint

AT_ONCE = 100
RULES = AddressRules(allow_http=True, allow_loopback=True)
HEADERS = {"content-type": "application/json", "user-agent": "bench"}


@dataclass
class Timing:
    """When the first was begun and the last was done, by the clock of the machine."""

    number: int
    started: float
    ended: float
    cpu_seconds: float


async def main(talk: Talk, *, urls: list[str]) -> None:
    """Orders: `bare` or `guarded` and how many, or `durable` and the database where they wait."""
    configure_logging(level="info", format="json")
    calm_collector()
    share_interpreter()
    talk.say()
    while (order := await talk.hear()) is not None:
        match order:
            case {"bare": int(number)}:
                timing = await _bare(urls, number)
            case {"guarded": int(number)}:
                timing = await _guarded(urls, number)
            case {"durable": str(database_url)}:
                timing = await _durable(database_url)
            case _:
                raise ValueError(order)
        talk.say(**asdict(timing))


async def _bare(urls: Sequence[str], number: int) -> Timing:
    """What anybody would write: aiohttp as it comes, signing and nothing else."""
    async with aiohttp.ClientSession() as session:

        async def send(url: str, headers: dict[str, str], data: bytes) -> None:
            async with session.post(url, data=data, headers=headers) as answer:
                await answer.read()
                assert answer.status == 200

        return await _timed(send, urls, number)


async def _guarded(urls: Sequence[str], number: int) -> Timing:
    """Batchbell's sender, without a database."""
    async with WebhookSender(lambda: RULES, max_connections=AT_ONCE) as sender:

        async def send(url: str, headers: dict[str, str], data: bytes) -> None:
            outcome = await sender.send(url, headers=headers, body=data)
            assert outcome.status == 200

        return await _timed(send, urls, number)


async def _timed(
    send: Callable[[str, dict[str, str], bytes], Awaitable[None]], urls: Sequence[str], number: int
) -> Timing:
    messages = [(id, body(id, mint("batch")).encode()) for id in (mint("evt") for _ in range(1000))]
    numbers = iter(range(number))

    async def caller() -> None:
        for one in numbers:
            id, data = messages[one % len(messages)]
            signed = signing.headers([SECRET], message_id=id, timestamp=int(time.time()), body=data)
            await send(urls[one % len(urls)], {**HEADERS, **signed, "webhook-attempt": "1"}, data)

    started, cpu = time.time(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return Timing(number, started, time.time(), time.process_time() - cpu)


class Counted(Store):
    """A store that notes when the latest delivery was settled, and when nothing is left."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self.claimed = self.settled = 0
        self.last_at, self.last_cpu = time.time(), time.process_time()
        self.done = asyncio.Event()
        self._idle = False

    def _dialects(self) -> tuple[Dialect, ...]:
        return ()  # the secrets are opened by the store within

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._store.read(query, *args, **kwargs)

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        result = await self._store.write(query, *args, **kwargs)
        self._note(query, result, kwargs, args)
        if self._idle and not await self._store.read(_waits):
            self.done.set()
        return result

    def _note(
        self, query: object, result: Any, how: dict[str, Any], _given: tuple[Any, ...]
    ) -> None:
        if query is queue.settle:
            self.settled += len(result.written)
            self.last_at, self.last_cpu = time.time(), time.process_time()
        elif query is queue.claim_due:
            self.claimed += len(result.deliveries)
            # A claim with no room brings nothing although there is more.
            sought = all(room > 0 for room in how["rooms"].values())
            self._idle = sought and not result.deliveries and self.claimed == self.settled

    def signal(self, channel: str) -> Signal:
        return self._store.signal(channel)

    async def close(self) -> None:
        await self._store.close()


def _waits(connection: Connection) -> bool:
    """Whether anything waits that nobody has claimed."""
    query = text("SELECT 1 FROM deliveries WHERE state = 'pending' AND lease_token IS NULL LIMIT 1")
    return connection.execute(query).first() is not None


async def _durable(database_url: str) -> Timing:
    """The dispatcher as it runs in a server, from its first claim to its last settling."""
    store = Counted(await open_store(database_url, migrate=False))
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
        )
        janitor = Janitor(store, clock=time.time, retention_days=30, attempt_retention_days=30)
        loops = [
            Loop(worker, clock=time.time, rand=random.random, metrics=metrics)
            for worker in (dispatcher, janitor)
        ]
        started, cpu = time.time(), time.process_time()
        running = asyncio.gather(*(loop.run() for loop in loops))
        await store.done.wait()
        for loop in loops:
            loop.stop()
        await running
    await store.close()
    return Timing(store.settled, started, store.last_at, store.last_cpu - cpu)
