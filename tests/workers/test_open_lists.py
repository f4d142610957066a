"""Accounts of a provider that lists what has not ended alone: what sweeps see of it, and cost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.conftest import Clock
from tests.workers.conftest import API_KEY, House

from batchbell.core.model import DEFAULT_PROJECT, Account, Mint, Status
from batchbell.core.polling import Pace
from batchbell.net.api import ApiClient
from batchbell.observability import Metrics
from batchbell.providers import open_provider
from batchbell.storage import accounts, batches
from batchbell.storage.watches import Registration, register
from batchbell.workers.watcher import Watcher

OPEN_WORDS = "status=QUEUED&status=RUNNING&status=CANCELLATION_REQUESTED"


class Filtered:
    """An account of Mistral beside the house's own."""

    def __init__(self, house: House, account: Account, watcher: Watcher) -> None:
        self.house = house
        self.account = account
        self.watcher = watcher
        self.jobs = house.sandbox.mistral

    async def watch(self, *ids: str) -> None:
        wanted = [
            Registration(
                account_id=self.account.id, batch_id=id, url=self.house.receiver.url("/hook")
            )
            for id in ids
        ]
        now = self.house.clock()
        await self.house.store.write(
            register, DEFAULT_PROJECT, wanted, mint=self.house.mint, now=now
        )

    async def sweep(self) -> dict[str, int]:
        """Sweep once; what it has cost."""
        self.jobs.calls.clear()
        self.jobs.log.clear()
        self.house.clock.advance(60)
        assert await self.watcher.step()
        return dict(self.jobs.calls)

    async def status(self, id: str) -> Status:
        found = await self.house.read(
            batches.get_batch, DEFAULT_PROJECT, id, account_id=self.account.id
        )
        return found.status

    async def discover(self) -> None:
        await self._ensure(discover=True)

    async def _ensure(self, **more: Any) -> None:
        await self.house.store.write(
            accounts.ensure_account,
            project_id=DEFAULT_PROJECT,
            name="mistral",
            provider="mistral",
            base_url=self.account.base_url,
            mint=self.house.mint,
            now=self.house.clock(),
            **more,
        )


@pytest.fixture
async def filtered(house: House, clock: Clock, mint: Mint) -> AsyncIterator[Filtered]:
    store = house.store
    account = await store.write(
        accounts.ensure_account,
        project_id=DEFAULT_PROJECT,
        name="mistral",
        provider="mistral",
        base_url=f"{house.sandbox.mistral_url}/v1",
        mint=mint,
        now=clock(),
    )
    clients: list[ApiClient] = []

    def connect(base_url: str, headers: Any) -> ApiClient:
        clients.append(ApiClient(base_url, headers, timeout_seconds=5))
        return clients[-1]

    provider = open_provider(account, API_KEY, connect=connect, clock=clock)

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    watcher = Watcher(
        store,
        provider,
        account.id,
        pace=Pace(),
        clock=clock,
        mint=mint,
        rand=lambda: 0.5,
        metrics=Metrics(),
        sleep=sleep,
    )
    yield Filtered(house, account, watcher)
    for client in clients:
        await client.aclose()


@pytest.mark.databases("sqlite")
async def test_a_thousand_open_batches_cost_ten_calls_whatever_has_ended(
    filtered: Filtered,
) -> None:
    ids = filtered.jobs.add_batches(1_000)
    for id in filtered.jobs.add_batches(500):
        filtered.jobs.finish(id)
    await filtered.watch(*ids)
    for _ in range(2):
        assert await filtered.sweep() == {"list": 10}
    assert all(OPEN_WORDS in path for _, path in filtered.jobs.log)


async def test_one_that_left_the_list_is_read_by_its_id(filtered: Filtered) -> None:
    ids = filtered.jobs.add_batches(250)
    await filtered.watch(*ids)
    await filtered.sweep()
    filtered.jobs.finish(ids[0])
    assert await filtered.sweep() == {"list": 3, "retrieve": 1}
    assert await filtered.status(ids[0]) is Status.COMPLETED
    assert await filtered.status(ids[1]) is Status.IN_PROGRESS


@pytest.mark.databases("sqlite")
async def test_many_that_left_it_at_once_are_found_in_the_list_of_all(filtered: Filtered) -> None:
    ids = filtered.jobs.add_batches(350)
    await filtered.watch(*ids)
    await filtered.sweep()
    for id in ids[:300]:
        filtered.jobs.finish(id)
    calls = await filtered.sweep()
    assert calls["list"] + calls.get("retrieve", 0) <= 1 + 4 + 1
    assert {await filtered.status(id) for id in ids[:300]} == {Status.COMPLETED}
    assert {await filtered.status(id) for id in ids[300:]} == {Status.IN_PROGRESS}


async def test_one_that_left_it_and_has_not_ended_is_watched_on(filtered: Filtered) -> None:
    """A word that is new is in no list of those that were asked for."""
    ids = filtered.jobs.add_batches(5)
    await filtered.watch(*ids)
    await filtered.sweep()
    filtered.jobs.set_status(ids[2], "PAUSED")
    for _ in range(3):
        await filtered.sweep()
        assert await filtered.status(ids[2]) is Status.IN_PROGRESS
    filtered.jobs.finish(ids[2])
    await filtered.sweep()
    assert await filtered.status(ids[2]) is Status.COMPLETED


@pytest.mark.databases("sqlite")
async def test_batches_that_nobody_named_are_found_though_they_ended_at_once(
    filtered: Filtered,
) -> None:
    ids = filtered.jobs.add_batches(250)
    await filtered.watch(*ids)
    filtered.house.clock.advance(3600)
    await filtered.discover()
    await filtered.sweep()
    running, ended = filtered.jobs.add_batches(2)
    filtered.jobs.finish(ended)
    calls = await filtered.sweep()
    assert await filtered.status(running) is Status.IN_PROGRESS
    assert await filtered.status(ended) is Status.COMPLETED
    assert calls["list"] <= 1 + 3
    assert [OPEN_WORDS in path for _, path in filtered.jobs.log][:2] == [False, True]


async def test_a_host_that_does_not_choose_is_asked_for_all(filtered: Filtered) -> None:
    ids = filtered.jobs.add_batches(150)
    await filtered.watch(*ids)
    filtered.jobs.faults.add("status", route="list", status=400, message="Unknown parameter.")
    assert await filtered.sweep() == {"list": 3}
    filtered.jobs.finish(ids[0])
    assert await filtered.sweep() == {"list": 2}
    assert await filtered.status(ids[0]) is Status.COMPLETED
