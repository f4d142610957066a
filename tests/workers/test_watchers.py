"""The roster: a watcher for each account that there is, and for no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.conftest import Clock
from tests.workers.test_loop import Scripted

from batchbell.core.errors import SettingsError
from batchbell.core.model import DEFAULT_PROJECT, Account, Mint
from batchbell.net.guard import AddressRules
from batchbell.observability import Metrics
from batchbell.storage import accounts
from batchbell.storage.engine import Store
from batchbell.workers.loop import Loop, Loops
from batchbell.workers.watchers import Post, Watchers


@dataclass
class Office:
    """A roster, and whom it has hired; the watchers do nothing."""

    store: Store
    clock: Clock
    mint: Mint
    crew: Loops = field(default_factory=Loops)
    hired: list[Post] = field(default_factory=list)
    workers: list[Scripted] = field(default_factory=list)
    rules: AddressRules = field(default_factory=AddressRules)

    def hire(self, account: Account, post: Post) -> Loop:
        if post.base_url.endswith("/impossible"):
            raise SettingsError("no such thing")
        self.hired.append(post)
        self.workers.append(Scripted())
        return Loop(self.workers[-1], clock=self.clock, rand=lambda: 0.0, metrics=Metrics())

    def roster(self, environment_key: str | None = "sk-env") -> Watchers:
        return Watchers(
            self.store,
            self.crew,
            self.hire,
            key_of=lambda _: environment_key,
            rules=lambda: self.rules,
        )

    async def add(self, name: str, path: str = "v1") -> Account:
        return await self.store.write(
            accounts.add,
            DEFAULT_PROJECT,
            name=name,
            provider="openai",
            base_url=f"https://{name}.example/{path}",
            credentials=f"sk-{name}",
            mint=self.mint,
            now=self.clock(),
        )

    async def change(self, name: str, **how: Any) -> None:
        await self.store.write(accounts.change, DEFAULT_PROJECT, name, now=self.clock(), **how)

    def names(self) -> list[tuple[str, str]]:
        return [(post.name, post.key) for post in self.hired]


@pytest.fixture
async def office(store: Store, account: Account, clock: Clock, mint: Mint) -> AsyncIterator[Office]:
    office = Office(store, clock, mint)
    yield office
    office.crew.stop()
    await office.crew.ended(within_seconds=5)


async def test_every_account_gets_a_watcher_with_its_own_key(office: Office) -> None:
    await office.add("nightly")
    roster = office.roster()
    await roster.step()
    await roster.step()
    assert office.names() == [("openai", "sk-env"), ("nightly", "sk-nightly")]
    assert [post.rules for post in office.hired] == [None, AddressRules()]
    assert "sk-" not in repr(office.hired)


async def test_without_its_key_the_environments_account_is_not_watched(office: Office) -> None:
    await office.roster(environment_key=None).step()
    assert office.hired == []


async def test_the_signal_tells_of_a_new_account(office: Office) -> None:
    roster = office.roster()
    await roster.step()
    waiting = asyncio.create_task(roster.signal.wait(30))
    await office.add("nightly")
    assert await waiting
    await roster.step()
    assert office.names()[1:] == [("nightly", "sk-nightly")]


async def test_another_key_address_or_rule_means_another_watcher(office: Office) -> None:
    await office.add("nightly")
    roster = office.roster()
    await roster.step()
    await office.change("nightly", credentials="sk-other")
    await roster.step()
    moved = "https://moved.example/v1"
    await office.change("nightly", base_url=moved, credentials="sk-other")
    await roster.step()
    office.rules = AddressRules(allow_http=True)
    await roster.step()
    assert [key for _, key in office.names()] == [
        *("sk-env", "sk-nightly", "sk-other", "sk-other", "sk-other")
    ]
    for _ in range(20):
        await asyncio.sleep(0)
    assert [worker.closed for worker in office.workers] == [False, True, True, True, False]


async def test_a_pause_changes_no_watcher(office: Office) -> None:
    await office.add("nightly")
    roster = office.roster()
    await roster.step()
    await office.change("nightly", paused=True)
    await roster.step()
    assert len(office.hired) == 2


async def test_a_removed_account_is_watched_no_more(office: Office) -> None:
    await office.add("nightly")
    roster = office.roster()
    await roster.step()
    await office.store.write(
        accounts.remove, DEFAULT_PROJECT, "nightly", force=False, now=office.clock()
    )
    await roster.step()
    for _ in range(20):
        await asyncio.sleep(0)
    assert [worker.closed for worker in office.workers] == [False, True]


async def test_an_account_that_cannot_be_watched_stops_no_other(office: Office) -> None:
    await office.add("a", "impossible")
    await office.add("b")
    await office.roster().step()
    assert [name for name, _ in office.names()] == ["openai", "b"]


async def test_a_crew_that_stops_takes_nobody_on(office: Office) -> None:
    office.crew.stop()
    await office.roster().step()
    await office.crew.ended(within_seconds=5)
    assert [worker.closed for worker in office.workers] == [True]


async def test_only_vital_workers_count_and_all_of_a_name(clock: Clock) -> None:
    def loop(name: str, *, vital: bool) -> Loop:
        worker = Scripted()
        worker.name = name
        return Loop(worker, clock=clock, rand=lambda: 0.0, metrics=Metrics(), vital=vital)

    dead = loop("watcher", vital=True)
    strangers = loop("stranger", vital=False)
    clock.advance(1000)
    crew = Loops([dead, loop("watcher", vital=True), loop("roster", vital=True), strangers])
    assert crew.alive() == {"watcher": False, "roster": True}
    crew.dismiss(dead)
    assert crew.alive() == {"watcher": True, "roster": True}
    crew.stop()
    await crew.ended(within_seconds=5)
