"""A whole Batchbell without HTTP in front, over a real database, provider and receiver."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from tests.conftest import Clock

from batchbell.core.model import DEFAULT_PROJECT, Account, Dialect, Mint
from batchbell.core.polling import Pace
from batchbell.net.api import ApiClient
from batchbell.net.client import WebhookSender
from batchbell.net.guard import AddressRules
from batchbell.observability import Metrics
from batchbell.providers import open_provider
from batchbell.sandbox import OPEN, Receiver, Sandbox
from batchbell.storage import accounts, watches
from batchbell.storage.engine import Store
from batchbell.storage.watches import Registered, Registration
from batchbell.workers.dispatcher import Dispatcher
from batchbell.workers.watcher import Watcher

API_KEY = "sk-sandbox"


@dataclass
class House:
    """Step the workers by hand; the clock stands still until the test moves it."""

    store: Store
    account: Account
    sandbox: Sandbox
    receiver: Receiver
    watcher: Watcher
    dispatcher: Dispatcher
    sender: WebhookSender
    clock: Clock
    mint: Mint
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def provider(self):
        return self.sandbox.provider

    async def register(
        self, *batch_ids: str, path: str = "/hook", **wishes: object
    ) -> list[Registered]:
        """Watch these batches at a path of the receiver, as `/batch-awaiter` does."""
        wishes.setdefault("dialect", Dialect.AWAITER)
        wanted = [
            Registration(
                account_id=self.account.id,
                batch_id=batch_id,
                url=self.receiver.url(path),
                **wishes,  # type: ignore[arg-type]
            )
            for batch_id in batch_ids
        ]
        return await self.store.write(
            watches.register, DEFAULT_PROJECT, wanted, mint=self.mint, now=self.clock()
        )

    async def sweep(self) -> None:
        """Let time pass until the account is due, and sweep it."""
        due = await self.store.read(accounts.next_due, [self.account.id])
        assert due is not None
        self.clock.now = max(self.clock.now, due)
        assert await self.watcher.step()

    async def deliver(self) -> None:
        """Send everything that is due now, to its end."""
        while await self.dispatcher.step():
            await self.dispatcher.calls_ended()

    async def read(self, query, *args, **kwargs):
        return await self.store.read(query, *args, **kwargs)


@pytest.fixture
async def sandbox(clock: Clock) -> AsyncIterator[Sandbox]:
    async with Sandbox(api_key=API_KEY, schedule=OPEN, clock=clock) as sandbox:
        yield sandbox


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def house(
    store: Store,
    account: Account,
    sandbox: Sandbox,
    receiver: Receiver,
    clock: Clock,
    mint: Mint,
) -> AsyncIterator[House]:
    metrics = Metrics()
    rules = AddressRules(allow_http=True, allow_loopback=True)
    clients: list[ApiClient] = []

    def connect(_base_url, headers):
        clients.append(ApiClient(sandbox.base_url, headers, timeout_seconds=5))
        return clients[-1]

    provider = open_provider(account, API_KEY, connect=connect, clock=clock)
    chance = {"clock": clock, "mint": mint, "rand": lambda: 0.5, "metrics": metrics}
    async with WebhookSender(lambda: rules, clock=time.time) as sender:

        async def sleep(seconds: float) -> None:
            clock.advance(seconds)

        watcher = Watcher(
            store, provider, account.id, pace=Pace(), rules=lambda: rules, sleep=sleep, **chance
        )
        dispatcher = Dispatcher(store, sender, **chance, timeout_seconds=2.5)
        yield House(
            store, account, sandbox, receiver, watcher, dispatcher, sender, clock, mint, metrics
        )
        receiver.release()
        await dispatcher.close()
    for client in clients:
        await client.aclose()
